"""The processes of the circle under load: one leads a store around, the others use it.

Called as ``python -m tests.system.circle_actors PLAN ROLE``, see ``together_actors``.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from blake3 import blake3

from regrain.app import lifecycle, undoing
from regrain.app import rollback as rolling
from regrain.errors import RefusedError
from tests import databases
from tests.system.together_actors import SETTINGS, Actor

PATIENCE_SECONDS = 120.0
REST_SECONDS = 0.15
HELD_SECONDS_MAX = 0.05
SELDOM = 0.1
_LIMITS = msgspec.structs.replace(SETTINGS.migration, free_bytes_min=0, free_inodes_min=0)
AROUND = msgspec.structs.replace(SETTINGS, migration=_LIMITS)


class Circler(Actor):
    """One of them."""

    def steps(self) -> dict[str, Callable[[], None]]:
        """What each role does, again and again."""
        self.legacy = self.coming  # all that comes may go
        return {
            "read-1": self.read,
            "read-2": self.read,
            "checkout-1": self.check_out,
            "checkout-2": self.check_out,
            "add": self.add,
            "remove": self.remove,
            "circle": self.go_around,
        }

    def read(self) -> None:
        """Open a package, and read from it again when it may lie somewhere else."""
        item = self.random.choice(self.plan.items)
        paths = sorted(path for path, entry in item.tree.items() if entry.kind == "file")
        with self.step("read", item) as said:
            package = self.store.get_package(item.name)
            for path in self.random.sample(paths, 2):
                good = blake3(package.read(path)).hexdigest() == item.tree[path].digest
                said[:] = ["present" if good else f"error: other bytes in {path!r}"]
                if not good:
                    break
                time.sleep(HELD_SECONDS_MAX * self.random.random() ** 2)
        if self.random.random() < SELDOM:
            self.list_all()

    def remove(self) -> None:
        """Remove one, seldom enough that most are there."""
        super().remove()
        time.sleep(REST_SECONDS)

    def go_around(self) -> None:
        """Once from the legacy layout to the legacy layout, and forward again."""
        purges = self.random.random() < 0.5
        self.go_forward()
        self.cut_over()
        self.clean_up()
        with self.step("rollback", None) as said:
            done = rolling.rollback(self.root, AROUND)
            said.append("done" if not done.failures else f"error: {done.failures}")
        if purges:
            with self.step("purge", None):
                undoing.purge(self.root)
        self.go_forward()

    def go_forward(self) -> None:
        """Migrate what waits."""
        with self.step("migrate", None) as said:
            done = self.store.migration().run(jobs=1, batch=3)
            said.append("done" if not done.failed else f"error: {done}")

    def cut_over(self) -> None:
        """Switch; beside so many others the comparison of speeds may have to be repeated."""
        with self.step("cutover", None) as said:
            done = lifecycle.cutover(self.root, AROUND, wait=PATIENCE_SECONDS, no_backup=True)
            said.append("done" if done.switched else f"error: {done.failures}")

    def clean_up(self) -> None:
        """Remove the legacy directories, as soon as no reader has one open any more."""
        due = time.monotonic() + PATIENCE_SECONDS
        with self.step("cleanup", None) as said:
            while True:
                try:
                    done = undoing.cleanup(self.root)
                except RefusedError as error:
                    if "open" not in error.what or time.monotonic() > due:
                        raise
                    self.note(time.monotonic(), time.monotonic(), "cleanup", None, "refused")
                    time.sleep(0.01)
                else:
                    break
            said.append("done" if not done.kept else f"error: {done.kept}")


if __name__ == "__main__":
    databases.as_told()
    with Path(sys.argv[1]).open("rb") as stream:
        plan = pickle.load(stream)
    Circler(plan, sys.argv[2]).run()
