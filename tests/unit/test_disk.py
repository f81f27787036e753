"""Removing, copying, replacing: what ``disk`` does to single things."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrain import disk
from tests.compare import differences, snapshot
from tests.trees import Tree

BLOCK = 4096


@pytest.fixture
def at(tmp_path: Path) -> Iterator[int]:
    """A directory, open; whatever was opened in it must be closed again."""
    before = len(os.listdir("/proc/self/fd"))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes: a write error that needs no fake."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# removing


def test_a_tree_is_removed_whatever_is_in_it(tmp_path: Path, at: int) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    kept = snapshot(tmp_path / "outside")
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.file(b"a/\xff\n", b"x", 0)
        tree.symlink(b"a/out", os.fsencode(tmp_path / "outside"))
        tree.special(b"a/fifo", stat.S_IFIFO)
        tree.file(b"closed/in/file", b"x")
        tree.directory(b"closed/in", 0o000)
        tree.directory(b"closed", 0o500)
    disk.remove_tree("tree", at)
    assert os.listdir(at) == ["outside"]
    assert differences(kept, snapshot(tmp_path / "outside")) == []


def test_a_single_file_and_a_link_to_a_directory_are_removed_as_names(
    tmp_path: Path, at: int
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "kept").touch()
    (tmp_path / "link").symlink_to("directory")
    disk.remove_tree(b"file", at)
    disk.remove_tree(b"link", at)
    assert sorted(os.listdir(at)) == ["directory"]
    assert os.listdir(tmp_path / "directory") == ["kept"]
    with pytest.raises(FileNotFoundError):
        disk.remove_tree("file", at)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777])
def test_a_set_id_file_loses_its_power_before_its_name(tmp_path: Path, at: int, mode: int) -> None:
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.file(b"bin/tool", b"x", mode)
        tree.file(b"bin/plain", b"x", 0o755)
    os.link(tmp_path / "tree/bin/tool", tmp_path / "second")
    os.link(tmp_path / "tree/bin/plain", tmp_path / "third")
    disk.remove_tree("tree", at)
    assert stat.S_IMODE((tmp_path / "second").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "third").stat().st_mode) == 0o755


# copying


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one directory for all of a property's examples, which have no directory each."""
    return tmp_path_factory.mktemp("copies")


@given(
    st.lists(st.tuples(st.integers(0, 24), st.integers(1, 2 * BLOCK)), max_size=4),
    st.integers(0, 26 * BLOCK),
)
def test_a_copy_has_the_bytes_and_the_holes(
    copies: Path, pieces: list[tuple[int, int]], size: int
) -> None:
    source, target = copies / "source", copies / "target"
    random = Random(size)
    with source.open("wb") as stream:
        for block, length in pieces:
            stream.seek(block * BLOCK)
            stream.write(random.randbytes(length))
        stream.truncate(size)
    with source.open("rb") as old, target.open("wb+") as new:
        disk.copy_bytes(old.fileno(), new.fileno(), size)
    assert target.read_bytes() == source.read_bytes()
    assert data_bytes(target) <= data_bytes(source)


def data_bytes(path: Path) -> int:
    """How much of a file is no hole."""
    ((_, entry),) = [
        item for item in snapshot(path.parent).items() if item[0] == path.name.encode()
    ]
    return sum(end - begin for begin, end in entry.data)


def test_holes_survive_a_copy(tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as stream:
        stream.seek(100 * BLOCK)
        stream.write(b"x" * BLOCK)
        stream.truncate(300 * BLOCK)
    with (tmp_path / "source").open("rb") as old, (tmp_path / "target").open("wb+") as new:
        disk.copy_bytes(old.fileno(), new.fileno(), 300 * BLOCK)
    assert (tmp_path / "target").stat().st_blocks * 512 < 20 * BLOCK
    assert (tmp_path / "target").stat().st_size == 300 * BLOCK


def test_a_source_that_is_shorter_than_was_said_is_no_hang(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"short")
    with (tmp_path / "source").open("rb") as old, (tmp_path / "target").open("wb+") as new:
        disk.copy_bytes(old.fileno(), new.fileno(), 3 * BLOCK)
    assert (tmp_path / "target").read_bytes().rstrip(b"\0") == b"short"


def test_who_is_to_blame_for_a_failed_copy(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 3 * BLOCK)
    with (
        (tmp_path / "source").open("rb") as good,
        (tmp_path / "source").open("ab") as unreadable,
        (tmp_path / "target").open("wb+") as target,
    ):
        with pytest.raises(disk.SourceReadError) as reading:
            disk.copy_bytes(unreadable.fileno(), target.fileno(), 3 * BLOCK)
        assert reading.value.errno == errno.EBADF
        os.ftruncate(target.fileno(), 0)
        with limited(BLOCK), pytest.raises(OSError, match="large") as writing:
            disk.copy_bytes(good.fileno(), target.fileno(), 3 * BLOCK)
        assert not isinstance(writing.value, disk.SourceReadError)


# replacing


def logged(monkeypatch: pytest.MonkeyPatch, log: list[tuple[str, str]], *names: str) -> None:
    """Write down the calls of some functions of ``disk``, which still do their work."""

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            log.append((name, place_of(arguments)))
            return function(*arguments, **named)

        return call

    for name in names:
        monkeypatch.setattr(disk, name, wrap(name, getattr(disk, name)))


def place_of(arguments: tuple[Any, ...]) -> str:
    """The last part of the name of the first descriptor among some arguments."""
    fd = next(argument for argument in arguments if isinstance(argument, int))
    return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))


