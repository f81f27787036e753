"""A name turns into a link that leads out right before it is opened, each in its turn.

What the races of ``test_races`` meet by luck happens here to every single open of a directory or a
file of the tree: it is a link for as long as the call takes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regrain import PackageStore, disk, disk_bytes
from regrain.app import undoing as removing
from regrain.errors import RegrainError
from tests.attacks.swapping import SECRET, Watch, make_outside, make_package
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults import undoing
from tests.faults.inline import Way, initialise, migrate
from tests.faults.small import quick_place

SOME = 4
"""Of so many places the everyday suite tries what the seed chooses."""

DIRECTORIES = 2
_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Swaps:
    """Turns the name of one open, counted from 0, into a link for that time.

    Attributes:
        met: Opens that could have been met so far.
        done: What was swapped: the name, if anything.
    """

    def __init__(self, outside: Path, number: int, *, denied: bool = False) -> None:
        """Say where the link leads; ``denied``: directories can only be opened to be named."""
        self._outside = outside
        self._number = number
        self._denied = denied
        self._open = os.open
        self.met = 0
        self.done = b""

    def __call__(
        self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        """Open, as ``os.open`` does."""
        kind = self._kind(path, dir_fd)
        if not kind or flags & os.O_CREAT:
            return self._open(path, flags, mode, dir_fd=dir_fd)
        if self._denied and not flags & os.O_PATH and not kind & stat.S_IRUSR:
            raise PermissionError(errno.EACCES, "as if this were not root", path)
        self.met += 1
        if self.met - 1 != self._number:
            return self._open(path, flags, mode, dir_fd=dir_fd)
        self.done = os.fsencode(path)
        with self._swapped(path, kind, dir_fd):
            return self._open(path, flags, mode, dir_fd=dir_fd)

    def _kind(self, path: Any, dir_fd: int | None) -> int:
        """What a name in a directory is that may be met; 0 for others."""
        name = os.fsencode(path) if isinstance(path, str | bytes) else b"/"
        if dir_fd is None or not (name == b"d" or name.isdigit()):
            return 0
        with suppress(FileNotFoundError):
            found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode
            return found if stat.S_ISDIR(found) or stat.S_ISREG(found) else 0
        return 0

    @contextmanager
    def _swapped(self, path: Any, kind: int, dir_fd: int | None) -> Iterator[None]:
        target = self._outside / "0" if stat.S_ISREG(kind) else self._outside
        aside = os.fspath(self._outside.with_name("link"))
        os.symlink(target, aside)
        at, name = dir_fd, os.fsencode(path)
        try:
            _exchange(at, name, aside)
            try:
                yield
            finally:
                _exchange(at, name, aside)
        finally:
            os.unlink(aside)


def _exchange(at: int | None, name: bytes, aside: str) -> None:
    if _libc.renameat2(at, name, -100, os.fsencode(aside), _EXCHANGE) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)


# what is done while it happens


def ingest(place: Path) -> None:
    done = migrate(place, Way(ingest="copy"))
    if done.failed:
        raise RegrainError("a package failed")


def link(place: Path) -> None:
    done = migrate(place, Way(slice_entries=4))
    if done.failed:
        raise RegrainError("a package failed")


def add(place: Path) -> None:
    PackageStore.open(place).add_package(place.parent / "source")


def checkout(place: Path) -> None:
    store = PackageStore.open(place)
    store.get_package(NAME).checkout(place.parent / "out")


def removal(place: Path) -> None:
    store = PackageStore.open(place)
    store.remove_package(NAME)
    store.collect()


def cleanup(place: Path) -> None:
    removing.cleanup(undoing.root_of(place))


def rollback(place: Path) -> None:
    undoing.rollback(place)


def purge(place: Path) -> None:
    undoing.purge(place)


def emptying(place: Path) -> None:
    """What every removal ends with."""
    try:
        with disk.Closing(disk.open_directory(os.fspath(place))) as at:
            disk.remove_tree(NAME, at)
    except OSError as error:
        raise RegrainError("not removed") from error


NAME = "ab" * 32
BEFORE: dict[Callable[[Path], None], tuple[Callable[[Path], Any], ...]] = {
    ingest: (),
    link: (),
    add: (),
    checkout: (),
    removal: (),
    emptying: (),
    cleanup: (migrate, undoing.cutover),
    rollback: (migrate,),
    purge: (migrate, undoing.rollback),
}


class Scene:
    """A store with one package, a source to add, and what lies outside."""

    def __init__(self, place: Path, deed: Callable[[Path], None]) -> None:
        self.deed = deed
        self.store = place / "store"
        make_package(self.store / NAME, "swapped", DIRECTORIES)
        make_package(place / "source", "added", DIRECTORIES)
        self.outside = make_outside(place)
        self.own = [self.store / name for name in ("objects", "packages", "temp", "quarantine")]
        self.own.append(place / "out")
        initialise(self.store)
        for step in BEFORE[deed]:
            step(self.store)

    def swap(self, number: int, *, denied: bool = False) -> Swaps:
        """Do it while the open of that number meets a link; nothing outside is touched."""
        if denied:
            for directory in (self.store / NAME).rglob("d"):
                directory.chmod(0o300)
        before = snapshot(self.outside)
        watch = Watch(self.outside, self.outside / "deep")
        swaps = Swaps(self.outside, number, denied=denied)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", swaps)
            with suppress(RegrainError):
                self.deed(self.store)
        assert not watch.happened(), f"{swaps.done!r} led out"
        assert differences(before, snapshot(self.outside), identity=True) == []
        assert watch.happened(), "it notices what it is to notice"
        watch.close()
        assert self._secrets() == []
        return swaps

    def _secrets(self) -> list[str]:
        return [
            os.path.join(folder, name)
            for place in self.own
            for folder, _, names in os.walk(place)
            for name in names
            if SECRET in Path(folder, name).read_bytes()
        ]


def swap(deed: Callable[[Path], None], tmp_path: Path, number: int, *, denied: bool) -> Swaps:
    with quick_place(tmp_path) as place:
        place.mkdir(exist_ok=True)
        swaps = Scene(place, deed).swap(number, denied=denied)
        for tree in place.iterdir():
            remove(tree)
    return swaps


CASES = [*((deed, False) for deed in BEFORE), (emptying, True)]
IDS = [f"{deed.__name__}{'-denied' if denied else ''}" for deed, denied in CASES]


@pytest.mark.parametrize(("deed", "denied"), CASES, ids=IDS)
def test_no_open_is_led_out(
    deed: Callable[[Path], None], denied: bool, tmp_path: Path, seed: int
) -> None:
    places = swap(deed, tmp_path, -1, denied=denied).met
    assert places
    for number in Random(seed).sample(range(places), min(SOME, places)):
        assert swap(deed, tmp_path, number, denied=denied).done


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("deed", "denied"), CASES, ids=IDS)
def test_no_open_is_led_out_at_all(
    deed: Callable[[Path], None], denied: bool, tmp_path: Path
) -> None:
    for number in count():
        if not swap(deed, tmp_path, number, denied=denied).done:
            assert number
            return


def test_who_follows_is_led_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with a program that follows links: the test sees it."""
    monkeypatch.setattr(disk_bytes, "_DIRECTORY", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    monkeypatch.setattr(disk_bytes, "_FILE", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with pytest.raises(AssertionError, match="led out"):
        swap(ingest, tmp_path, 0, denied=False)
