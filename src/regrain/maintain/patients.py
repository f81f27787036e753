"""What is wrong with an object, and what is to be done about it; decided here without a disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from regrain.model.layout import carrier_mode, further_carrier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Need(NamedTuple):
    """A file of a published package that needs an object.

    Attributes:
        package_hash: The package.
        path: The file.
        mode: Its permission bits.
        size: Its bytes.
        mtime_ns: Its modification time.
    """

    package_hash: str
    path: bytes
    mode: int
    size: int
    mtime_ns: int


class Recorded(NamedTuple):
    """A carrier as the ledger knows it.

    Attributes:
        is_bare: Whether it has the bare name.
        mtime_ns: Its modification time.
    """

    is_bare: bool
    mtime_ns: int


class Condition(NamedTuple):
    """What was found under the name of a carrier.

    Attributes:
        name: The carrier.
        mode_in_name: The mode its name says; None for the bare name.
        mode: Its permission bits.
        inode: Device and number.
        links: Its names.
        is_regular: Whether it is a regular file at all.
        is_owned: Whether it belongs to the store's owner.
        flaw: What is wrong with its bytes; empty if they are those of its name.
        is_compressed: Whether it holds them as a frame.
    """

    name: str
    mode_in_name: int | None
    mode: int
    inode: tuple[int, int]
    links: int
    is_regular: bool
    is_owned: bool
    flaw: str
    is_compressed: bool = False


@dataclass(frozen=True, slots=True)
class Patient:
    """An object of which something is not as it should be, perhaps.

    Attributes:
        digest: The object.
        conditions: What lies under its names.
        recorded: The plain carriers that the ledger knows, by mode.
        needs: The files that need it, as far as file lists can be read.
        is_owned: Whether the ledger knows a package that holds it.
    """

    digest: str
    conditions: Sequence[Condition]
    recorded: Mapping[int, Recorded] = field(default_factory=dict)
    needs: Sequence[Need] = ()
    is_owned: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether losing it would be a loss."""
        return self.is_owned or bool(self.needs)

    @property
    def is_packed(self) -> bool:
        """Whether a good compressed carrier is there, beside which no plain one is needed."""
        return any(c.is_compressed and c.is_regular and not c.flaw for c in self.conditions)

    @property
    def modes(self) -> set[int]:
        """The modes of which there should be a plain carrier, unless it is packed."""
        return {carrier_mode(need.mode) for need in self.needs} | set(self.recorded)


class Action(StrEnum):
    """What is done about one carrier."""

    DRESS = "dress"
    """Mode and owner are put right in place: the bytes are good, and it has no other name."""
    RENEW = "renew"
    """A new inode takes its name; what had it goes to quarantine."""
    MAKE = "make"
    """There is none: a new inode gets the name."""
    ASIDE = "aside"
    """It goes to quarantine, and nothing takes its place: nobody needs it."""
    UNPACK = "unpack"
    """A compressed one goes to quarantine, once plain ones are there in its place."""


class Treatment(NamedTuple):
    """What is to be done about one carrier.

    Attributes:
        name: The carrier.
        mode: What it is to have.
        action: What.
        why: What is wrong with it.
    """

    name: str
    mode: int
    action: Action
    why: str


def treatments(patient: Patient) -> list[Treatment]:
    """Decide what is to be done about an object; nothing, where it is well."""
    bare = _bare_mode(patient)
    found = [
        one
        for condition in patient.conditions
        if (one := _treatment(patient, condition, bare)) is not None
    ]
    plain = found + list(_missing(patient, bare))
    return sorted(plain, key=lambda one: one.action is Action.UNPACK)


def _bare_mode(patient: Patient) -> int | None:
    """Return the mode that the bare carrier should have; None if there should be none."""
    for mode, carrier in patient.recorded.items():
        if carrier.is_bare:
            return mode
    plain = [c for c in patient.conditions if not c.is_compressed]
    free = sorted(patient.modes - {c.mode_in_name for c in plain})
    for condition in plain:
        if condition.mode_in_name is None:
            good = condition.is_regular and (condition.mode in free or not free)
            return carrier_mode(condition.mode) if good else free[0] if free else None
    return free[0] if free else None


def _treatment(patient: Patient, condition: Condition, bare: int | None) -> Treatment | None:
    if condition.is_compressed:
        return _treatment_of_frame(patient, condition)
    mode = bare if condition.mode_in_name is None else condition.mode_in_name
    why = _flaw(condition, mode)
    if not why:
        return None
    if mode is None or (condition.flaw and not patient.is_needed):
        return Treatment(condition.name, 0, Action.ASIDE, why)
    if not condition.flaw and condition.links == 1:
        return Treatment(condition.name, mode, Action.DRESS, why)
    return Treatment(condition.name, mode, Action.RENEW, why)


def _treatment_of_frame(patient: Patient, condition: Condition) -> Treatment | None:
    """Decide about a compressed carrier: 'repack' makes another one, when that is asked for."""
    mode = carrier_mode(condition.mode)
    why = _flaw(condition, mode)
    if not why:
        return None
    if condition.is_regular and not condition.flaw:
        return Treatment(condition.name, mode, Action.DRESS, why)
    action = Action.UNPACK if patient.is_needed else Action.ASIDE
    return Treatment(condition.name, mode, action, why)


def _flaw(condition: Condition, mode: int | None) -> str:
    if not condition.is_regular:
        return "it is not a regular file"
    if condition.flaw:
        return condition.flaw
    if not condition.is_owned:
        return "it does not belong to the store's owner"
    if mode is not None and condition.mode != mode:
        return f"its mode is {condition.mode:04o}, not {mode:04o}"
    return ""


def _missing(patient: Patient, bare: int | None) -> Iterator[Treatment]:
    """Yield the carriers that should be there and are not, of an object somebody needs."""
    if not patient.is_needed or patient.is_packed:
        return
    there = {condition.name for condition in patient.conditions}
    for mode in sorted(patient.modes):
        name = patient.digest if mode == bare else further_carrier(patient.digest, mode)
        if name not in there:
            yield Treatment(name, mode, Action.MAKE, "missing")