def test_a_file_is_replaced_in_the_order_that_survives_a_power_cut(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, str]] = []
    logged(monkeypatch, log, "write_all", "fsync", "rename_replace")
    disk.write_atomic("store.toml", b"new", at)
    temporary = f".store.toml.{os.getpid()}"
    folder = tmp_path.name
    assert log == [
        ("write_all", temporary),
        ("fsync", temporary),
        ("rename_replace", folder),
        ("fsync", folder),
    ]
    assert (tmp_path / "store.toml").read_bytes() == b"new"
    assert os.listdir(at) == ["store.toml"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_is_durable_whole_and_never_replaces_another(
    has_links: bool, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(disk, "link", no_link)
    log: list[tuple[str, str]] = []
    logged(monkeypatch, log, "write_all", "fsync", "link", "rename_noreplace")
    disk.write_new("store.toml", b"first", at, via=at)
    named = ["link"] if has_links else ["link", "rename_noreplace"]
    assert [step for step, _ in log] == ["write_all", "fsync", *named, "fsync"]
    assert log[-1] == ("fsync", tmp_path.name)
    with pytest.raises(FileExistsError):
        disk.write_new("store.toml", b"second", at, via=at)
    assert (tmp_path / "store.toml").read_bytes() == b"first"
    assert os.listdir(at) == ["store.toml"]


def test_a_snapshot_is_replaced_as_a_whole_without_a_flush(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.json").write_bytes(b"old")
    inode = (tmp_path / "state.json").stat().st_ino
    log: list[tuple[str, str]] = []
    logged(monkeypatch, log, "fsync")
    disk.write_snapshot("state.json", b"new", at)
    assert log == []
    assert (tmp_path / "state.json").read_bytes() == b"new"
    assert (tmp_path / "state.json").stat().st_ino != inode


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_modes_are_what_was_asked_for_under_any_umask(
    tmp_path: Path, at: int, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        disk.write_atomic("file", b"", at, mode)
        disk.make_directory("directory", at, 0o751)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "directory").stat().st_mode) == 0o751


def test_the_old_file_stays_if_the_new_one_cannot_be_written(tmp_path: Path, at: int) -> None:
    (tmp_path / "store.toml").write_bytes(b"old")
    with limited(100), pytest.raises(OSError, match="large"):
        disk.write_atomic("store.toml", b"x" * 200, at)
    assert (tmp_path / "store.toml").read_bytes() == b"old"


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path: Path, at: int) -> None:
    with limited(100), pytest.raises(OSError, match="large"):
        disk.write_atomic("store.toml", b"x" * 200, at)
    assert os.listdir(at) == []


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path: Path, at: int) -> None:
    (tmp_path / f".store.toml.{os.getpid()}").write_bytes(b"half")
    disk.write_atomic("store.toml", b"new", at)
    assert os.listdir(at) == ["store.toml"]


# names


def test_renames_that_must_not_replace_do_not(tmp_path: Path, at: int) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        disk.rename_noreplace(b"a", at, b"b", at)
    disk.rename_exchange(b"a", at, b"b", at)
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("b", "a")
    disk.rename_noreplace(b"a", at, b"c", at)
    assert sorted(os.listdir(at)) == ["b", "c"]
    with pytest.raises(FileNotFoundError):
        disk.rename_exchange(b"b", at, b"nothing", at)
    with pytest.raises(FileExistsError):
        disk.link(b"b", at, b"c", at)
    with pytest.raises(FileExistsError):
        disk.create("b", at)


def test_a_link_is_made_of_a_symbolic_link_itself(tmp_path: Path, at: int) -> None:
    (tmp_path / "link").symlink_to("target")
    disk.link(b"link", at, b"second", at)
    assert os.readlink(tmp_path / "second") == "target"
    assert (tmp_path / "second").lstat().st_nlink == 2


def test_symbolic_links_are_never_opened_through(tmp_path: Path, at: int) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_text("x")
    (tmp_path / "to-directory").symlink_to("directory")
    (tmp_path / "to-file").symlink_to("directory/file")
    for call in (
        lambda: disk.open_directory("to-directory", at),
        lambda: disk.open_file("to-file", at),
        lambda: disk.descend(b"to-directory", at),
        lambda: disk.create("to-file", at),
        lambda: disk.read_all("to-file", at),
    ):
        with pytest.raises(OSError, match=r"symbolic|directory|exists"):
            call()
    os.close(disk.descend(b"directory", at))
    os.close(disk.descend(b"", at))


def test_a_fifo_is_opened_without_waiting_and_is_no_content(tmp_path: Path, at: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.close(disk.open_file("fifo", at))
    with pytest.raises(OSError, match="regular"):
        disk.read_all("fifo", at)


def test_small_files_are_read_whole_and_large_ones_refused(tmp_path: Path, at: int) -> None:
    content = Random(1).randbytes(disk.PIECE + 17)
    (tmp_path / "file").write_bytes(content)
    assert disk.read_all("file", at) == content
    with pytest.raises(OSError, match="large") as caught:
        disk.read_all("file", at, bytes_max=1000)
    assert caught.value.errno == errno.EFBIG


def test_a_lock_is_for_one(tmp_path: Path, at: int) -> None:
    (tmp_path / "lock").touch()
    first, second = (os.open(tmp_path / "lock", os.O_RDWR) for _ in range(2))
    try:
        assert disk.lock(first, exclusive=False, wait=False)
        assert disk.lock(second, exclusive=False, wait=False)
        assert not disk.lock(second, exclusive=True, wait=False)
        os.close(first)
        first = -1
        assert disk.lock(second, exclusive=True, wait=False)
    finally:
        os.close(second)
        if first >= 0:
            os.close(first)


def test_reflinks_are_tried_not_guessed(tmp_path: Path, at: int) -> None:
    from tests.mounts import can_reflink

    assert disk.shares_extents(at) == can_reflink(tmp_path)
    assert os.listdir(at) == []
