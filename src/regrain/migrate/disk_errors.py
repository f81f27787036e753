"""What an error of the store's disk means for a run."""

from __future__ import annotations

from regrain import disk
from regrain.errors import HaltedError, NoSpaceError, RegrainError, reason


def staging_error(error: OSError, path: bytes) -> RegrainError:
    """Return what an error while writing into the store means: no space, or the end."""
    if error.errno in disk.NO_SPACE:
        return NoSpaceError(
            "no space left to stage a file",
            path=path,
            why=reason(error),
            advice="Free space or inodes and run 'regrain migrate' again; it goes on.",
        )
    return HaltedError(
        "cannot write to the store",
        path=path,
        why=reason(error),
        advice="The legacy packages are untouched. Check the disk, then run again.",
    )


def flush_error(what: str, error: OSError) -> HaltedError:
    """Return the end of the run: whatever the reason was, asking again would prove nothing."""
    return HaltedError(
        f"cannot flush {what} to the disk",
        why=reason(error),
        advice="The legacy packages are untouched. Check the disk and its messages, then run "
        "'regrain migrate' again: it stages anew what was in hand.",
    )
