"""Walking a tree: order, cutting it up, what is followed and what is not."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrain import disk
from tests.conftest import remove
from tests.faults.small import quick_place
from tests.trees import Tree
from tests.unit.strategies import names, paths


@contextmanager
def opened(path: Path | bytes) -> Iterator[int]:
    """The directory, open; nothing else may be left open at the end."""
    before = len(os.listdir("/proc/self/fd"))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
        assert len(os.listdir("/proc/self/fd")) == before


def walked(root: int, start: bytes = b"", stop: bytes | None = None) -> list[bytes]:
    return [path for _, _, path, _ in disk.walk(root, start, stop)]


def listed(top: bytes) -> list[bytes]:
    """The same by ``os.walk``, sorted."""
    found = []
    for folder, directories, files in os.walk(top):
        below = folder[len(top) :].lstrip(b"/")
        found += [below + b"/" + name if below else name for name in [*directories, *files]]
    return sorted(found)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with quick_place(tmp_path_factory.mktemp("walk")) as place:
        yield place


@contextmanager
def built(place: Path, made: list[list[bytes]]) -> Iterator[bytes]:
    """A tree of directories that hold a file each; a name may stand in the way of another."""
    top = os.fsencode(place / "tree")
    os.mkdir(top)
    try:
        for path in made:
            here = top
            for name in path:
                here += b"/" + name
                try:
                    os.mkdir(here)
                except (FileExistsError, NotADirectoryError):
                    continue
            try:
                with open(here + b"/f", "xb"):
                    pass
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue
        yield top
    finally:
        remove(place / "tree")


made_trees = st.lists(st.lists(names, min_size=1, max_size=3), max_size=8)


@settings(max_examples=80)
@given(made=made_trees)
def test_all_is_met_once_in_the_order_of_raw_path_bytes(
    quick: Path, made: list[list[bytes]]
) -> None:
    with built(quick, made) as top, opened(top) as root:
        found = walked(root)
        assert found == listed(top)
        assert len(set(found)) == len(found)


@settings(max_examples=80)
@given(made=made_trees, cuts=st.lists(st.one_of(paths, st.binary(max_size=4)), max_size=5))
def test_path_intervals_cut_a_tree_into_exact_parts(
    quick: Path, made: list[list[bytes]], cuts: list[bytes]
) -> None:
    with built(quick, made) as top, opened(top) as root:
        whole = walked(root)
        own = sorted({cut for cut in cuts if cut} | set(whole[:: 1 + len(cuts)]))
        parts = [
            walked(root, start, stop) for start, stop in zip([b"", *own], [*own, None], strict=True)
        ]
        assert [path for part in parts for path in part] == whole
        for part, start, stop in zip(parts, [b"", *own], [*own, None], strict=True):
            assert all(path >= start and (stop is None or path < stop) for path in part)


def test_a_step_tells_parent_name_and_kind(tmp_path: Path) -> None:
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.file(b"a/b/file", b"x")
        tree.symlink(b"a/link", b"b")
        tree.directory(b"a/empty")
        tree.special(b"a/fifo", 0o010000)
    with opened(tmp_path / "tree") as root:
        found = []
        for at, name, path, kind in disk.walk(root):
            parent = os.readlink(f"/proc/self/fd/{at}")
            found.append((parent[len(str(tmp_path / "tree")) + 1 :], name, path, kind))
    assert found == [
        ("", b"a", b"a", disk.DIRECTORY),
        ("a", b"b", b"a/b", disk.DIRECTORY),
        ("a/b", b"file", b"a/b/file", disk.FILE),
        ("a", b"empty", b"a/empty", disk.DIRECTORY),
        ("a", b"fifo", b"a/fifo", disk.SPECIAL),
        ("a", b"link", b"a/link", disk.SYMLINK),
    ]


def test_content_comes_where_its_path_sorts(tmp_path: Path) -> None:
    with Tree(tmp_path / "tree", Random(1)) as tree:
        for path in (b"a/x", b"a-b", b"a.b", b"a0", b"a/x.y", b"ab/c"):
            tree.file(path)
    with opened(tmp_path / "tree") as root:
        assert walked(root) == [b"a", b"a-b", b"a.b", b"a/x", b"a/x.y", b"a0", b"ab", b"ab/c"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.symlink(b"out", os.fsencode(tmp_path / "outside"))
        tree.symlink(b"up", b"..")
        tree.symlink(b"self", b".")
    with opened(tmp_path / "tree") as root:
        assert walked(root) == [b"out", b"self", b"up"]


def test_a_directory_that_becomes_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.directory(b"a/d")
    entered = tmp_path / "tree/a/d"
    with opened(tmp_path / "tree") as root:
        walk = disk.walk(root)
        assert [next(walk)[2], next(walk)[2]] == [b"a", b"a/d"]
        entered.rmdir()
        entered.symlink_to(tmp_path / "outside")
        with pytest.raises(OSError, match=r"directory|symbolic") as caught:
            next(walk)
        assert caught.value.filename == b"a/d"  # below the root, however it was opened


def test_a_walk_that_is_given_up_closes_what_it_opened(tmp_path: Path) -> None:
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.file(b"a/b/c/d/e", b"")
    with opened(tmp_path / "tree") as root:
        walk = disk.walk(root)
        assert [next(walk)[2] for _ in range(4)] == [b"a", b"a/b", b"a/b/c", b"a/b/c/d"]
        walk.close()


def test_trees_longer_than_a_path_may_be(tmp_path: Path) -> None:
    names_ = [b"%03d" % n + b"n" * 240 for n in range(60)]
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.chain(b"", names_, b"at the bottom\n")
    with opened(tmp_path / "tree") as root:
        found = walked(root)
        assert len(found) == 61
        assert found[-1] == b"/".join([*names_, b"bottom"])
        assert walked(root, found[40]) == found[40:]
        disk.remove_tree(names_[0], root)
        assert walked(root) == []


def test_a_tree_of_many_levels(tmp_path: Path) -> None:
    """More levels than a recursive walk could take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    levels = min(3000, hard - 100)
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.chain(b"", [b"d"] * levels, b"at the bottom\n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with opened(tmp_path / "tree") as root:
            assert len(walked(root)) == levels + 1
            disk.remove_tree(b"d", root)
            assert os.listdir(root) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_unreadable_directory_is_named(tmp_path: Path) -> None:
    """EMFILE stands for every reason a directory cannot be opened, for root, too."""
    with Tree(tmp_path / "tree", Random(1)) as tree:
        tree.chain(b"", [b"d"] * 60, b"")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with opened(tmp_path / "tree") as root:
        free = os.dup(root)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, hard))
        try:
            with pytest.raises(OSError, match="Too many open files") as caught:
                walked(root)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert set(caught.value.filename.split(b"/")) == {b"d"}
