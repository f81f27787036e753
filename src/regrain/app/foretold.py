"""A prediction that is kept in the store, and what came of it beside it."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import msgspec

from regrain import disk
from regrain.model import clock, layout
from regrain.model.status import Status

if TYPE_CHECKING:
    from regrain.app.prediction import Prediction
    from regrain.ledger import Totals
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

FILE = "prediction.json"
_BYTES_MAX = 1 << 20


class _Choice(msgspec.Struct, frozen=True):
    ingest: str
    compression: str
    saved_bytes: int
    saved_bytes_low: int
    saved_bytes_high: int
    seconds: tuple[float, float]


class Record(msgspec.Struct, frozen=True):
    """A prediction as it is kept."""

    at: int
    packages: int
    allocated_bytes: int
    ingest: str
    choices: list[_Choice]


def keep(root: StoreRoot, found: Prediction) -> None:
    """Write a prediction into the store, for ``status`` to show it beside the outcome.

    Nothing depends on it: where it cannot be written, there is none.
    """
    content = Record(
        clock.now(),
        found.plan.packages,
        found.plan.allocated,
        found.chosen.ingest,
        [
            _Choice(
                one.ingest,
                one.compression,
                round(one.saved.value),
                math.floor(one.saved.value - one.saved.margin),
                math.ceil(one.saved.value + one.saved.margin),
                one.seconds,
            )
            for one in found.choices
        ],
    )
    with (
        contextlib.suppress(OSError),
        disk.Closing(disk.open_directory(layout.MIGRATION, root.fd)) as migration,
    ):
        disk.write_snapshot(FILE, msgspec.json.encode(content) + b"\n", migration)


def beside_outcome(root: StoreRoot, totals: Totals, settings: Settings) -> dict[str, object] | None:
    """Return what was predicted, and beside it what came of it; None where nothing was kept.

    The outcome is null until all the packages that were predicted, and no others, are migrated.
    """
    try:
        with disk.Closing(disk.open_directory(layout.MIGRATION, root.fd)) as migration:
            kept = msgspec.json.decode(disk.read_all(FILE, migration, _BYTES_MAX), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    wanted = (kept.ingest, settings.store.compression)
    for one in kept.choices:
        if (one.ingest, one.compression) == wanted:
            break
    else:
        return None
    is_done = totals.count(Status.COMPLETED) == totals.packages == kept.packages
    return {
        "made_at": kept.at,
        "packages": kept.packages,
        "allocated_bytes": kept.allocated_bytes,
        "ingest": one.ingest,
        "compression": one.compression,
        "saved_bytes": one.saved_bytes,
        "saved_bytes_low": one.saved_bytes_low,
        "saved_bytes_high": one.saved_bytes_high,
        "seconds": list(one.seconds),
        "outcome_saved_bytes": totals.saved if is_done else None,
        "within_margin": one.saved_bytes_low <= totals.saved <= one.saved_bytes_high
        if is_done
        else None,
    }
