"""The steps of a migration beside ``run``: what it has in common with the command line's verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.app.rollback import RolledBack
    from regrain.app.standing import State
    from regrain.app.undoing import UndoingEvent
    from regrain.maintain.cleanup import Cleaning, Cleanup
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


def _ignore(_: object) -> None:
    """Take whatever comes."""


class Steps:
    """The part of ``Migration`` that leads from phase to phase."""

    def __init__(self, root: StoreRoot, settings: Settings) -> None:
        self._root = root
        self._settings = settings

    def state(self) -> State:
        """Return where the migration stands."""
        raise NotImplementedError

    def cutover(self, *, wait: float = 0.0, no_backup: bool = False) -> bool:
        """Let reads go to the file level; False if they did already.

        Args:
            wait: Seconds for which to ask the gate again while it is closed.
            no_backup: Do not ask for the mark of a backup.

        Raises:
            GateError: The gate is closed; ``failures`` says all that stands in the way.
            LockedError: Another run holds the store, or writers did not pause.
        """
        from regrain.app.lifecycle import cutover
        from regrain.migrate.cutover import GateError

        done = cutover(self._root, self._settings, wait=wait, no_backup=no_backup)
        if done.failures:
            raise GateError(done.failures)
        return done.switched

    def cleanup(self, *, execute: bool = False) -> Cleaning | Cleanup:
        """Say which legacy directories would go, or with ``execute`` remove them, each proved.

        Raises:
            RefusedError: The phase does not allow it, or a process has files open there.
        """
        from regrain.app.logs import limits_of
        from regrain.app.undoing import cleanup, plan_cleanup

        if not execute:
            return plan_cleanup(self._root)
        return cleanup(self._root, logs=limits_of(self._settings))

    def rollback(self, on_event: Callable[[UndoingEvent], None] = _ignore) -> RolledBack:
        """Go back to the legacy layout from whatever phase; see ``regrain.app.rollback``.

        Raises:
            RefusedError: There is too little space; nothing was changed.
            FinishedWithFailuresError, CorruptionError: Packages stand against it.
        """
        from regrain.app.rollback import raise_failures, rollback

        done = rollback(self._root, self._settings, on_event=on_event)
        raise_failures(done)
        return done
