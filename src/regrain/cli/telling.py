"""What cleanup and rollback tell while they go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.cli import log, output
from regrain.cli.context import Context, Stop
from regrain.cli.progress import Bar
from regrain.errors import UsageError

if TYPE_CHECKING:
    from regrain.app.undoing import UndoingEvent
    from regrain.maintain.audit import Audit


_EVENTS = {
    "removed": "Cleaned",
    "kept": "Staying",
    "failed": "Failure",
    "restored": "Restored",
}
"""What the logs call it."""


class Teller:
    """Tells what becomes of each package, and how far a comparison is."""

    def __init__(self, context: Context, *, as_json: bool) -> None:
        self.as_json = as_json
        self._verbose = context.verbosity > 0
        self._bar = Bar(total=None, hidden=as_json)
        self.stop = Stop()
        self.stop.listen(
            lambda: output.note("stopping after the package in hand", event=log.STOPPING)
        )

    def event(self, event: UndoingEvent) -> None:
        """Take what became of a package."""
        from regrain.maintain.cleanup import Cleaned, Staying
        from regrain.maintain.restore import Failure

        name = event.package_hash
        if isinstance(event, Cleaned):
            self._say("removed", name, freed_bytes=event.freed_bytes)
        elif isinstance(event, Staying):
            self._say("kept", name, event.why, path=output.shown(event.path))
        elif isinstance(event, Failure):
            self._say("failed", name, event.why, damaged=event.is_damage)
        else:
            rot = "; the legacy directory that had rotted is in quarantine" if event.why else ""
            self._say("restored", name, event.why + rot)

    def _say(self, status: str, name: str, why: str = "", **fields: object) -> None:
        if self.as_json:
            fields = {"reason": why, **fields} if why else fields
            output.document("package", package_hash=name, status=status, **fields)
        elif why or self._verbose:
            level = "warning" if why and status != "restored" else "info"
            fields = {"package_hash": name, "why": why, **fields}
            words = f"{status} {name}{f': {why}' if why else ''}"
            self._bar.say(words, level, _EVENTS[status], **fields)

    def check(self, audit: Audit) -> None:
        """Take how far the comparison of legacy directories is."""
        self._bar.update(
            f"compared {output.count(audit.packages, 'package')}", audit.bytes_hashed, None
        )

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def next_command(context: Context) -> str:
    """Return what `status` would end with now."""
    from regrain.app import standing

    return standing.next_command(context.store.migration().state())


def check_options(*, execute: bool, dry_run: bool) -> None:
    """Refuse what contradicts itself."""
    if execute and dry_run:
        raise UsageError(
            "--execute and --dry-run contradict each other", advice="Give one of them."
        )
