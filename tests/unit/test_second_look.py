"""The second look at a package: nothing that came, went or changed since the first escapes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regrain import disk
from regrain.errors import PackageError
from regrain.migrate.jobs import Record
from regrain.migrate.verify import verify_unchanged
from regrain.store.legacy import Found, find, found_directory
from tests.conftest import remove


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    top = tmp_path / "package"
    (top / "a/inner").mkdir(parents=True)
    (top / "a-b").mkdir()
    for name in ("a/inner/x", "a/inner/y", "a/z", "a-b/file", "top"):
        (top / name).write_bytes(b"content\n")
    (top / "a/way").symlink_to("z")
    yield top
    remove(top)


def first_look(top: Path) -> list[Record]:
    """Record everything, as a run does; digests are not looked at where nothing is touched."""

    def record(found: Found) -> Record:
        status = found.status
        return Record(
            found.entry, status.st_dev, status.st_ino, status.st_ctime_ns, status.st_nlink
        )

    with disk.Closing(disk.open_directory(os.fspath(top))) as root:
        return [
            record(found_directory(root, b"")),
            *(record(find(at, name, path, kind)) for at, name, path, kind in disk.walk(root)),
        ]


def second_look(top: Path, records: list[Record], began_ns: int) -> None:
    with disk.Closing(disk.open_directory(os.fspath(top))) as root:
        verify_unchanged(root, iter(records), began_ns)


def clock(place: Path) -> int:
    """The file system's clock, once it has moved on: its ticks are coarse on some kernels."""
    mark = place / "mark"
    mark.write_bytes(b"")
    before = mark.stat().st_ctime_ns
    while True:
        os.utime(mark)
        if mark.stat().st_ctime_ns > before:
            return mark.stat().st_ctime_ns


def keeping_times(path: Path, change: Callable[[Path], object]) -> None:
    """Change a directory as somebody does who sets its modification time back."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def lead(way: Path, target: str) -> None:
    """Let a symbolic link lead elsewhere."""
    way.unlink()
    way.symlink_to(target)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file more": (lambda top: (top / "a/inner/new").write_bytes(b""), "a/inner"),
    "a file more at the top": (lambda top: (top / "new").write_bytes(b""), ""),
    "a file more, times kept": (
        lambda top: keeping_times(top / "a", lambda a: (a / "new").write_bytes(b"")),
        "a/new",
    ),
    "a file more at the top, times kept": (
        lambda top: keeping_times(top, lambda top: (top / "new").write_bytes(b"")),
        "new",
    ),
    "a directory more, times kept": (
        lambda top: keeping_times(top / "a-b", lambda ab: (ab / "new").mkdir()),
        "a-b/new",
    ),
    "a file less": (lambda top: keeping_times(top / "a", lambda a: (a / "z").unlink()), "a/z"),
    "another file in its place": (
        lambda top: keeping_times(
            top / "a", lambda a: ((a / "n").write_bytes(b"content\n"), (a / "n").rename(a / "z"))
        ),
        "a/z",
    ),
    "a name changed": (
        lambda top: keeping_times(top / "a", lambda a: (a / "z").rename(a / "zz")),
        "a/z",
    ),
    "bytes changed": (lambda top: (top / "a-b/file").write_bytes(b"CONTENT\n"), "a-b/file"),
    "a mode changed": (lambda top: (top / "top").chmod(0o600), "top"),
    "another way": (
        lambda top: keeping_times(top / "a", lambda a: lead(a / "way", "y")),
        "a/way",
    ),
}


@pytest.mark.parametrize("listing", ["all", "what was touched"])
@pytest.mark.parametrize(("change", "where"), [*CHANGES.values()], ids=[*CHANGES])
def test_a_change_is_found(
    tree: Path, change: Callable[[Path], object], where: str, listing: str
) -> None:
    began_ns = clock(tree.parent) if listing == "what was touched" else 0
    records = first_look(tree)
    second_look(tree, records, began_ns)
    change(tree)
    with pytest.raises(PackageError) as caught:
        second_look(tree, records, began_ns)
    assert str(caught.value.path).startswith(where)


def test_what_changed_while_it_was_read_is_listed_again(tree: Path) -> None:
    """A first look that missed a file, which came after its directory was listed."""
    began_ns = clock(tree.parent)
    keeping_times(tree / "a", lambda a: (a / "late").write_bytes(b""))
    records = [record for record in first_look(tree) if record.entry.path != b"a/late"]
    with pytest.raises(PackageError, match="appeared") as caught:
        second_look(tree, records, began_ns)
    assert caught.value.path == "a/late"
