"""The processes of a store whose objects are compressed and made plain again while it is used.

Called as ``python -m tests.system.packed_actors PLAN ROLE``, see ``together_actors``. What needs
the store as a run does waits for the others that do.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from regrain.app import remote
from regrain.app.repacking import repack
from regrain.app.repairing import Order, repair
from regrain.errors import LockedError
from regrain.maintain.repack import Choice
from tests import databases
from tests.system.together_actors import SETTINGS, Actor, Plan

PATIENCE_SECONDS = 180.0
REST_SECONDS = 0.5
AGAIN_SECONDS = 0.01
PACKED = msgspec.structs.replace(
    SETTINGS, store=msgspec.structs.replace(SETTINGS.store, compression="zstd")
)


class Packer(Actor):
    """One of them."""

    def __init__(self, plan: Plan, role: str) -> None:
        super().__init__(plan, role, PACKED)
        self.bucket = f"file://{plan.place / 'bucket'}"
        self.pushed: set[str] = set()

    def steps(self) -> dict[str, Callable[[], None]]:
        """What each role does, again and again."""
        return {
            **super().steps(),
            "repack": self.repack,
            "repair": self.repair,
            "remote": self.push_or_pull,
        }

    def patiently(self, work: Callable[[], None]) -> None:
        """Work as soon as no other run holds the store."""
        due = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                work()
            except LockedError:
                if time.monotonic() > due:
                    raise
                time.sleep(AGAIN_SECONDS * self.random.random())
            else:
                return

    def migrate(self) -> None:
        """Migrate, and leave the store to others for a while."""
        super().migrate()
        time.sleep(REST_SECONDS)

    def go_on(self) -> None:
        """Migrate what waits, once nobody else holds the store."""
        self.patiently(super().go_on)

    def repack(self) -> None:
        choice = self.random.choice(tuple(Choice))

        def work() -> None:
            repack(self.root, PACKED, choice)

        with self.step(f"repack {choice.value}", None):
            self.patiently(work)
        time.sleep(REST_SECONDS)

    def repair(self) -> None:
        """Nothing is damaged, whatever others do meanwhile."""
        with self.step("repair", None) as said:

            def work() -> None:
                done = repair(self.root, PACKED, Order())
                said[:] = (
                    [f"error: {done.report}"] if done.is_damaged or done.report.repairs else []
                )

            self.patiently(work)

    def push_or_pull(self) -> None:
        item = self.random.choice(self.coming)
        if self.random.random() < 0.5 and self.store.has_package(item.name):
            with self.step("push", item) as said:
                for pushed in remote.push(self.root, [item.name], self.bucket):
                    if isinstance(pushed, Exception):
                        raise pushed
                self.pushed.add(item.name)
                said.append("present")
        elif item.name in self.pushed:
            with self.step("pull", item) as said:
                for pulled in remote.pull(self.root, PACKED, [item.name], self.bucket):
                    if isinstance(pulled, Exception):
                        raise pulled
                    said.append("present" if pulled.already_present else "added")


if __name__ == "__main__":
    databases.as_told()
    with Path(sys.argv[1]).open("rb") as stream:
        plan = pickle.load(stream)
    Packer(plan, sys.argv[2]).run()
