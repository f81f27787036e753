"""The steps back, and the steps that take a layout away, inside this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrain.app import rollback as rolling
from regrain.app import undoing
from regrain.app.store import PackageStore
from regrain.maintain import audit
from regrain.model.phase import Phase
from regrain.store.root import StoreRoot, write_store_file
from tests.faults.inline import Way, migrate

WAY = Way(batch=10)


class _Here(Executor):
    """Does in this process what a worker of an audit does."""

    def __init__(self, _: int, start: Callable[..., None], *arguments: Any) -> None:
        start(*arguments)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it now."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 -- what a worker raises, its future holds
            future.set_exception(error)
        return future


@contextmanager
def inline_audit() -> Iterator[None]:
    """Have every audit of this process work inline."""
    module: Any = audit
    original = module.spawn_executor
    module.spawn_executor = _Here
    try:
        yield
    finally:
        module.spawn_executor = original
        module._inspector = None


def root_of(store: Path) -> StoreRoot:
    return StoreRoot(os.fspath(store))


def cutover(store: Path) -> None:
    """Only the switch, without its gate."""
    root = root_of(store)
    write_store_file(root.fd, root.store_id, Phase.FILE_LEVEL)


def cleanup(store: Path) -> None:
    done = undoing.cleanup(root_of(store))
    assert not done.kept, done


def rollback(store: Path) -> None:
    with inline_audit():
        rolling.raise_failures(rolling.rollback(root_of(store), _settings()))


def roll_one_back(store: Path, name: str = "") -> None:
    undoing.rollback_packages(root_of(store), [name])


def purge(store: Path) -> None:
    undoing.purge(root_of(store))


def forward(store: Path) -> None:
    with inline_audit():
        migrate(store, WAY)


def _settings() -> Any:
    import msgspec

    settings = WAY.settings()
    limits = msgspec.structs.replace(settings.migration, free_bytes_min=0, free_inodes_min=0)
    return msgspec.structs.replace(settings, migration=limits)


def opened(store: Path) -> PackageStore:
    return PackageStore.open(store)
