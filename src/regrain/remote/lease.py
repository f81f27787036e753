"""Pushes and collections of one URL keep out of each other's way.

Whoever writes puts a lease there first and then looks for the other kind's: with a service whose
listings are current (all of them are, since 2020) at least one of two sees the other. A lease is
renewed while its holder lives; ages are told by the service's own clock.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from regrain.errors import LockedError, RegrainError, RemoteError
from regrain.remote import keys

if TYPE_CHECKING:
    from regrain.remote.place import Remote

LIFE_SECONDS = 900
"""A lease that was not renewed for so long is of somebody who was killed."""

_RENEW_SECONDS = 60
_SILENCE_SECONDS_MAX = 300
"""A holder that could not renew for so long stops, well before others take it for dead."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It goes on while the machine sleeps, where there is such a clock."""

_EXCLUDES = {"push": ("gc",), "gc": ("gc", "push")}


class Lease:
    """A lease of a URL.

    Args:
        remote: The place.
        kind: ``push``, of which there may be many, or ``gc``, which is alone.

    Attributes:
        began: When it was taken, by the service's clock, in seconds.
    """

    def __init__(self, remote: Remote, kind: str) -> None:
        self._remote = remote
        self._kind = kind
        self._key = keys.lease_key(kind, secrets.token_hex(16))
        self._ended = Event()
        self._thread = Thread(target=self._renew, name="lease", daemon=True)
        self._renewed = 0.0
        self._is_lost = False
        self.began = 0.0

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            LockedError: Somebody is there who excludes this.
        """
        self._put()
        try:
            self._look_for_others()
        except BaseException:
            self._drop()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back; where that fails it runs out by itself."""
        self._ended.set()
        self._thread.join()
        self._drop()

    def check(self) -> None:
        """Make sure that it still stands.

        Raises:
            RemoteError: It could not be renewed for too long: others may take us for dead.
        """
        if self._is_lost or _clock() - self._renewed > _SILENCE_SECONDS_MAX:
            raise RemoteError(
                "the service did not answer for too long to go on safely",
                path=self._remote.url,
                advice="Run the command again; it goes on where it was.",
            )

    def _look_for_others(self) -> None:
        own = self._remote.head(self._key)
        if own is None:
            raise RemoteError(
                "what was put there is not there",
                path=f"{self._remote.url}/{self._key}",
                advice="Use a service that shows at once what was written.",
            )
        self.began = own.modified
        for other in self._remote.listing(keys.LEASES):
            kind = keys.holder_of(other.key)
            age = own.modified - other.modified
            if other.key == self._key or kind not in _EXCLUDES[self._kind]:
                continue
            if age < LIFE_SECONDS:
                raise LockedError(
                    f"a {kind} is under way there",
                    path=f"{self._remote.url}/{other.key}",
                    why=f"it was heard of {max(0, round(age))} seconds ago",
                    advice=f"Wait for it. If it was killed, it is forgotten after {LIFE_SECONDS} "
                    "seconds of silence.",
                )
            if self._kind == "gc":
                self._remote.delete([other.key])

    def _put(self) -> None:
        began = _clock()
        # Once others may have taken it for dead, renewing it proves nothing any more.
        self._is_lost |= 0 < self._renewed < began - _SILENCE_SECONDS_MAX
        self._remote.put(self._key, b"{}\n")
        self._renewed = began

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_SECONDS):
            with contextlib.suppress(RegrainError):  # `check` tells when it was too often
                self._put()

    def _drop(self) -> None:
        with contextlib.suppress(RegrainError):
            self._remote.delete([self._key])


def _clock() -> float:
    return time.clock_gettime(_CLOCK)
