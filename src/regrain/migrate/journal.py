"""Subscribers that keep a run's events on disk: a log of lines, and a snapshot."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec

from regrain import disk
from regrain.migrate import course
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.logbook import DEFAULT, Limits, Logbook
from regrain.migrate.tally import Tally
from regrain.model import clock, layout
from regrain.model.events import Event, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.errors import RegrainError
    from regrain.store.root import StoreRoot

SNAPSHOT_SECONDS = 0.5
_STATE = layout.STATE_FILE.rpartition("/")[2]
_BYTES_MAX = 1 << 20
_encode = msgspec.json.Encoder().encode


class Journal:
    """Writes ``migration/logs/<day>.jsonl`` and ``migration/state.json``.

    Both are derived: a full disk must not stop a migration for their sake, so errors
    while writing them are let go.

    Args:
        root: The store.
        limits: How large logs may become.
        clock_: Says when the next snapshot is due.

    Attributes:
        executor: The engine that has the workers; empty where this host has them.
    """

    def __init__(
        self,
        root: StoreRoot,
        limits: Limits = DEFAULT,
        clock_: Callable[[], float] = clock.monotonic,
    ) -> None:
        try:
            self._migration = disk.Held(disk.open_directory(layout.MIGRATION, root.fd))
            self._log = Logbook(root, limits)
        except OSError as error:
            raise staging_error(error, layout.LOGS.encode()) from error
        self._clock = clock_
        self._last = float("-inf")
        self.executor = ""
        self._tally = Tally()
        self._progress: Progress | None = None
        self._course = course.Course()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        self._tally(event)
        with contextlib.suppress(OSError):
            if isinstance(event, Progress):
                if self._course.is_due(event, self._clock()):
                    self.line(course.NAME, course.line(event))
                self._snapshot(event)
            else:
                self.line(type(event).__name__, asdict(event))

    def line(self, name: str, fields: dict[str, object]) -> None:
        """Append one line."""
        line = {"at": clock.now(), "event": name, "pid": os.getpid(), **fields}
        self._log.append(_encode(line) + b"\n")

    def put_away(self) -> None:
        """Compress the logs and the snapshot: what they tell of is over."""
        with contextlib.suppress(OSError):
            self._log.put_away()
        with contextlib.suppress(OSError):
            self._log.put_away_snapshot(_STATE, self._migration.fd)

    def end(self, error: RegrainError | None = None) -> None:
        """Write the last snapshot of a run, so that it tells all that was counted.

        Args:
            error: What ended it before its time.
        """
        if error is not None:
            self._tally.ended_by(error)
        if self._progress is not None:
            with contextlib.suppress(OSError):
                self._write_run(self._progress)

    def _snapshot(self, progress: Progress) -> None:
        self._progress = progress
        now = self._clock()
        is_last = progress.packages_done + progress.packages_failed == progress.packages_total
        if now - self._last < SNAPSHOT_SECONDS and not is_last:
            return
        self._last = now
        self._write_run(progress)

    def _write_run(self, progress: Progress) -> None:
        run = {**asdict(progress), "executor": self.executor}
        self._write_snapshot({**run, "figures": self._tally.document()})

    def hold(self, reason: str) -> None:
        """Let the snapshot of what is no migration tell what it waits for."""
        now = self._clock()
        if not reason or now - self._last >= SNAPSHOT_SECONDS:
            self._last = now
            with contextlib.suppress(OSError):
                self._write_snapshot({"throttle_reason": reason})

    def _write_snapshot(self, fields: dict[str, object]) -> None:
        known = {"schema": 1, "at": clock.now(), "pid": os.getpid()}
        content = _encode({**known, **fields}) + b"\n"
        try:
            disk.write_snapshot(_STATE, content, self._migration.fd)
        except OSError:  # a full disk, which is what the snapshot may have to tell of
            self._overwrite(content)

    def _overwrite(self, content: bytes) -> None:
        """Replace the snapshot in its own block, where there is none for another."""
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with disk.Closing(os.open(_STATE, flags, dir_fd=self._migration.fd)) as fd:
            os.pwrite(fd, content, 0)
            os.ftruncate(fd, len(content))


def read_snapshot(root: StoreRoot) -> dict[str, object]:
    """Return the last snapshot of a run; empty if there is none that can be read."""
    try:
        raw = disk.read_all(layout.STATE_FILE, root.fd, _BYTES_MAX)
        return msgspec.json.decode(raw, type=dict[str, object])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
