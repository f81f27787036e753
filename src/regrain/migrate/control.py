"""Live control: what other terminals told a migration, in ``migration/control.json``."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from regrain import disk
from regrain.errors import ConfigurationError, RegrainError, reason
from regrain.migrate.pace import MIB, Demand, Tempo
from regrain.model import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regrain.store.root import StoreRoot

FILE = "control.json"
_BYTES_MAX = 1 << 16
PAUSED = "paused by 'regrain pause'"

Jobs = Annotated[int, msgspec.Meta(ge=1, le=256)]
Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=86_400_000)]

Revision = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Second = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # years of four digits


class Values(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a migration was told, each None where nothing was said.

    Attributes:
        jobs: Worker processes.
        batch: Packages committed together.
        max_read: MiB a second, by all workers together; 0 is no limit.
        pause_ms: Milliseconds between batches.
        max_files: Files a second, by all workers together; 0 is no limit.
    """

    jobs: Jobs | None = None
    batch: Count | None = None
    max_read: Rate | None = None
    pause_ms: Milliseconds | None = None
    max_files: Rate | None = None


KEYS = Values.__struct_fields__


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file.

    Attributes:
        schema: Of this file.
        revision: Counts its changes.
        paused_at: Since when the migration is paused, in Unix seconds; None: it is not.
        values: What is set.
        revisions: The revision in which each of them was last set or taken back.
    """

    schema: Literal[1] = 1
    revision: Revision = 0
    paused_at: Second | None = None
    values: Values = Values()
    revisions: dict[str, Revision] = {}

    @property
    def is_paused(self) -> bool:
        """Whether the migration is paused."""
        return self.paused_at is not None


def read_control(root: StoreRoot) -> Control:
    """Return what the file says; where there is none, nothing was said.

    Raises:
        ConfigurationError: It cannot be understood.
        RegrainError: It cannot be read.
    """
    try:
        with _migration(root) as fd:
            return _read(fd)
    except OSError as error:
        raise _unreadable(error) from error


def _read(migration: int) -> Control:
    try:
        raw = disk.read_all(FILE, migration, _BYTES_MAX)
        return msgspec.json.decode(raw, type=Control)
    except FileNotFoundError:
        return Control()
    except OSError as error:
        raise _unreadable(error) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            "what the migration was told cannot be understood",
            path=f"{layout.MIGRATION}/{FILE}",
            why=str(error),
            advice="Move the file away; then nothing was said. 'regrain pause' and 'regrain set' "
            "say it anew.",
        ) from error


def _unreadable(error: OSError) -> RegrainError:
    return RegrainError(
        "cannot read what the migration was told",
        path=f"{layout.MIGRATION}/{FILE}",
        why=reason(error),
        advice="Run as the store's owner, or move the file away: then nothing was said.",
    )


def change_control(root: StoreRoot, change: Callable[[Control], Control]) -> None:
    """Replace the file by what ``change`` makes of it; those who do so take turns.

    Raises:
        ConfigurationError: What is there cannot be understood.
        OSError: It cannot be written.
    """
    with _migration(root) as fd:
        disk.lock(fd, exclusive=True, wait=True)
        content = msgspec.json.format(msgspec.json.encode(change(_read(fd))), indent=1)
        disk.write_atomic(FILE, content + b"\n", fd)


@contextlib.contextmanager
def _migration(root: StoreRoot) -> Iterator[int]:
    with disk.Closing(disk.open_directory(layout.MIGRATION, root.fd)) as fd:
        yield fd


class Steering:
    """Follows the file for one run: its tempo, and a ``Brake`` while it is paused.

    Of what was said the newest word counts: what is set while the run works, then the options
    it was started with, then what had been set before, then the settings.

    Args:
        root: The store.
        settings: Returns what the settings say, whenever it is asked; nothing in it is None.
        options: What the command was told.
        on_trouble: Told once, in words, when the file cannot be understood any more; what
            was known before is kept then.

    Raises:
        ConfigurationError: The file cannot be understood.
    """

    def __init__(
        self,
        root: StoreRoot,
        settings: Callable[[], Values],
        options: Values,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._migration = disk.Held(disk.open_directory(layout.MIGRATION, root.fd))
        self._settings = settings
        self._options = options
        self._on_trouble = on_trouble
        self._stamp = self._stamp_now()
        self._control = _read(self._migration.fd)
        self._first = self._control.revision

    def tempo(self) -> Tempo:
        """Return what the run is told to, now."""
        self._look()
        return Tempo(
            int(self._value("jobs")),
            int(self._value("batch")),
            self._value("max_read") * MIB,
            self._value("pause_ms") / 1000,
            self._value("max_files"),
        )

    def demand(self) -> Demand | None:
        """Hold the run while it is paused."""
        self._look()
        return Demand(PAUSED, at_once=True) if self._control.is_paused else None

    def _value(self, key: str) -> float:
        told, option = getattr(self._control.values, key), getattr(self._options, key)
        is_newer = self._control.revisions.get(key, 0) > self._first
        words = (told, option) if is_newer else (option, told)
        found = next((value for value in words if value is not None), None)
        return float(getattr(self._settings(), key) if found is None else found)

    def _look(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._control = _read(self._migration.fd)
            self._first = min(self._first, self._control.revision)  # it may begin anew
        except RegrainError as error:
            self._on_trouble(f"{error} Until then what it said before counts.")

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(FILE, dir_fd=self._migration.fd, follow_symlinks=False)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
