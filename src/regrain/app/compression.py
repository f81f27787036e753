"""What the settings say of compression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.store.frames import Compression

if TYPE_CHECKING:
    from regrain.settings import Settings


def compression_of(settings: Settings) -> Compression:
    """Return how objects are compressed, where they are."""
    return Compression(settings.store.compression_level, settings.store.compression_min_saving)


def ingest_compression(settings: Settings) -> Compression | None:
    """Return how objects are compressed on their way in; None where they are not."""
    return compression_of(settings) if settings.store.compression == "zstd" else None
