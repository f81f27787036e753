"""How ``status`` tells what a store takes on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.app.space import Space


def lines_of(space: Space | None) -> Iterator[tuple[str, str]]:
    """Yield names and values."""
    if space is None:
        yield "on disk", "not measured, since that takes a while; --space does it"
        return
    size = output.size
    share = space.saved_share
    saved = "" if share is None else f" ({abs(share):.1%} {'saved' if share >= 0 else 'more'})"
    yield (
        "on disk",
        (
            f"{size(space.before)} before; {size(space.now)} now; {size(space.after)} without the "
            f"legacy directories of migrated packages{saved}"
        ),
    )
    yield (
        "of that",
        (
            f"{size(space.objects)} objects, {size(space.overhead)} regrain's own "
            f"({size(space.file_lists)} file lists, {size(space.directories)} directories, "
            f"{size(space.ledger)} ledger)"
        ),
    )
    ratios = [
        f"{ratio:.2f} times by {what}"
        for ratio, what in (
            (space.dedup_ratio, "sharing"),
            (space.compression_ratio, "compression, what lies compressed"),
        )
        if ratio is not None
    ]
    if ratios:
        yield "smaller", ", ".join(ratios)
    if space.unread:
        yield "unseen", f"{output.count(space.unread, 'name')} this user may not look at"
