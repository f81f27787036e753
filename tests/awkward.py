"""The awkward packages: every odd thing that a real store may hold, by subject.

Each builder takes a ``Tree`` whose root exists and adds one subject to it, so
that a failing test names what it failed on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.trees import (
    ACL_ACCESS,
    ACL_DEFAULT,
    CAPABILITY,
    LIVE,
    SECOND,
    Abilities,
    LegacyPackage,
    Tree,
    acl,
    capability,
    describe,
    large_file,
    many_small,
    ordinary,
    package_hash,
)

MODES = (0o644, 0o755, 0o664, 0o600, 0o000, 0o444, 0o777, 0o711, 0o640, 0o555, 0o666, 0o775)
SPECIAL_MODES = (0o4755, 0o2755, 0o6755, 0o1644, 0o4711, 0o2664)
NAMES = (
    b"with space",
    b" leading",
    b"trailing ",
    b"new\nline",
    b"carriage\rreturn",
    b"tab\there",
    b'double"quote',
    b"single'quote",
    b"back\\slash",
    b"back\\",
    b"-dash",
    b"--help",
    b"$HOME",
    b"%s%n",
    b"{brace}",
    b"`tick`",
    b"*",
    b"?",
    b"~",
    b"#",
    b";",
    b"|",
    b"...",
    b".hidden",
    b"\x01control",
    b"\x7fdelete",
    b"\x1b[31mred",
    b"caf\xe9",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    "é".encode(),
    "e\u0301".encode(),
    "line\u2028separator".encode(),
    "\U0001f600".encode(),
    "İ".encode(),
    b"CON",
    b"name.",
    b"a" * 255,
    b"\xff" * 255,
    "ü".encode() * 127 + b"x",
    b"\\u0000",
    b"</script>",
    b"\xef\xbb\xbfbom",
    b"null",
    b"]}",
    b"Case",
    b"case",
)


def empties(tree: Tree, able: Abilities) -> None:
    """Empty files with several modes, empty directories, one inside the other."""
    for mode in MODES:
        tree.file(LIVE + b"/empty/file-%04o" % mode, b"", mode)
    tree.directory(LIVE + b"/empty/directory")
    tree.directory(LIVE + b"/empty/in/in/in", 0o700)
    if able.user_xattrs:
        tree.file(LIVE + b"/empty/with-xattr", b"", xattrs={"user.note": b"empty"})
    tree.link(LIVE + b"/empty/second-name", LIVE + b"/empty/file-0644")


def symlinks(tree: Tree, able: Abilities) -> None:
    """Links that lead somewhere, nowhere, out, in circles; targets of any bytes."""
    tree.file(LIVE + b"/bin/tool", b"#!/bin/sh\n", 0o755)
    targets = {
        b"relative": b"bin/tool",
        b"dangling": b"no/such/thing",
        b"absolute": b"/etc/passwd",
        b"up": b"../../../../../..",
        b"circle": b"circle",
        b"to-directory": b"bin",
        b"not-utf8": b"caf\xe9/\xff",
        b"newline": b"a\nb",
        b"quotes": b"\"'\\",
        b"long": b"x/" * 500 + b"y",
        b"dot": b".",
        b"slashes": b"bin//tool/",
        b"\xff-name": b"\xfe",
    }
    for name, target in targets.items():
        tree.symlink(LIVE + b"/" + name, target)
    if able.owners:
        tree.symlink(LIVE + b"/owned", b"bin/tool", owner=(1234, 4321))
    if able.trusted_xattrs:
        tree.symlink(LIVE + b"/marked", b"bin/tool", xattrs={"trusted.mark": b"\x00\xff"})


def link_groups(tree: Tree, able: Abilities) -> None:
    """Files with several names, across directories; a group whose first name is raw."""
    del able
    tree.file(LIVE + b"/a/first", b"one inode, four names\n", 0o644)
    for path in (b"/a/second", b"/b/third", b"/zz"):
        tree.link(LIVE + path, LIVE + b"/a/first")
    tree.file(LIVE + b"/g/\xffraw", b"group with a raw first name\n", 0o755)
    tree.link(LIVE + b"/g/\xffraw-too", LIVE + b"/g/\xffraw")
    tree.file(LIVE + b"/w/shared", b"a group whose mode no carrier has\n", 0o664)
    tree.link(LIVE + b"/w/shared-too", LIVE + b"/w/shared")
    # the same bytes and metadata, but two inodes: they must not become one group
    time_ns = tree.time_ns()
    tree.file(LIVE + b"/twins/left", b"twins\n", 0o644, mtime_ns=time_ns)
    tree.file(LIVE + b"/twins/right", b"twins\n", 0o644, mtime_ns=time_ns)
    # a group, and another group of the same bytes
    tree.link(LIVE + b"/twins/left-too", LIVE + b"/twins/left")
    tree.link(LIVE + b"/twins/right-too", LIVE + b"/twins/right")


def sparse(tree: Tree, able: Abilities) -> None:
    """Files with holes at the front, in the middle, at the end; holes only."""
    del able
    block = 1 << 16
    data = tree.rng.randbytes(block)
    tree.sparse(LIVE + b"/sparse/front", [(64 * block, data)], 65 * block)
    tree.sparse(LIVE + b"/sparse/middle", [(0, data), (100 * block, data)], 101 * block)
    tree.sparse(LIVE + b"/sparse/end", [(0, data)], 64 * block)
    tree.sparse(LIVE + b"/sparse/nothing", [], 32 * block)
    tree.sparse(LIVE + b"/sparse/odd", [(5 * block, data)], 6 * block + 17, 0o664)


def modes(tree: Tree, able: Abilities) -> None:
    """Every mode of files and directories, the set-id and sticky bits too."""
    del able
    for mode in (*MODES, *SPECIAL_MODES):
        tree.file(LIVE + b"/modes/file-%04o" % mode, b"mode %04o\n" % mode, mode)
        tree.file(LIVE + b"/modes/same-%04o" % mode, b"the same bytes in every mode\n", mode)
    for mode in (0o755, 0o700, 0o555, 0o777, 0o1777, 0o2755, 0o2775, 0o4755, 0o750, 0o000):
        tree.directory(LIVE + b"/modes/directory-%04o" % mode, mode)
        if mode & 0o500:
            tree.file(LIVE + b"/modes/directory-%04o/inside" % mode, b"inside\n")
    tree.directory(b"", 0o750)


def xattrs(tree: Tree, able: Abilities) -> None:
    """Extended attributes on files, directories and the root."""
    if able.user_xattrs:
        many = {f"user.key{n}": bytes([n]) * n for n in range(20)}
        tree.file(LIVE + b"/x/many", b"many\n", xattrs=many)
        tree.file(LIVE + b"/x/large", b"large\n", xattrs={"user.large": tree.rng.randbytes(2500)})
        tree.file(LIVE + b"/x/nothing", b"nothing\n", xattrs={"user.nothing": b""})
        tree.file(LIVE + b"/x/raw", b"raw\n", xattrs={os.fsdecode(b"user.\xff\xfe"): b"raw name"})
        tree.file(LIVE + b"/x/same", b"same bytes\n", xattrs={"user.a": b"1"})
        tree.file(LIVE + b"/x/same-without", b"same bytes\n")
        tree.file(LIVE + b"/x/read-only", b"read only\n", 0o444, xattrs={"user.a": b"1"})
        tree.directory(LIVE + b"/x/directory", xattrs={"user.directory": b"yes\x00no"})
        tree.directory(b"", xattrs={"user.root": b"of the package"})
    if able.trusted_xattrs:
        tree.file(LIVE + b"/x/trusted", b"trusted\n", xattrs={"trusted.t": b"\x00\x01"})
    if able.capabilities:
        held = {CAPABILITY: capability()}
        tree.file(LIVE + b"/bin/ping", tree.rng.randbytes(3000), 0o755, xattrs=held)


def acls(tree: Tree, able: Abilities) -> None:
    """Access lists on files and directories, default lists on directories."""
    tree.file(LIVE + b"/acl/plain", b"plain\n")
    if able.acls:
        tree.file(LIVE + b"/acl/read", b"read\n", 0o640, xattrs={ACL_ACCESS: acl()})
        tree.file(LIVE + b"/acl/write", b"write\n", 0o660, xattrs={ACL_ACCESS: acl(99, 6)})
        both = {ACL_ACCESS: acl(), ACL_DEFAULT: acl(54321, 7)}
        tree.directory(LIVE + b"/acl/directory", 0o750, xattrs=both)
        tree.file(LIVE + b"/acl/directory/under-a-default", b"under\n")
        tree.directory(LIVE + b"/acl/directory/below", 0o755)


def owners(tree: Tree, able: Abilities) -> None:
    """Other owners and groups, of files, directories and links; the same bytes too."""
    tree.file(LIVE + b"/own/mine", b"the same bytes, several owners\n")
    if able.owners:
        for uid, gid in ((1000, 1000), (0, 50), (65534, 65534), (4_000_000_000, 3_999_999_999)):
            name = LIVE + b"/own/%d-%d" % (uid, gid)
            tree.file(name, b"the same bytes, several owners\n", owner=(uid, gid))
            tree.file(name + b"-set", b"%d\n" % uid, 0o4755, owner=(uid, gid))
            tree.symlink(name + b"-link", b"mine", owner=(uid, gid))
            tree.directory(name + b"-directory", owner=(uid, gid))
        tree.directory(b"", 0o755, owner=(7, 8))


def times(tree: Tree, able: Abilities) -> None:
    """Modification times before 1970, at the edges of a second, in the year 2300."""
    del able
    moments = {
        b"1901": -2_147_483_648 * SECOND,
        b"1960": -315_619_200 * SECOND + 123_456_789,
        b"before-0": -1,
        b"zero": 0,
        b"one": 1,
        b"last-ns": 999_999_999,
        b"2038": 2_147_483_648 * SECOND + 7,
        b"2300": 10_413_792_000 * SECOND + 987_654_321,
    }
    for name, time_ns in moments.items():
        tree.file(LIVE + b"/time/" + name, name, mtime_ns=time_ns)
        tree.file(LIVE + b"/time/" + name + b"-wide", name, 0o664, mtime_ns=time_ns)
        tree.directory(LIVE + b"/time/directory-" + name, mtime_ns=time_ns)
        tree.symlink(LIVE + b"/time/link-" + name, name, mtime_ns=time_ns)
    tree.directory(b"", mtime_ns=-1)


def names(tree: Tree, able: Abilities) -> None:
    """Names of every sort, for files, directories and links."""
    del able
    for name in NAMES:
        tree.file(LIVE + b"/files/" + name, b"content of " + name)
        tree.symlink(LIVE + b"/links/" + name, name)
        tree.file(LIVE + b"/directories/" + name + b"/inside", name)


def order(tree: Tree, able: Abilities) -> None:
    """Names that sort one way by path and another by component."""
    del able
    for path in (
        b"a/b",
        b"a-b",
        b"a.b",
        b"a0",
        b"a/b.c",
        b"a/b-c/d",
        b"a/b0",
        b"a\x01",
        b"A",
        b"a ~",
    ):
        tree.file(LIVE + b"/" + path, path)
        tree.file(b"top-" + path, path)


def look_alikes(tree: Tree, able: Abilities) -> None:
    """Files and directories named like the store's own."""
    del able
    for name in (b"files.json", b"store.toml", b"state.sqlite", b"notes.json"):
        tree.file(name, b'{"format":1,"entries":[]}\n')
    tree.file(b"files.json.tmp", b"not a list\n")
    for folder in (b"objects", b"packages", b"temp", b"migration", b"0" * 64):
        tree.file(folder + b"/manifest.toml", b"[package]\nname = 'inner'\n")
    tree.file(LIVE + b"/manifest.toml", b"an inner manifest\n")
    tree.file(b"sbom.cdx.json", b'{"bomFormat":"CycloneDX"}\n')


