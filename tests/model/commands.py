"""The commands that a life is made of, what the model makes of each, and which come when."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.model.plain import Plain
from tests.model.trees import COUNT, SPECIAL, Sources
from tests.trees import package_hash

NAMES = [package_hash(1, f"model{n}", 32 if n == 1 else 64) for n in range(5)]


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        step: Its name in ``tests.model.steps``.
        model: Changes a model as the command has to change the store; returns the exit code.
        options: What it is given.
    """

    step: str
    model: Callable[[Plain], int]
    options: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return what a failing life is told by."""
        return f"{self.step} {self.options}"


def migration(
    *, retry_failed: bool = False, rescan: bool = False, accept: str | None = None
) -> Command:
    """Migrate everything that waits."""

    def model(plain: Plain) -> int:
        code = plain.begin()
        if code:
            return code
        if retry_failed:
            plain.retry()
        code = 0 if accept is None else plain.accept(accept)
        if code:
            return code
        plain.reconcile(full=rescan)
        return plain.migrate(plain.waiting())

    options = {"retry_failed": retry_failed, "rescan": rescan, "accept": accept}
    return Command("migrate", model, options)


def addition(sources: Sources, name: str, number: int, *, packed: bool) -> Command:
    """Add a directory, or the archive of it."""
    source = sources[number]
    path, tree = (
        (source.archive, source.packed)
        if packed and number != SPECIAL
        else (source.place, source.tree)
    )
    options = {"path": os.fspath(path), "package_hash": name}
    return Command("add", lambda plain: plain.add(name, tree), options)


def about(step: str, name: str) -> Command:
    """Return a command about one package that has the same name in the model."""
    return Command(step, lambda plain: int(getattr(plain, step)(name)), {"name": name})


def plain_command(step: str) -> Command:
    """Return a command without options that has the same name in the model."""
    return Command(step, lambda plain: int(getattr(plain, step)()))


HURTS = ("carrier lost", "bytes", "mode", "list", "package")


def mending(what: str, number: int) -> Command:
    """Damage something that is published, and repair it: then all is as after a look."""
    return Command("mend", lambda plain: plain.verify(), {"what": what, "number": number})


def cleaning(limit: int | None) -> Command:
    """Remove legacy directories."""
    return Command("cleanup", lambda plain: plain.cleanup(limit), {"limit": limit})


COLLECT = Command("collect", lambda _: 0)
VERIFY, REBUILD = plain_command("verify"), plain_command("rebuild")
CUTOVER, PURGE = plain_command("cutover"), plain_command("purge")
ROLL_BACK = plain_command("roll_back")
MIGRATE, RETRY = migration(), migration(retry_failed=True)
CLEAN_ALL = cleaning(None)

names = st.sampled_from(NAMES)
numbers = st.integers(0, COUNT - 1)


@dataclass(frozen=True, slots=True)
class Choice:
    """What chance says about a package that comes or goes."""

    what: str
    name: str
    number: int

    def __call__(self, sources: Sources) -> Command:
        """Return the command."""
        if self.what.startswith("add"):
            return addition(sources, self.name, self.number, packed=self.what == "add archive")
        return about(self.what, self.name)


_KINDS = ("add archive", "add directory") * 2 + ("remove", "exclude", "include")
keeping = st.builds(Choice, st.sampled_from(_KINDS), names, numbers)
caring = st.sampled_from((COLLECT, VERIFY, REBUILD))

_ANY = (MIGRATE, CUTOVER, cleaning(1), CLEAN_ALL, ROLL_BACK, PURGE)
_FITTING = {
    "dual": (MIGRATE, RETRY, CUTOVER, CUTOVER, CUTOVER, ROLL_BACK),
    "file_level": (cleaning(1), cleaning(2), CLEAN_ALL, MIGRATE, ROLL_BACK),
    "clean": (CLEAN_ALL, MIGRATE, ROLL_BACK, ROLL_BACK, CUTOVER),
    "rolling_back": (ROLL_BACK, ROLL_BACK, ROLL_BACK, CUTOVER),
    "rolled_back": (MIGRATE, MIGRATE, PURGE, PURGE, ROLL_BACK),
}


@dataclass(frozen=True, slots=True)
class Chance:
    """What chance says about the next step from phase to phase, whatever the phase then is."""

    number: int
    name: str
    retry_failed: bool
    rescan: bool
    accept: str | None

    def command(self, phase: str) -> Command:
        """Return the step: mostly one that can be made."""
        special = (
            about("roll_one_back", self.name),
            migration(retry_failed=self.retry_failed, rescan=self.rescan, accept=self.accept),
        )
        choices = _FITTING[phase] * 3 + _ANY + special * (4 if phase == "dual" else 1)
        return choices[self.number % len(choices)]


chances = st.builds(
    Chance,
    st.integers(0, 1 << 16),
    names,
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), names),
)


def smoothing(plain: Plain, goal: str) -> Command | None:
    """What an operator does next to bring a store to a phase, whatever is in the way.

    Returns None where it is there.
    """
    if plain.phase == goal:
        return None
    if plain.phase == "rolled_back":
        return MIGRATE
    for name, one in sorted(plain.known.items()):
        if not one.excluded and (one.differs or one.status == "failed"):
            return about("remove" if one.legacy is None else "exclude", name)
    if goal == "rolled_back" or plain.phase in {"clean", "rolling_back"}:
        return ROLL_BACK
    return _towards_clean(plain)


def _towards_clean(plain: Plain) -> Command:
    mine = [one for one in plain.known.values() if not one.excluded]
    if any(one.status not in {"", "completed"} for one in mine):
        return MIGRATE
    if any(one.legacy is not None and not one.status for one in mine):
        return migration(rescan=True)
    if any(one.concern for one in mine):
        return VERIFY
    return CUTOVER if plain.phase == "dual" else CLEAN_ALL
