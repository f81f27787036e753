"""A brake from the kernel's own measure of how much this machine waits for its disks."""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING

from regrain.errors import RefusedError, reason
from regrain.migrate.pace import Demand
from regrain.model.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable

PRESSURE_FILE = "/proc/pressure/io"

LOOK_SECONDS = 1.0
"""The kernel's average moves every two seconds; looking more often tells nothing."""

RELEASED_BELOW = 0.8
"""A run that is held goes on below this share of the limit: else it would stutter around it."""

_SOME = re.compile(rb"^some avg10=(\d+(?:\.\d+)?) ", re.MULTILINE)
_BYTES_MAX = 4096


SHED_SECONDS = 15.0
"""So long a run goes on with one worker, before it is held: the kernel's average covers ten
seconds, so that it tells by then whether that was enough."""


class IoPressure:
    """Slows, then holds a run while tasks of this machine wait for storage too much of their time.

    Over the limit one worker goes on; a run that is over it for ``SHED_SECONDS`` all the same is
    held. What cannot be read holds it at once: who asked for a limit wants no run without one.

    Args:
        percent_max: Share of the last ten seconds in which some task waited, in percent.
        path: Where the kernel tells it (``some avg10``).
        clock: Says how long ago the last look was.
    """

    def __init__(
        self,
        percent_max: float,
        path: str = PRESSURE_FILE,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._percent_max = percent_max
        self._path = path
        self._clock = clock
        self._looked_at = -math.inf
        self._over_since: float | None = None
        self._demand: Demand | None = None

    def check(self) -> None:
        """See that the pressure can be read at all, before a run begins.

        Raises:
            RefusedError: It cannot, so that the limit could not be kept.
        """
        try:
            self._read()
        except (OSError, ValueError) as error:
            raise RefusedError(
                "the I/O pressure cannot be read, so [migration] io_pressure_max cannot be kept",
                path=self._path,
                why=_words(error),
                advice="Use a kernel with pressure stall information (CONFIG_PSI, not psi=0), or "
                "set io_pressure_max = 0, which switches this limit off.",
            ) from error

    def demand(self) -> Demand | None:
        """Say whether the run is held, and by what."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._demand = self._look(now)
        return self._demand

    def _look(self, now: float) -> Demand | None:
        try:
            percent = self._read()
        except (OSError, ValueError) as error:
            return Demand(
                f"the I/O pressure cannot be read: '{self._path}': {_words(error)}; "
                "a run with io_pressure_max = 0 needs it not"
            )
        is_over = self._over_since is not None
        limit = self._percent_max * (RELEASED_BELOW if is_over else 1.0)
        if percent <= limit:
            self._over_since = None
            return None
        if self._over_since is None:
            self._over_since = now
        jobs = 1 if now - self._over_since < SHED_SECONDS else 0
        return Demand(f"I/O pressure {percent:.1f} %, over {limit:g} % (io_pressure_max)", jobs)

    def _read(self) -> float:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = _SOME.search(os.read(fd, _BYTES_MAX))
        finally:
            os.close(fd)
        if found is None:
            raise ValueError("it has no line 'some avg10=…'")
        return float(found[1])


def _words(error: OSError | ValueError) -> str:
    return reason(error) if isinstance(error, OSError) else str(error)