def deep(tree: Tree, able: Abilities) -> None:
    """A tree deeper than PATH_MAX by long names."""
    del able
    tree.chain(LIVE + b"/deep", [b"%02d" % n + b"d" * 250 for n in range(20)], b"long names\n")


def very_deep(tree: Tree, able: Abilities) -> None:
    """A tree deeper than PATH_MAX by many short names: more levels than a stack likes."""
    del able
    tree.chain(LIVE + b"/very-deep", [b"d"] * 2300, b"many levels\n")


AWKWARD: dict[str, Callable[[Tree, Abilities], None]] = {
    "empties": empties,
    "symlinks": symlinks,
    "link-groups": link_groups,
    "sparse": sparse,
    "modes": modes,
    "xattrs": xattrs,
    "acls": acls,
    "owners": owners,
    "times": times,
    "names": names,
    "order": order,
    "look-alikes": look_alikes,
    "deep": deep,
    "very-deep": very_deep,
}


def add_awkward(store: Path, subject: str, seed: int, able: Abilities) -> LegacyPackage:
    """Add one awkward package to a legacy store."""
    digits = 32 if subject in {"empties", "order"} else 64
    name = package_hash(seed, subject, digits)
    rng = Random(f"{seed}:{subject}")
    with Tree(store / name, rng) as tree:
        describe(tree, f"awkward-{subject}", "0.1")
        AWKWARD[subject](tree, able)
    return LegacyPackage(name, store / name, f"awkward-{subject}", "0.1", subject)


