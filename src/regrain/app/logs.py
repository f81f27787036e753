"""How large the logs of runs may become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.migrate.logbook import Limits

if TYPE_CHECKING:
    from regrain.settings import Settings


def limits_of(settings: Settings) -> Limits:
    """Return what the settings say of it."""
    return Limits(settings.migration.log_file_bytes, settings.migration.log_total_bytes)
