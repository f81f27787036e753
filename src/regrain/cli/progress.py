"""Progress of long commands: a bar on a terminal, a line every 30 s elsewhere, or JSON Lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

from regrain.cli import log, output
from regrain.errors import shown
from regrain.migrate import course
from regrain.model.clock import monotonic
from regrain.model.events import (
    BatchCommitted,
    Event,
    LegacyKept,
    LegacyRemoved,
    ObjectDamaged,
    PackageCompleted,
    PackageFailed,
    PackageGivenUp,
    Progress,
    Reconciled,
    Recovered,
    Remark,
    Triggered,
)

if TYPE_CHECKING:
    from regrain.maintain.audit import Audit

LINE_SECONDS = 30.0
JSON_SECONDS = 1.0


class Bar:
    """A progress bar on stderr if that is a terminal, else nothing."""

    def __init__(self, *, total: int | None, hidden: bool) -> None:
        self._bar: Any = None
        self._task: Any = None
        if not (hidden or log.is_json() or log.is_quiet()) and sys.stderr.isatty():
            from regrain.cli.drawn import make_bar

            self._bar = make_bar()
            self._task = self._bar.add_task("", total=total, pace=None)
            self._bar.start()

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self._bar is not None

    def update(self, text: str, done: int, total: int | None, pace: str | None = None) -> None:
        """Draw it anew.

        Args:
            text: What stands before it.
            done: Bytes.
            total: Likewise; None where nobody knows.
            pace: How fast it goes; None: as the bar sees it.
        """
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=done, total=total, pace=pace)

    def say(
        self, text: str, /, level: str = "info", event: str = log.NOTE, **fields: object
    ) -> None:
        """Print a line on stderr, above the bar; see ``log.note``."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            output.note(text, level, event, **fields)

    def stop(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()


class _Shown:
    """What both kinds of progress share: when to print, and the bar."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.bar = Bar(total=None, hidden=as_json)
        self._last = monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def stopping(self) -> None:
        """Say that a signal was heard."""
        self.bar.say(
            "stopping after the files in hand; once more to stop at once", event=log.STOPPING
        )

    def is_due(self) -> bool:
        """Tell whether it is time for the next line."""
        now = monotonic()
        wait = JSON_SECONDS if self.as_json else LINE_SECONDS
        if now - self._last < wait:
            return False
        self._last = now
        return True


class AuditProgress(_Shown):
    """Shows how far ``verify`` is."""

    def __call__(self, audit: Audit) -> None:
        """Take the findings so far."""
        text = f"{audit.packages:,} packages, {audit.carriers:,} objects"
        self.bar.update(text, audit.bytes_hashed, None)
        if self.bar.is_shown or not self.is_due():
            return
        if self.as_json:
            output.document(
                "status",
                packages=audit.packages,
                carriers=audit.carriers,
                bytes_hashed=audit.bytes_hashed,
                damages=len(audit.damages),
            )
        else:
            output.note(
                f"{text}, {output.size(audit.bytes_hashed)} hashed",
                event="AuditProgress",
                packages=audit.packages,
                carriers=audit.carriers,
                bytes_hashed=audit.bytes_hashed,
                damages=len(audit.damages),
            )


class MigrationProgress(_Shown):
    """Shows the events of a migration."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        super().__init__(as_json=as_json)
        self._verbose = verbose

    def __call__(self, event: Event) -> None:
        """Take an event."""
        match event:
            case Progress():
                self._progress(event)
            case Recovered():
                self._recovered(event)
            case Reconciled():
                self._reconciled(event)
            case Remark():
                self._tell(event, shown(event.text))
            case Triggered():
                self._tell(event, _triggered(event), "warning")
            case ObjectDamaged():
                self._tell(
                    event,
                    f"damaged: object {event.object}: {event.why}; it is in quarantine, and "
                    "a good one has its place",
                    "warning",
                )
            case _:
                self._of_package(event)

    def _tell(self, event: Event, text: str, level: str = "info") -> None:
        """Tell an event: people in words, programs by its name and fields."""
        self.bar.say(text, level, type(event).__name__, **log.fields_of(event))

    def _of_package(self, event: Event) -> None:
        match event:
            case PackageCompleted():
                self._completed(event)
            case PackageFailed():
                self._failed(event)
            case PackageGivenUp():
                self._given_up(event)
            case LegacyRemoved():
                self._legacy_removed(event)
            case LegacyKept():
                self._legacy_kept(event)
            case BatchCommitted():
                self._committed(event)
            case _:
                pass

    def _progress(self, progress: Progress) -> None:
        text = f"{progress.packages_done:,}/{progress.packages_total:,} packages"
        if progress.packages_failed:
            text += f", {progress.packages_failed:,} failed"
        if progress.throttle_reason:
            text += f" ({progress.throttle_reason})"
        rate, left = progress.rate_bytes_per_second, progress.seconds_left
        is_held = left is None and bool(progress.throttle_reason)
        speed = [f"{output.size(rate)}/s"] if rate and not is_held else []
        eta = [f"{output.duration(left)} left"] if left is not None else []
        pace = ", ".join(speed + eta)
        self.bar.update(text, progress.bytes_done, progress.bytes_total, pace)
        if self.bar.is_shown or not self.is_due():
            return
        if self.as_json:
            output.document(
                "status",
                total_packages=progress.packages_total,
                migrated_packages=progress.packages_done,
                failed_packages=progress.packages_failed,
                files_done=progress.files_done,
                bytes_total=progress.bytes_total,
                bytes_done=progress.bytes_done,
                rate_bytes_per_second=rate,
                estimated_time_remaining_seconds=left,
                throttled=bool(progress.throttle_reason),
                throttle_reason=progress.throttle_reason or None,
            )
            return
        done = f"{output.size(progress.bytes_done)} of {output.size(progress.bytes_total)}"
        output.note(
            ", ".join([text, done, *speed, *eta]),
            "info",
            course.NAME,
            **course.line(progress),
        )

    def _completed(self, event: PackageCompleted) -> None:
        if self.as_json:
            output.document(
                "package",
                status="completed",
                package_hash=event.package_hash,
                name=event.name,
                version=event.version,
                files=event.files,
                bytes=event.size,
                deduplicated_files=event.deduplicated_files,
                space_saved_bytes=event.space_saved,
            )
        elif self._verbose:
            self._tell(
                event,
                f"migrated {event.package_hash} {shown(event.name)} {shown(event.version)}: "
                f"{output.count(event.files, 'file')}, {output.size(event.space_saved)} saved",
            )

    def _committed(self, event: BatchCommitted) -> None:
        if self._verbose and log.is_json():  # people were told of the packages
            self._tell(event, f"committed {output.count(event.packages, 'package')}")

    def _failed(self, event: PackageFailed) -> None:
        if self.as_json:
            output.document(
                "package",
                status="failed",
                package_hash=event.package_hash,
                name=event.name,
                version=event.version,
                error=event.message,
                path=event.path,
            )
        name = f" ({shown(event.name)} {shown(event.version)})" if event.name else ""
        words = f"failed: package {event.package_hash}{name}: {event.message}"
        self._tell(event, words, "warning")

    def _given_up(self, event: PackageGivenUp) -> None:
        if self.as_json:
            output.document(
                "package", status="pending", package_hash=event.package_hash, error=event.why
            )
        elif self._verbose:
            self._tell(event, f"put back: package {event.package_hash}: {event.why}")

    def _legacy_removed(self, event: LegacyRemoved) -> None:
        """Tell it in the words of cleanup."""
        name, freed = event.package_hash, event.freed_bytes
        if self.as_json:
            output.document("package", package_hash=name, status="removed", freed_bytes=freed)
        elif self._verbose:
            self._tell(event, f"removed {name}")

    def _legacy_kept(self, event: LegacyKept) -> None:
        name, why, path = event.package_hash, event.why, event.path
        if self.as_json:
            output.document("package", package_hash=name, status="kept", reason=why, path=path)
        else:
            self._tell(event, f"kept {name}: {why}", "warning")

    def _reconciled(self, event: Reconciled) -> None:
        """Tell people line by line, programs all at once."""
        found = [
            *(f"not taken yet: package {name}: {shown(why)}" for name, why in event.unsettled),
            *(
                f"vanished: the legacy directory of package {name} is gone"
                for name in event.vanished
            ),
            *(f"changed: package {name}: {shown(what)}" for name, what in event.changed),
            *(
                f"cannot be compared: package {name}: {shown(why)}"
                for name, why in event.unreadable
            ),
        ]
        level = "warning" if event.vanished or event.changed or event.unreadable else "info"
        if log.is_json():
            found = ["; ".join(found)] if found else []
        for text in found:
            self._tell(event, text, level)

    def _recovered(self, event: Recovered) -> None:
        self._tell(
            event,
            f"recovered from a run that did not end: {event.packages} published packages "
            f"recorded, {event.given_up} put back, {event.objects} objects checked, "
            f"{event.quarantined} damaged things moved to quarantine",
        )


def _triggered(event: Triggered) -> str:
    """Say that a trigger fired, and what comes of it."""
    if event.before:
        return f"the last run was ended by a trigger, this one goes on: {event.why}"
    then = {
        "pause": "the run ends after the files in hand",
        "rollback": "the run ends after the files in hand, then the store is rolled back",
        "continue": "it goes on, as on_trigger says",
    }
    return f"trigger {event.trigger}: {event.why}; {then[event.action]}"
