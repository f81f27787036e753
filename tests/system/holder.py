"""A process that holds locks of a store, or is stopped in the midst of its work.

Called as ``python -m tests.system.holder STORE WHAT [ARGUMENT]``. It says ``ready`` on standard
output when it is where it should be, goes on when its standard input gets a line (or ends),
and says ``done`` or the error it met.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from regrain import PackageStore, disk
from regrain.app import care, keeping
from regrain.app.verification import verify
from regrain.errors import RegrainError
from regrain.ledger import open_ledger
from regrain.maintain.audit import Level
from regrain.model.events import PackageCompleted
from regrain.settings import Migration, Settings, Store
from regrain.store.locks import RunDirectory, StoreLock, publish_lock, run_lock
from regrain.store.root import StoreRoot
from tests import databases

SETTINGS = Settings(store=Store(migration_parallel_files=1), migration=Migration(settle=0))


def pause(*_: object) -> None:
    """Wait until somebody writes a line."""
    print("ready", flush=True)  # noqa: T201 -- this is how it talks
    sys.stdin.readline()


class Once:
    """Pauses the first time it is called."""

    def __init__(self, when: Callable[[Any], bool] = lambda _: True) -> None:
        self._when = when
        self._paused = False

    def __call__(self, value: object = None) -> None:
        """Pause, if this is the time."""
        if not self._paused and self._when(value):
            self._paused = True
            pause()


@contextlib.contextmanager
def locked(root: StoreRoot, what: str) -> Iterator[None]:
    """Hold one of the locks."""
    if what == "shared":
        with StoreLock(root, exclusive=False):
            yield
    elif what == "alone":
        with StoreLock(root, exclusive=True):
            yield
    elif what == "publish":
        with publish_lock(root):
            yield
    elif what == "run":
        with run_lock(root, "regrain cleanup"):
            yield
    elif what == "temp":
        with RunDirectory(root):
            yield
    elif what == "newborn":
        with newborn(root):
            yield
    elif what == "ledger":
        with contextlib.closing(open_ledger(root.path)) as ledger, ledger._transaction():
            yield
    else:
        raise AssertionError(what)


@contextlib.contextmanager
def newborn(root: StoreRoot) -> Iterator[None]:
    """Be where a run's directory has its name, and no locked file yet."""
    with disk.Closing(disk.open_directory("temp", root.fd)) as temp:
        disk.lock(temp, exclusive=False, wait=True)
        os.mkdir("newborn", dir_fd=temp)
        try:
            yield
        finally:
            os.rmdir("newborn", dir_fd=temp)


def busy(store: PackageStore, _: str) -> None:
    """Write all the time, until somebody says a line."""
    print("ready", flush=True)  # noqa: T201
    while not select.select([sys.stdin], [], [], 0)[0]:
        with StoreLock(store.root, exclusive=False):
            time.sleep(0.1)


def read(store: PackageStore, name: str) -> None:
    """Open a package and a file, then read the rest of both."""
    package = store.get_package(name)
    with package.open("manifest.toml") as stream:
        stream.read(1)
        pause()
        assert stream.read()
    assert len(list(package.files())) > 1


def check_out(store: PackageStore, name: str) -> None:
    """Check a package out, pausing after the first entry."""
    out = store.path + "-out"
    store.get_package(name).checkout(out, on_entry=Once())


def migrate(store: PackageStore, _: str) -> None:
    """Migrate one package a batch, pausing when the first is published and recorded."""
    first = Once(lambda event: isinstance(event, PackageCompleted))
    done = store.migration().run(on_event=first, jobs=1, batch=1)
    assert not done.failed


def verify_all(store: PackageStore, _: str) -> None:
    """Verify everything, pausing as soon as something was looked at."""
    found = verify(
        store.root,
        SETTINGS,
        [],
        level=Level.DEEP,
        subset=None,
        on_result=Once(),
        stopping=lambda: False,
    )
    assert not found.is_damaged


def rebuild(store: PackageStore, _: str) -> None:
    """Rebuild the ledger, pausing when the first legacy package was measured."""
    care.rebuild_ledger(store.path, on_package=Once())


def examine(store: PackageStore, _: str) -> None:
    """Run ``doctor``, pausing after the first directory of objects."""
    found = care.doctor(store.path, SETTINGS, care.Source("", ()), on_shard=Once())
    assert not any(finding.corrupt for finding in found)


def collect(store: PackageStore, patience: str) -> None:
    """Collect, waiting no longer than that."""
    pause()
    keeping.collect(store.root, grace=0, patience=float(patience))


WORK = {
    "busy": busy,
    "read": read,
    "checkout": check_out,
    "migrate": migrate,
    "verify": verify_all,
    "rebuild": rebuild,
    "doctor": examine,
    "collect": collect,
}


def main(path: str, what: str, argument: str = "") -> None:
    store = PackageStore.open(Path(path), SETTINGS)
    try:
        if what in WORK:
            WORK[what](store, argument)
        else:
            with locked(store.root, what):
                pause()
    except RegrainError as error:
        print(error.exit_code, error, flush=True)  # noqa: T201
        sys.exit(error.exit_code)
    print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    databases.as_told()
    main(*sys.argv[1:])
