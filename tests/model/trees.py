"""Very small trees with awkward metadata, each made once and copied wherever it is wanted."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.archives import ARCHIVERS
from tests.compare import Snapshot, snapshot
from tests.trees import (
    ACL_ACCESS,
    ACL_DEFAULT,
    CAPABILITY,
    LIVE,
    SECOND,
    Abilities,
    Tree,
    acl,
    capability,
    describe,
    probe,
)

_COMMON = [Random(f"common {n}").randbytes(n * 700 + 1) for n in range(6)]
(_PACK,) = [archiver for archiver in ARCHIVERS if archiver.name == "gnu-tar-posix-sparse"]

_Subject = Callable[[Tree, Abilities], None]


def _shared(tree: Tree, _: Abilities) -> None:
    """Bytes that most trees have, in modes that do not agree."""
    for number in tree.rng.sample(range(6), 4):
        mode = tree.rng.choice((0o644, 0o755, 0o664, 0o444, 0o4755, 0o600))
        tree.file(LIVE + b"/share/%d" % number, _COMMON[number], mode)


def _groups(tree: Tree, _: Abilities) -> None:
    mode = tree.rng.choice((0o644, 0o664))
    tree.file(LIVE + b"/g/\xffirst", _COMMON[2], mode)
    tree.link(LIVE + b"/g/a", LIVE + b"/g/\xffirst")
    tree.link(LIVE + b"/zz", LIVE + b"/g/\xffirst")


def _sparse(tree: Tree, _: Abilities) -> None:
    block = 1 << 16
    tree.sparse(LIVE + b"/sparse", [(2 * block, b"behind a hole")], 3 * block, 0o644)
    tree.sparse(LIVE + b"/hole", [], block, 0o664)


def _marked(tree: Tree, able: Abilities) -> None:
    if able.user_xattrs:
        tree.file(LIVE + b"/x/same", _COMMON[1], xattrs={"user.a": b"\0\xff"})
        tree.directory(b"", 0o750, xattrs={"user.root": b"of the package"})
    if able.trusted_xattrs:
        tree.symlink(LIVE + b"/x/link", b"same", xattrs={"trusted.t": b""})
    if able.capabilities:
        tree.file(LIVE + b"/x/ping", _COMMON[3], 0o755, xattrs={CAPABILITY: capability()})
    if able.acls:
        tree.file(LIVE + b"/x/acl", _COMMON[1], 0o640, xattrs={ACL_ACCESS: acl()})
        both = {ACL_ACCESS: acl(), ACL_DEFAULT: acl(54321, 7)}
        tree.directory(LIVE + b"/x/default", 0o750, xattrs=both)
        tree.file(LIVE + b"/x/default/below", b"below\n")


def _owned(tree: Tree, able: Abilities) -> None:
    if able.owners:
        tree.file(LIVE + b"/own/1000", _COMMON[4], owner=(1000, 50))
        tree.file(LIVE + b"/own/set", _COMMON[4], 0o4755, owner=(65534, 65534))
        tree.directory(LIVE + b"/own", owner=(7, 8))
    tree.file(LIVE + b"/own/mine", _COMMON[4])


def _timed(tree: Tree, _: Abilities) -> None:
    tree.file(LIVE + b"/time/1960", _COMMON[5], mtime_ns=-315_619_200 * SECOND + 123_456_789)
    tree.file(LIVE + b"/time/before-0", _COMMON[5], mtime_ns=-1)
    tree.symlink(LIVE + b"/time/link", b"1960", mtime_ns=2_147_483_648 * SECOND + 7)
    tree.directory(b"", 0o755, mtime_ns=-1)


def _named(tree: Tree, _: Abilities) -> None:
    for name in (b"new\nline", b"\xff\xfe", b"back\\", b" ", b"a" * 255, b'"'):
        tree.file(LIVE + b"/names/" + name, name)
        tree.symlink(LIVE + b"/links/" + name, name)


def _empty(tree: Tree, _: Abilities) -> None:
    tree.file(LIVE + b"/empty/file", b"", 0o4711)
    tree.link(LIVE + b"/empty/too", LIVE + b"/empty/file")
    tree.directory(LIVE + b"/empty/in/in", 0o700)
    tree.directory(LIVE + b"/empty/closed", 0o000)


_SUBJECTS: tuple[_Subject, ...] = (_groups, _sparse, _marked, _owned, _timed, _named, _empty)
COUNT = 12
"""How many trees there are; the last is one that cannot be migrated."""
SPECIAL = COUNT - 1


@dataclass(frozen=True, slots=True)
class Source:
    """A tree, and the archive of it.

    Attributes:
        number: Of the tree.
        place: Where it lies.
        tree: What it is.
        archive: Likewise packed; of one that holds a special file there is none.
        packed: What the archive holds: all of the tree but what an archiver cannot keep.
    """

    number: int
    place: Path
    tree: Snapshot
    archive: Path
    packed: Snapshot


class Sources:
    """The trees, made when first wanted.

    Args:
        place: A directory for them.
    """

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self._place = place
        self._able = probe(place)
        self._made: dict[int, Source] = {}

    def __getitem__(self, number: int) -> Source:
        """Return one."""
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> Source:
        random = Random(f"model {number}")
        place = self._place / str(number)
        with Tree(place, random) as tree:
            describe(tree, f"model{number}", "1.0", sbom=("sbom.cdx.json",)[: number % 2])
            _shared(tree, self._able)
            for subject in random.sample(_SUBJECTS, 2):
                subject(tree, self._able)
            if number == SPECIAL:
                tree.special(LIVE + b"/fifo", stat.S_IFIFO)
        archive, found = self._place / f"{number}.sp", snapshot(place)
        if number != SPECIAL:
            _PACK.pack(place, archive)
        return Source(number, place, found, archive, _PACK.kept(found))

    def put(self, number: int, place: Path) -> None:
        """Copy a tree, with all that it is."""
        source = self[number]
        subprocess.run(["cp", "-a", "--", source.place, place], check=True)


def is_special(tree: Snapshot) -> bool:
    """Whether a tree holds what no package may hold."""
    return any(entry.kind == "fifo" for entry in tree.values())


CHANGES = ("new file", "replaced file", "gone file", "mode", "mend")
"""What others may do to a legacy directory; the last takes the special files away."""


def change(place: Path, what: str, salt: int) -> None:
    """Change a tree as a package manager would that knows nothing of regrain.

    Never in place: what an inode holds that is an object as well, nobody may touch.
    """
    folder = place / os.fsdecode(LIVE)
    match what:
        case "new file":
            (folder / f"new{salt}").write_bytes(b"%d\n" % salt)
        case "replaced file":
            fresh = folder / "fresh"
            fresh.write_bytes(b"other bytes %d\n" % salt)
            fresh.rename(folder / "share" / _first(folder / "share"))
        case "gone file":
            (folder / "share" / _first(folder / "share")).unlink()
            (folder / "share" / "kept").touch()
        case "mode":
            (folder / "share").chmod(0o700 + salt % 0o77)
        case _:
            (folder / "fifo").unlink(missing_ok=True)


def _first(folder: Path) -> str:
    return min(os.listdir(folder))
