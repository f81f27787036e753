"""What every command that changes a store does first: whether it may, and what was begun."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from regrain.errors import LockedError, NoSpaceError, RegrainError, path_of
from regrain.ledger import open_ledger
from regrain.maintain.remove import finish
from regrain.migrate.added import finish_adds
from regrain.migrate.disk_errors import staging_error
from regrain.migrate.recover import recover
from regrain.store.locks import StoreLock, dead_runs, run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.ledger import Ledger
    from regrain.store.root import StoreRoot


def check_owner(root: StoreRoot) -> None:
    """Refuse whoever may not write.

    Raises:
        RegrainError: The store belongs to somebody else.
    """
    if os.geteuid() not in (0, root.owner.uid):
        raise RegrainError(
            "the store belongs to another user",
            path=root.path,
            why=f"user {root.owner.uid}",
            advice="Run as that user, or as root.",
        )


def finish_begun(root: StoreRoot, ledger: Ledger) -> None:
    """Carry out the intents of processes that were killed; doing it twice changes nothing.

    Args:
        root: The store, whose lock the caller shares.
        ledger: Its ledger.
    """
    finish(root, ledger)
    finish_adds(root, ledger)


@contextlib.contextmanager
def writing(root: StoreRoot) -> Iterator[Ledger]:
    """Open the ledger to change a store beside others; finish what killed ones had begun."""
    check_owner(root)
    with StoreLock(root, exclusive=False), _opened_ledger(root) as ledger:
        finish_begun(root, ledger)
        if dead_runs(root):
            with contextlib.suppress(LockedError), run_lock(root, "recovery"):
                recover(root, ledger, verified=False)
        yield ledger


@contextlib.contextmanager
def _opened_ledger(root: StoreRoot) -> Iterator[Ledger]:
    """Open the ledger; what the disk refuses meanwhile is told in our words."""
    ledger = open_ledger(root.path)
    try:
        yield ledger
    except OSError as error:
        raise storage_error(error, root) from error
    finally:
        ledger.close()


def storage_error(error: OSError, root: StoreRoot) -> RegrainError:
    """Return what to say of a system call that failed while a store was changed."""
    known = staging_error(error, path_of(error, root.path))
    if isinstance(known, NoSpaceError):
        known.what = "no space left to change the store"
        known.advice = "Free space or inodes, then run the command again; it goes on."
    else:
        known.advice = "Check the disk, then run the command again; it goes on."
    return known
