"""The facade of live control: pause, resume, set; what a migration was told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from regrain.app.recovery import check_owner, storage_error
from regrain.errors import RegrainError, UsageError
from regrain.migrate.control import KEYS, PAUSED, Control, Values, change_control, read_control
from regrain.model import clock
from regrain.store.locks import is_running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from regrain.store.root import StoreRoot

MIGRATION = "regrain migrate"
_ADVICE = f"Say {', '.join(key.replace('_', '-') + '=VALUE' for key in KEYS)}; KEY= takes it back."


@dataclass(frozen=True, slots=True)
class Told:
    """What a migration was told, as far as it can be understood.

    Attributes:
        control: That.
        trouble: Why it cannot; empty if it can.
    """

    control: Control
    trouble: str = ""

    @property
    def pause(self) -> str:
        """Why nothing is migrated; empty if it may be."""
        return PAUSED if self.control.is_paused else ""


@dataclass(frozen=True, slots=True)
class Steered:
    """What a command changed.

    Attributes:
        before: What had been said.
        after: What is said now.
        running: The migration that heeds it, empty if none runs.
    """

    before: Control
    after: Control
    running: str


def told(root: StoreRoot) -> Told:
    """Return what a migration of this store was told; what cannot be read is no failure here."""
    try:
        return Told(read_control(root))
    except RegrainError as error:
        return Told(Control(), str(error))


def pause(root: StoreRoot, *, dry_run: bool = False) -> Steered:
    """Hold the migration, the one that runs and those to come, until ``resume``.

    Raises:
        ConfigurationError: What was said before cannot be understood.
        NoSpaceError, HaltedError: It cannot be written down.
    """

    def change(control: Control) -> Control:
        since = clock.now() if control.paused_at is None else control.paused_at
        return msgspec.structs.replace(control, paused_at=since)

    return _steer(root, change, dry_run=dry_run)


def resume(root: StoreRoot, *, dry_run: bool = False) -> Steered:
    """Let the migration that runs go on, or others begin; none is started.

    Raises:
        ConfigurationError: What was said before cannot be understood.
        NoSpaceError, HaltedError: It cannot be written down.
    """
    return _steer(
        root, lambda control: msgspec.structs.replace(control, paused_at=None), dry_run=dry_run
    )


def set_values(root: StoreRoot, words: Mapping[str, str], *, dry_run: bool = False) -> Steered:
    """Set what ``Values`` has, such as ``jobs`` or ``max-read``; an empty value takes one back.

    Raises:
        UsageError: There is no such key, or a value makes no sense.
        ConfigurationError: What was said before cannot be understood.
        NoSpaceError, HaltedError: It cannot be written down.
    """
    parsed = {_field(key): _parsed(key, word) for key, word in words.items()}

    def change(control: Control) -> Control:
        return msgspec.structs.replace(
            control,
            values=msgspec.structs.replace(control.values, **parsed),
            revisions={**control.revisions, **dict.fromkeys(parsed, control.revision + 1)},
        )

    return _steer(root, change, dry_run=dry_run)


def _field(key: str) -> str:
    name = key.replace("-", "_")
    if name not in KEYS:
        raise UsageError("there is no such key to set", why=f"'{key}'", advice=_ADVICE)
    return name


def _parsed(key: str, word: str) -> object:
    if not word:
        return None
    name = _field(key)
    try:
        return getattr(msgspec.convert({name: word}, Values, strict=False), name)
    except msgspec.ValidationError as error:
        why = str(error).removesuffix(f" - at `$.{name}`")
        raise UsageError(
            f"a bad value for {key}", why=f"'{word}': {why}", advice=_ADVICE
        ) from error


def _steer(root: StoreRoot, change: Callable[[Control], Control], *, dry_run: bool) -> Steered:
    check_owner(root)
    holder = is_running(root)
    done = Steered(Control(), Control(), holder if holder.startswith(MIGRATION) else "")

    def counted(before: Control) -> Control:
        nonlocal done
        after = msgspec.structs.replace(change(before), revision=before.revision + 1)
        done = replace(done, before=before, after=after)
        return after

    if dry_run:
        counted(read_control(root))
        return done
    try:
        change_control(root, counted)
    except OSError as error:
        raise storage_error(error, root) from error
    return done
