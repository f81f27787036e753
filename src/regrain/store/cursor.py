"""Stand in one directory of a tree after the other, by descriptors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regrain import disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self


OPEN_MAX = 64
"""Directories kept open: a path may have more levels than a process may have files open."""


def _enter(name: bytes, at: int, path: bytes) -> int:  # noqa: ARG001 -- others need the path
    return disk.open_directory(name, at)


class Cursor:
    """Keeps the directories open that lead to where it stands.

    Whoever asks for paths in the order of a walk opens each directory about once.

    Args:
        root: The open directory that all paths are below; it stays the caller's.
    """

    def __init__(self, root: int) -> None:
        self._open: list[tuple[bytes, int]] = [(b"", root)]

    def __enter__(self) -> Self:
        """Return the cursor."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what it opened."""
        self.close()

    def close(self) -> None:
        """Close what it opened."""
        while len(self._open) > 1:
            os.close(self._open.pop()[1])

    def at(self, path: bytes, enter: Callable[[bytes, int, bytes], int] = _enter) -> int:
        """Return the open directory ``path`` (``b""``: the root); valid until the next call.

        Args:
            path: Where to go.
            enter: Opens one directory, given its name, the open directory it is in, and its
                path.

        Raises:
            OSError: A component is missing, or is no directory.
        """
        while not _is_within(path, self._open[-1][0]):
            os.close(self._open.pop()[1])
        here, fd = self._open[-1]
        rest = path[len(here) :].strip(b"/")
        for name in rest.split(b"/") if rest else ():
            here = here + b"/" + name if here else name
            fd = enter(name, fd, here)
            self._open.append((here, fd))
            if len(self._open) > OPEN_MAX:
                os.close(self._open.pop(1)[1])
        return fd


def _is_within(path: bytes, directory: bytes) -> bool:
    return not directory or path == directory or path.startswith(directory + b"/")
