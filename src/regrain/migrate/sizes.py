"""How many files of each size there are, and how far they are spread: what a sample is drawn from.

A store may have millions of files, but no more sizes than files, and a size takes a few tens of
bytes here: so plans are made in little memory, and which files are in a sample is only looked up
when it is known of which sizes they are.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ONE_PACKAGE, ONE_FAMILY, SEVERAL = range(3)
"""Where the files of one size lie."""


class Sizes:
    """Files counted by their size; sizes are numbered as they are met.

    Attributes:
        size: Of each number, the size.
        files: How many files are of it.
        allocated: What they take on disk.
        spread: Whether they lie in one package, one family of packages, or several families.
    """

    def __init__(self) -> None:
        self.size = array("Q")
        self.files = array("Q")
        self.allocated = array("Q")
        self.spread = array("B")
        self._numbers: dict[int, int] = {}
        self._first_package = array("L")
        self._families: dict[str, int] = {}
        self._family_of = array("L")

    def __len__(self) -> int:
        """Return how many sizes there are."""
        return len(self.size)

    def add(self, family: str, found: Sequence[int]) -> None:
        """Count the files of one more package.

        Args:
            family: What releases of one thing have in common.
            found: Size and bytes on disk of each of its files, in turn.
        """
        package = len(self._family_of)
        self._family_of.append(self._families.setdefault(family, len(self._families)))
        for size, allocated in zip(found[::2], found[1::2], strict=True):
            number = self._numbers.setdefault(size, len(self.size))
            if number == len(self.size):
                self._begin(size, package)
            self.files[number] += 1
            self.allocated[number] += allocated
            first = self._first_package[number]
            if first != package:
                is_one = self._family_of[first] == self._family_of[package]
                spread = ONE_FAMILY if is_one else SEVERAL
                self.spread[number] = max(self.spread[number], spread)

    def _begin(self, size: int, package: int) -> None:
        self.size.append(size)
        self.files.append(0)
        self.allocated.append(0)
        self.spread.append(ONE_PACKAGE)
        self._first_package.append(package)
