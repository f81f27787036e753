"""How packages are parted into tasks for workers, and slices become packages again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regrain.migrate import pool
from regrain.migrate.jobs import PackageResult, Slice, SliceResult
from regrain.migrate.orders import Large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from regrain.ledger import Claim

    Task = tuple[Callable[..., Any], tuple[Any, ...]]

UNIT_FILES = 1500
UNIT_BYTES = 128 << 20
"""Small packages are put together into units of work of about so many files or bytes."""


class Parts:
    """Parts packages, and remembers the large ones until all their slices are there."""

    def __init__(self) -> None:
        self._large: dict[str, Large] = {}

    def tasks(self, claims: Iterable[Claim]) -> Iterator[Task]:
        """Yield what workers are to do to bring these packages in."""
        unit: list[str] = []
        files = size = 0
        for claim in claims:
            if claim.cuts:
                yield from self._slice(claim)
                continue
            unit.append(claim.package_hash)
            files, size = files + claim.files, size + claim.size
            if files >= UNIT_FILES or size >= UNIT_BYTES:
                yield pool.bring_in, (unit,)
                unit, files, size = [], 0, 0
        if unit:
            yield pool.bring_in, (unit,)

    def _slice(self, claim: Claim) -> Iterator[Task]:
        """Part a large package; its slices cover all paths, whatever it holds by now."""
        name = claim.package_hash
        bounds = zip((b"", *claim.cuts), (*claim.cuts, None), strict=True)
        slices = [Slice(name, number, *bound) for number, bound in enumerate(bounds)]
        self._large[name] = Large(slices, len(slices))
        for piece in slices:
            yield pool.bring_in_slice, (piece,)

    def take(self, result: SliceResult) -> Task | PackageResult | None:
        """Take a slice; with the last one return what is to be done, or why there is nothing."""
        name = result.piece.package_hash
        large = self._large[name]
        if result.wanted:
            large.wanted.append(result.wanted)
        if result.to_copy:
            large.to_copy.append(result.to_copy)
        large.failure = large.failure or result.failure
        large.waiting -= 1
        if large.waiting:
            return None
        if large.failure is None:
            return pool.finish, (name, large.slices)
        del self._large[name]
        return PackageResult(name, failure=large.failure)

    def whole(self, result: PackageResult) -> PackageResult:
        """Return what became of a package whose slices were finished, with all they wanted."""
        large = self._large.pop(result.package_hash)
        result.wanted.extend(large.wanted)
        result.to_copy.extend(large.to_copy)
        return result

    def clear(self) -> None:
        """Forget all."""
        self._large.clear()