def add_ordinary(
    store: Path, name: str, version: str, seed: int, digits: int = 64
) -> LegacyPackage:
    """Add one ordinary package; versions of one name share most of their files."""
    label = package_hash(seed, f"{name}-{version}", digits)
    with Tree(store / label, Random(f"{seed}:{name}:{version}")) as tree:
        ordinary(tree, name, version, Random(f"{seed}:{name}"))
    return LegacyPackage(label, store / label, name, version, "ordinary")


def add_old_style(store: Path, name: str, version: str, seed: int) -> LegacyPackage:
    """Add a package of the older layout, ``<name>-<version>/…``, without a bill of materials."""
    label = package_hash(seed, f"old-{name}-{version}")
    with Tree(store / label, Random(f"{seed}:old:{name}:{version}")) as tree:
        describe(tree, name, version, sbom=())
        tree.file(f"{name}-{version}/bin/{name}".encode(), tree.rng.randbytes(5000), 0o755)
        tree.file(f"{name}-{version}/share/readme".encode(), b"read me\n")
    return LegacyPackage(label, store / label, name, version, "old style")


def add_duplicates(store: Path, seed: int) -> list[LegacyPackage]:
    """Add packages that hold the same files in differing modes."""
    contents = [Random(f"{seed}:dup:{n}").randbytes(200 + 3000 * n) for n in range(8)]
    made = []
    for number, mode in enumerate((0o600, 0o644, 0o755, 0o664, 0o444, 0o4755)):
        label = package_hash(seed, f"duplicates-{number}", 64 if number % 2 else 32)
        with Tree(store / label, Random(f"{seed}:dup-tree:{number}")) as tree:
            describe(tree, "duplicates", str(number), sbom=("sbom.spdx.json", "sbom.cdx.json"))
            for index, data in enumerate(contents):
                tree.file(LIVE + b"/share/%d" % index, data, mode)
        made.append(LegacyPackage(label, store / label, "duplicates", str(number), "duplicates"))
    return made


