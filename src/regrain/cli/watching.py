"""``status --watch``: the standing of a store, again and again."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Protocol

import click

from regrain.cli import output
from regrain.cli.status import lines
from regrain.errors import LockedError

if TYPE_CHECKING:
    from regrain.app.observing import Overview
    from regrain.cli.context import Context

LOOK_SECONDS = 1.0

_FLEETING = frozenset(
    {
        "rate_bytes_per_second",
        "estimated_time_remaining_seconds",
        "foreground_seconds",
        "foreground_slowdown",
        "packages_last_hour",
    }
)
"""Figures that never stand still: they alone are no news."""


class _View(Protocol):
    def show(self, seen: Overview) -> None:
        """Show what was seen."""

    def close(self) -> None:
        """Leave the last of it."""


def watch(context: Context, *, as_json: bool) -> None:
    """Show where a store stands until the caller is interrupted.

    Raises:
        RegrainError: There is no store, or no more.
        KeyboardInterrupt: That is the end of it.
    """
    from regrain.app.observing import Observer

    observer = Observer(context.store.root.path, context.settings)
    view: _View = _Drawn() if sys.stdout.isatty() and not as_json else _Told(as_json=as_json)
    pause = threading.Event()
    try:
        while True:
            with contextlib.suppress(LockedError):  # a busy ledger: the next look will do
                view.show(observer.look())
            pause.wait(LOOK_SECONDS)
    finally:
        view.close()


class _Drawn:
    """Drawn anew in place, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(), auto_refresh=False)
        self._live.start()

    def show(self, seen: Overview) -> None:
        """Draw it."""
        from rich.text import Text

        told = output.columns(lines(seen.figures, seen.state.phase.label))
        told += ["", f"Next: {seen.figures['next_command']}", "", "Ctrl-C ends this view."]
        self._live.update(Text("\n".join(told), no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        """Leave the last of it on the screen."""
        self._live.stop()


class _Told:
    """Told where something changed: a line, or a document."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._last: object = None

    def show(self, seen: Overview) -> None:
        """Tell it, if it is news."""
        lasting = {name: value for name, value in seen.figures.items() if name not in _FLEETING}
        news = lasting if self._as_json else _line(lasting, seen)
        if news == self._last:
            return
        self._last = news
        if self._as_json:
            output.document("status", **seen.figures, space=None)
        else:
            left = seen.figures["estimated_time_remaining_seconds"]
            more = f"; {output.duration(left)} left" if isinstance(left, float) else ""
            click.echo(output.shown(f"{news}{more}"))
            sys.stdout.flush()

    def close(self) -> None:
        """Nothing is open."""


def _line(figures: dict[str, object], seen: Overview) -> str:
    """Return what matters in one line."""
    migrated, packages, done, total, failed = (
        _number(figures, name)
        for name in (
            "migrated_packages",
            "total_packages",
            "bytes_done",
            "bytes_total",
            "failed_packages",
        )
    )
    parts = [
        seen.state.phase.label,
        f"{migrated:,} of {packages:,} packages",
        f"{output.size(done)} of {output.size(total)}",
    ]
    if failed:
        parts.append(f"{failed:,} failed")
    parts.append(str(figures["running"] or "nothing runs"))
    if figures["paused"]:
        parts.append("paused")
    if figures["throttled"]:
        parts.append(f"waiting: {figures['throttle_reason']}")
    parts.append(seen.health.status)
    return "; ".join(parts)


def _number(figures: dict[str, object], name: str) -> int:
    value = figures[name]
    return value if isinstance(value, int) else 0
