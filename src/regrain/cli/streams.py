"""Standard input, output and error: open whatever the caller closed; failures become words."""

from __future__ import annotations

import io
import os
import sys

from regrain.errors import RegrainError, reason

_STDOUT, _STDERR = 1, 2


class OutputError(RegrainError):
    """What a command prints cannot be written."""


class _Output(io.FileIO):
    """Standard output; what it cannot take is an error of ours.

    An OSError would be taken for one of the store by whoever works on the store while
    something is printed.
    """

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(
                "cannot write to standard output",
                why=reason(error),
                advice="What was not printed can be had by running the command again.",
            ) from error


def prepare() -> None:
    """Make the three standard streams safe to use.

    A file that is opened later must not get the number of a closed stream: what is printed
    would be written into the store.

    Raises:
        OutputError: Standard output is closed.
    """
    closed = [fd for fd in range(3) if not _is_open(fd)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None:  # what the type checker does not know: Python leaves None there
        sys.stderr = open(  # noqa: SIM115
            _STDERR, "w", encoding="utf-8", errors="backslashreplace", closefd=False
        )
    if _STDOUT in closed:
        raise OutputError(
            "standard output is closed",
            why="what the command prints would be lost",
            advice="Redirect it to /dev/null if that is wanted.",
        )
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(_STDOUT, "w", closefd=False)),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=sys.stdout.isatty(),
    )


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def give_up_stdout() -> None:
    """Send what is left in buffers nowhere, so that it is not tried again at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