def add_small(store: Path, seed: int, count: int, distinct: int | None = None) -> LegacyPackage:
    """Add a package of many small files."""
    name = f"small{count}"
    label = package_hash(seed, name)
    with Tree(store / label, Random(f"{seed}:{name}")) as tree:
        many_small(tree, name, count, distinct=distinct)
    return LegacyPackage(label, store / label, name, "1.0", "many small files")


def add_large(store: Path, seed: int, size: int) -> LegacyPackage:
    """Add a package with a large file."""
    label = package_hash(seed, f"large{size}")
    with Tree(store / label, Random(f"{seed}:large:{size}")) as tree:
        large_file(tree, "large", size)
    return LegacyPackage(label, store / label, "large", "1.0", "a large file")


def add_linked_outside(store: Path, outside: Path, seed: int) -> LegacyPackage:
    """Add a package one of whose files has a second name outside of the store."""
    label = package_hash(seed, "linked-outside")
    with Tree(store / label, Random(f"{seed}:outside")) as tree:
        describe(tree, "linked-outside", "1.0")
        tree.file(LIVE + b"/share/outside", b"this inode has a name elsewhere\n")
        tree.file(LIVE + b"/share/inside", b"this one has not\n")
    os.link(store / label / os.fsdecode(LIVE) / "share/outside", outside)
    return LegacyPackage(label, store / label, "linked-outside", "1.0", "linked from outside")


