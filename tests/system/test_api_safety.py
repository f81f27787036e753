"""One store, many threads; forks; other processes: nothing is missing, mixed or shared."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regrain import Package, PackageStore
from tests.command import Regrain
from tests.verbs import make_package

READERS = 8
COUNT = 6


@pytest.fixture
def store_with_pending(workplace: Path) -> Path:
    for number in range(COUNT):
        make_package(workplace / "store" / (f"{number:02x}" * 32), f"old-{number}")
        make_package(workplace / f"new-{number}", f"new-{number}")
    Regrain(workplace / "store")("init")
    return workplace / "store"


def check(package: Package, name: str) -> None:
    assert package.read("opt/pm/live/bin/run") == f"run {name}\n".encode()
    assert package.name == name
    assert len(list(package.files())) == len({entry.path for entry in package.files()})


def test_eight_threads_read_while_packages_come_and_go(store_with_pending: Path) -> None:
    """Added, removed and migrated, all through the same ``PackageStore``."""
    store = PackageStore.open(store_with_pending)
    done = threading.Event()
    rounds: list[int] = []

    def read() -> None:
        kept = [store.get_package(f"{number:02x}" * 32) for number in range(COUNT)]
        while True:
            last = done.is_set()
            for number, package in enumerate(kept):
                check(package, f"old-{number}")
            assert {package.hash for package in kept} <= {p.hash for p in store.packages()}
            rounds.append(1)
            if last:
                return

    def change() -> None:
        try:
            for _ in range(3):
                added = [
                    store.add_package(store_with_pending.parent / f"new-{number}")
                    for number in range(COUNT)
                ]
                assert not any(one.already_present for one in added)
                for number, one in enumerate(added):
                    check(store.get_package(one.package_hash), f"new-{number}")
                    store.remove_package(one.package_hash)
                store.collect(grace_seconds=0)
                # A program with threads may migrate; its workers are processes of their own.
                store.migration().run(limit=2, jobs=1)
        finally:
            done.set()

    with ThreadPoolExecutor(READERS + 1) as threads:
        futures = [threads.submit(read) for _ in range(READERS)] + [threads.submit(change)]
        for future in futures:
            future.result(100)
    assert len(rounds) >= READERS * 2
    assert store.migration().progress().packages_done == COUNT
    assert {package.layout.value for package in store.packages()} == {"file_level"}
    Regrain(store_with_pending)("verify", "--level", "deep")


def test_threads_add_at_once(store_with_pending: Path) -> None:
    store = PackageStore.open(store_with_pending)
    places = [store_with_pending.parent / f"new-{n % COUNT}" for n in range(3 * COUNT)]
    with ThreadPoolExecutor(READERS) as threads:
        added = list(threads.map(store.add_package, places))
    assert len({one.package_hash for one in added}) == COUNT
    assert sum(not one.already_present for one in added) == COUNT
    Regrain(store_with_pending)("verify", "--level", "deep")


def test_forks_read_and_write(store_with_pending: Path) -> None:
    """The children use what their parent opened, all at once."""
    store = PackageStore.open(store_with_pending)
    kept = store.get_package("00" * 32)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            try:
                added = store.add_package(store_with_pending.parent / f"new-{number}")
                check(store.get_package(added.package_hash), f"new-{number}")
                check(kept, "old-0")
            except BaseException as error:  # noqa: BLE001 -- a child must not return into pytest
                os.write(2, f"{error!r}\n".encode())
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    check(kept, "old-0")
    assert len(list(store.packages())) == COUNT + 4
    Regrain(store_with_pending)("verify", "--level", "deep")


def test_a_store_is_opened_anew_where_it_is_sent(
    store_with_pending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of descriptors mean something else there; a relative path does, too."""
    monkeypatch.chdir(store_with_pending.parent)
    store = PackageStore.open(b"store")
    sent = pickle.dumps((store, store.get_package("01" * 32)))
    program = (
        "import pickle, sys\n"
        "store, package = pickle.load(sys.stdin.buffer)\n"
        "print(package.name, store.has_package(package.hash), store.phase.value)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=sent, capture_output=True, check=False, cwd="/"
    )
    assert (done.stdout, done.stderr) == (b"old-1 True dual\n", b"")
    monkeypatch.chdir("/")
    assert not store.add_package(store_with_pending.parent / "new-0").already_present


def test_threads_list_one_legacy_package(store_with_pending: Path) -> None:
    """A directory's position is shared by all who use its descriptor, and duplicates of it."""
    package = PackageStore.open(store_with_pending).get_package("00" * 32)
    expected = [entry.path for entry in package.files()]
    assert package.layout.value == "legacy"

    def listed(_: int) -> list[bytes]:
        return [entry.path for entry in package.files()]

    with ThreadPoolExecutor(READERS) as threads:
        assert all(found == expected for found in threads.map(listed, range(200)))
