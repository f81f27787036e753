"""Copies for a rehearsal: exact, independent, and whatever happens to them shows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from regrain import disk
from regrain.errors import PackageError
from regrain.migrate.sample import Candidate
from regrain.migrate.specimen import Source, copy, difference, taken
from regrain.store.legacy import LegacyPackage
from tests.compare import differences, snapshot
from tests.trees import LIVE, Tree

NAME = "ab" * 32
CANDIDATE = Candidate(NAME, "tool", "1", 3, 5, 100, 4096, 1000)
LIVE_PATH = os.fsdecode(LIVE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Tree(tmp_path / "store" / NAME, Random(1)) as tree:
        tree.file(LIVE + b"/bin/tool", b"a tool\n", 0o755, mtime_ns=1_000_000_007)
        tree.file(LIVE + b"/share/twice", b"two names\n")
        tree.link(LIVE + b"/share/again", LIVE + b"/share/twice")
        tree.symlink(LIVE + b"/share/link", b"twice")
    (tmp_path / "copy").mkdir()
    return tmp_path


@pytest.fixture
def source(place: Path) -> Source:
    return Source(disk.open_directory(str(place / "store")), None)


def test_a_copy_is_exact_and_shares_nothing(place: Path, source: Source) -> None:
    copy(source, CANDIDATE, str(place / "copy"))
    original, made = snapshot(place / "store" / NAME), snapshot(place / "copy" / NAME)
    assert differences(original, made, holes=True) == []
    assert not {e.identity for e in original.values()} & {e.identity for e in made.values()}


def rewrite(tree: Path) -> None:
    """Other bytes, the same size, the same time."""
    path = tree / LIVE_PATH / "bin/tool"
    status = path.stat()
    path.write_bytes(b"A tool\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def date(tree: Path) -> None:
    os.utime(tree / LIVE_PATH / "bin/tool", ns=(0, 1_000_000_008))


def part(tree: Path) -> None:
    """The link group becomes two files of the same bytes, mode and time."""
    path = tree / LIVE_PATH / "share/twice"
    status = path.stat()
    above = path.parent.stat()
    path.unlink()
    path.write_bytes(b"two names\n")
    path.chmod(status.st_mode & 0o7777)
    os.utime(path, ns=(0, status.st_mtime_ns))
    os.utime(path.parent, ns=(0, above.st_mtime_ns))


def aim(tree: Path) -> None:
    path = tree / LIVE_PATH / "share/link"
    path.unlink()
    path.symlink_to("again")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "bytes": (rewrite, "tool': its content changed"),
    "time": (date, "tool': its modification time changed"),
    "mode": (lambda tree: (tree / LIVE_PATH / "bin/tool").chmod(0o700), "tool': its mode changed"),
    "group": (part, "hard links changed"),
    "link": (aim, "changed"),
    "gone": (lambda tree: (tree / LIVE_PATH / "bin/tool").unlink(), "changed"),
    "new": (lambda tree: (tree / "new").touch(), "changed"),
    "attribute": (lambda tree: os.setxattr(tree, "user.new", b"1"), "attributes changed"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_change_shows(place: Path, source: Source, what: str) -> None:
    specimen = copy(source, CANDIDATE, str(place / "copy"))
    made = LegacyPackage(disk.open_directory(str(place / "copy")), NAME)
    assert difference(specimen, made, source) == ""
    change, words = CHANGES[what]
    change(place / "copy" / NAME)
    assert words in difference(specimen, made, source)
    # and without the original, which may have been removed meanwhile
    os.rename(place / "store" / NAME, place / "store" / "gone")
    assert difference(specimen, made, source) == "it is not what was copied"


def test_a_package_that_goes_or_cannot_be_kept(place: Path, source: Source) -> None:
    with pytest.raises(FileNotFoundError):
        copy(source, CANDIDATE._replace(package_hash="cd" * 32), str(place / "copy"))
    os.mkfifo(place / "store" / NAME / "queue")
    with pytest.raises(PackageError, match="special file"):
        copy(source, CANDIDATE, str(place / "copy"))
    assert list((place / "copy").iterdir()) == []


def test_inodes_count_once(place: Path) -> None:
    with disk.Closing(disk.open_directory(str(place / "store"))) as top:
        size, inodes = taken(top)
    paths = [place / "store", *(place / "store").rglob("*")]
    found = {path.lstat().st_ino: path.lstat().st_blocks * 512 for path in paths}
    assert (size, inodes) == (sum(found.values()), len(found))
    assert len(found) == len(paths) - 1