def add_special(store: Path, seed: int, kind: int, device: int = 0) -> LegacyPackage:
    """Add a package that cannot be migrated: it holds a FIFO, a socket or a device."""
    what = stat.filemode(kind)[0]
    label = package_hash(seed, f"special-{kind}")
    with Tree(store / label, Random(f"{seed}:special:{kind}")) as tree:
        describe(tree, "special", what)
        tree.file(LIVE + b"/bin/good", b"a good file\n", 0o755)
        tree.special(LIVE + b"/run/the-special-file", kind, device)
    return LegacyPackage(label, store / label, "special", what, "a special file")


def make_legacy_store(
    path: Path, seed: int, able: Abilities, *, small: int = 300, large: int = 3 << 20
) -> dict[str, LegacyPackage]:
    """Make a legacy store of ordinary and awkward packages; the same for the same seed."""
    path.mkdir(parents=True, exist_ok=True)
    made = [
        add_ordinary(path, "jq", "1.6", seed),
        add_ordinary(path, "jq", "1.7", seed),
        add_ordinary(path, "curl", "8.4.0", seed, digits=32),
        add_old_style(path, "tree", "2.1.0", seed),
        *add_duplicates(path, seed),
        add_small(path, seed, small, distinct=max(1, small // 2)),
        add_large(path, seed, large),
        *(add_awkward(path, subject, seed, able) for subject in AWKWARD),
    ]
    return {package.hash: package for package in made}


def make_three(store: Path, seed: int) -> dict[str, LegacyPackage]:
    """Make a small store without anything awkward."""
    made = [
        add_ordinary(store, "jq", "1.6", seed),
        add_ordinary(store, "jq", "1.7", seed),
        add_ordinary(store, "curl", "8.4.0", seed, digits=32),
    ]
    return {package.hash: package for package in made}


def make_plain_store(path: Path, seed: int, packages: int, files: int) -> dict[str, LegacyPackage]:
    """Make a legacy store of ``packages`` packages of small files, some of them shared."""
    path.mkdir(parents=True, exist_ok=True)
    made = {}
    for number in range(packages):
        label = package_hash(seed, f"plain-{number}")
        with Tree(path / label, Random(f"{seed}:plain:{number}")) as tree:
            many_small(tree, f"plain{number}", files)
            for index in range(files // 4):
                tree.file(LIVE + b"/shared/%d" % index, b"shared %d %d\n" % (seed, index))
        made[label] = LegacyPackage(label, path / label, f"plain{number}", "1.0", "plain")
    return made
