"""Archives by several archivers become the tree they were made of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import zstandard
from blake3 import blake3

from regrain.store.unpack import Unpacked, unpack
from tests import awkward
from tests.archives import (
    ARCHIVERS,
    END,
    GNU,
    MANIFEST,
    Archiver,
    archive,
    compressed,
    file,
    folder,
    gnu_long,
    hard_link,
    header,
    octal,
    padded,
    pax,
    skippable,
    sparse_tail,
    symlink,
)
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.faults.small import quick_place
from tests.trees import ACL_ACCESS, ACL_DEFAULT, Abilities, LegacyPackage, Tree, acl, describe

DEEP = {"deep", "very-deep"}
RAW = {"names", "deep", "very-deep", "symlinks", "link-groups", "order", "look-alikes"}
SUBJECTS = (*awkward.AWKWARD, "ordinary", "old style")


@pytest.fixture(scope="module")
def packages(
    tmp_path_factory: pytest.TempPathFactory, seed: int, able: Abilities
) -> Iterator[dict[str, LegacyPackage]]:
    """The awkward packages by subject; ``names`` and others made once for all archivers."""
    store = tmp_path_factory.mktemp("packages")
    made = {subject: awkward.add_awkward(store, subject, seed, able) for subject in awkward.AWKWARD}
    made["ordinary"] = awkward.add_ordinary(store, "jq", "1.7", seed)
    made["old style"] = awkward.add_old_style(store, "tree", "2.1.0", seed)
    yield made
    remove(store)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "target"
    place.mkdir()
    yield place
    remove(place)


def unpack_file(path: Path, target: Path, *, keep_owner: bool | None = None) -> Unpacked:
    source = os.open(path, os.O_RDONLY)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    keep = os.geteuid() == 0 if keep_owner is None else keep_owner
    try:
        return unpack(source, fd, keep_owner=keep)
    finally:
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(source)
        os.close(fd)


def unpack_bytes(data: bytes, target: Path) -> Snapshot:
    path = target.parent / "archive"
    path.write_bytes(data)
    unpack_file(path, target)
    return snapshot(target)


@pytest.mark.root
@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("archiver", ARCHIVERS, ids=lambda archiver: archiver.name)
def test_what_archivers_make_comes_out_as_it_went_in(
    packages: dict[str, LegacyPackage],
    target: Path,
    tmp_path: Path,
    archiver: Archiver,
    subject: str,
) -> None:
    if subject in DEEP and not archiver.deep:
        pytest.skip(f"{archiver.name} takes no paths that long")
    if subject in RAW and not archiver.raw:
        pytest.skip(f"{archiver.name} takes no such names")
    if subject == "times" and not archiver.early:
        pytest.skip(f"{archiver.name} cannot write times before 1970")
    if subject == "owners" and archiver.name == "python-ustar":
        pytest.skip(f"{archiver.name} takes no such numbers")
    package = packages[subject]
    plain = tmp_path / "package.sp"
    archiver.pack(package.path, plain)
    wanted = archiver.kept(snapshot(package.path))

    done = unpack_file(plain, target)
    found = snapshot(target)
    assert differences(wanted, found, holes=archiver.holes) == []
    assert done.package_hash == blake3(plain.read_bytes()).hexdigest()
    assert done.entries == len(wanted)
    files = [entry for entry in wanted.values() if entry.kind == "file"]
    assert (done.files, done.size) == (len(files), sum(entry.size for entry in files))


@pytest.mark.root
@pytest.mark.parametrize("subject", ["ordinary", "xattrs", "sparse", "link-groups", "acls"])
@pytest.mark.parametrize("level", [1, 3, 19])
def test_compressed_ones_do_too(
    packages: dict[str, LegacyPackage], target: Path, tmp_path: Path, subject: str, level: int
) -> None:
    ARCHIVERS[0].pack(packages[subject].path, tmp_path / "plain")
    packed = tmp_path / "package.sp"
    packed.write_bytes(compressed((tmp_path / "plain").read_bytes(), level))
    done = unpack_file(packed, target)
    assert differences(snapshot(packages[subject].path), snapshot(target)) == []
    assert done.package_hash == blake3(packed.read_bytes()).hexdigest()


def test_access_lists_of_bsdtar_and_gnu_tar(
    target: Path, tmp_path: Path, able: Abilities, seed: int
) -> None:
    """One user the system knows by name, which both archivers then write."""
    if not able.acls:
        pytest.skip("no access lists here")
    with Tree(tmp_path / "tree", Random(seed)) as tree:
        describe(tree, "acl", "1.0")
        tree.file(b"f", b"f\n", 0o640, xattrs={ACL_ACCESS: acl(2, 4)})
        tree.directory(b"d", 0o750, xattrs={ACL_ACCESS: acl(2), ACL_DEFAULT: acl(3, 7)})
    for archiver in ARCHIVERS:
        if archiver.xattrs:
            archiver.pack(tmp_path / "tree", tmp_path / "archive")
            place = target / archiver.name
            place.mkdir()
            unpack_file(tmp_path / "archive", place)
            assert differences(snapshot(tmp_path / "tree"), snapshot(place)) == [], archiver


def test_frames_one_behind_the_other_and_skippable_ones(target: Path) -> None:
    data = archive(file(b"f", b"in two frames\n" * 1000))
    whole = skippable(b"index") + compressed(data[:1500]) + skippable(b"")
    found = unpack_bytes(whole + compressed(data[1500:], checksum=False) + compressed(b""), target)
    assert sorted(found) == [b"", b"f", b"manifest.toml"]
    assert (target / "f").read_bytes() == b"in two frames\n" * 1000


def test_a_stream_that_does_not_know_its_size(target: Path) -> None:
    data = archive(file(b"f", os.urandom(700_000)))
    stream = zstandard.ZstdCompressor(level=1).compressobj()
    whole = b"".join(stream.compress(data[at : at + 1000]) for at in range(0, len(data), 1000))
    unpack_bytes(whole + stream.flush(), target)
    assert (target / "f").stat().st_size == 700_000


def test_a_pipe_will_do(target: Path) -> None:
    data = archive(file(b"f"))
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    fd = os.open(target, os.O_RDONLY)
    try:
        done = unpack(reading, fd, keep_owner=False)
    finally:
        os.close(reading)
        os.close(fd)
    assert done.package_hash == blake3(data).hexdigest()


def test_what_an_archive_leaves_open_is_always_the_same(target: Path) -> None:
    found = unpack_bytes(archive(file(b"a/b/f")), target)
    for path in (b"", b"a", b"a/b"):
        assert (found[path].mode, found[path].mtime_ns) == (0o755, 0)
        assert (found[path].uid, found[path].gid) == (os.geteuid(), os.getegid())


def test_a_root_and_directories_may_come_after_what_is_in_them(target: Path) -> None:
    data = archive(
        file(b"./a/b/f"),
        folder(b"./a/b/", mode=octal(0o2500, 8), mtime=octal(5, 12)),
        folder(b"./", mode=octal(0o1711, 8), mtime=octal(7, 12)),
        file(b"a/b/g"),
    )
    found = unpack_bytes(data, target)
    assert [(found[path].mode, found[path].mtime_ns) for path in (b"", b"a", b"a/b")] == [
        (0o1711, 7 * 10**9),
        (0o755, 0),
        (0o2500, 5 * 10**9),
    ]


def test_a_target_hands_nothing_down(target: Path, able: Abilities) -> None:
    os.chmod(target, 0o3777)
    if able.owners:
        os.chown(target, 12, 34)
    if able.acls:
        os.setxattr(target, ACL_DEFAULT, acl())
    umask = os.umask(0o277)
    try:
        found = unpack_bytes(archive(folder(b"./"), file(b"a/f"), folder(b"d")), target)
    finally:
        os.umask(umask)
    assert {entry.mode for entry in found.values()} == {0o755, 0o644}
    assert {entry.gid for path, entry in found.items() if path != b"a"} == {os.getegid()}
    assert {entry.xattrs for entry in found.values()} == {()}


def test_numbers_as_others_write_them(target: Path) -> None:
    data = archive(
        file(b"bsd", mode=b"000644 \0", uid=b"000000 \0", mtime=b"00000000005 "),
        file(b"blank", mode=b"   644 \0", raw_size=b"         5 \0 "),
        file(b"full", raw_size=b"000000000005"),
        file(b"type bits", mode=b"0100600\0"),
        file(b"base 256", raw_size=b"\x80" + bytes(10) + b"\5", mtime=b"\xff" * 12),
    )
    found = unpack_bytes(data, target)
    assert {found[name].size for name in found if name not in (b"", b"manifest.toml")} == {5}
    assert found[b"type bits"].mode == 0o600
    assert found[b"bsd"].mtime_ns == 5 * 10**9
    assert found[b"base 256"].mtime_ns == -(10**9)


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        (b"0", 0),
        (b"-0.5", -500_000_000),
        (b"1.000000001", 1_000_000_001),
        (b"1.0000000019", 1_000_000_001),
        (b"-1.0000000001", -1_000_000_001),
        (b"-1.0000000000", -1_000_000_000),
        (b"1.1", 1_100_000_000),
    ],
)
def test_times(target: Path, text: bytes, time_ns: int) -> None:
    found = unpack_bytes(archive(pax((b"mtime", text)), file(b"f")), target)
    assert found[b"f"].mtime_ns == time_ns


def test_a_sparse_file_of_many_pieces(target: Path, tmp_path: Path) -> None:
    """More than fit into the header, in both forms; checked against what tar makes of it."""
    step = 1 << 16
    with Tree(tmp_path / "tree", Random(1)) as tree:
        describe(tree, "sparse", "1.0")
        pieces = [(n * 2 * step, bytes([n + 1]) * 4096) for n in range(100)]
        tree.sparse(b"f", pieces, 300 * step)
    for archiver in ARCHIVERS:
        if archiver.holes or archiver.name.startswith("bsdtar-pax"):
            archiver.pack(tmp_path / "tree", tmp_path / "archive")
            place = target / archiver.name
            place.mkdir()
            unpack_file(tmp_path / "archive", place)
            wanted = archiver.kept(snapshot(tmp_path / "tree"))
            assert differences(wanted, snapshot(place), holes=True) == [], archiver


def test_a_sparse_file_that_is_only_a_hole(target: Path) -> None:
    tail = sparse_tail([(1 << 20, 0)], 1 << 20)
    found = unpack_bytes(archive(header(b"f", b"S", magic=GNU, tail=tail)), target)
    assert (found[b"f"].size, found[b"f"].data) == (1 << 20, ())


def test_what_may_be_ignored_is(target: Path) -> None:
    data = archive(
        pax((b"comment", b"from git"), kind=b"g"),
        pax(
            (b"atime", b"1"),
            (b"uname", b"joe"),
            (b"comment", b""),
            (b"RHT.security.selinux", b"system_u:object_r:usr_t:s0"),
            (b"SCHILY.fflags", b"nodump"),
        ),
        file(b"f"),
    )
    assert sorted(unpack_bytes(data, target)) == [b"", b"f", b"manifest.toml"]


def test_links_of_links_and_links_by_long_names(target: Path) -> None:
    long = b"d/" + b"x" * 200
    data = archive(
        gnu_long(long),
        header(long[:100], b"2", target=b"/nowhere/at/all", magic=GNU),
        gnu_long(b"./" + long, b"K"),
        header(b"second", b"1", target=b"./" + long[:98], magic=GNU),
        symlink(b"empty-looking", b"."),
        file(b"f"),
        hard_link(b"g", b"./f"),
    )
    found = unpack_bytes(data, target)
    assert found[b"second"].group == found[long].group == long
    assert found[b"g"].group == b"f"
    assert found[b"second"].target == b"/nowhere/at/all"


def test_more_levels_than_files_may_be_open(seed: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    name = b"/".join([b"d"] * 3000)
    data = archive(pax((b"path", name + b"/f")), file(b"f"), pax((b"path", name)), folder(b"x"))
    with quick_place(Path("/tmp")) as place:
        (place / "target").mkdir()
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            (place / "archive").write_bytes(data)
            done = unpack_file(place / "archive", place / "target")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert done.entries == 3003
        remove(place / "target")


def test_upstream_shapes(target: Path) -> None:
    manifest = MANIFEST + b'\n[dependencies]\nlibc = "2.38"\n'
    head = file(b"manifest.toml", manifest)
    new = head + file(b"opt/pm/live/bin/jq", b"jq", mode=octal(0o755, 8)) + END
    old = head + file(b"jq-1.7/bin/jq", b"jq", mode=octal(0o755, 8)) + END
    for number, data in enumerate((new, old, padded(new) + bytes(512 * 18))):
        place = target / str(number)
        place.mkdir()
        (target / "archive").write_bytes(data)
        unpack_file(target / "archive", place)
        assert (place / "manifest.toml").read_bytes() == manifest
    assert (target / "0/opt/pm/live/bin/jq").stat().st_mode & 0o777 == 0o755
    assert (target / "1/jq-1.7/bin/jq").read_bytes() == b"jq"
