"""The steps of a migration beside ``run``: what it has in common with the command line's verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrain.app.migration import State
    from regrain.app.standing import Health
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot


class Steps:
    """The part of ``Migration`` that leads from phase to phase."""

    def __init__(self, root: StoreRoot, settings: Settings) -> None:
        self._root = root
        self._settings = settings

    def state(self) -> State:
        """Return where the migration stands."""
        raise NotImplementedError

    def progress(self) -> State:
        """Return where the migration stands, whoever runs it."""
        return self.state()

    def health(self) -> Health:
        """Judge the store: ``healthy``, ``warning`` or ``critical``, with the issues."""
        from regrain.app.standing import health

        return health(self._root, self.state(), self._settings)

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
