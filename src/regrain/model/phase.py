"""The phases of a store, where each reads, and the legal moves."""

from __future__ import annotations

from enum import StrEnum


class Layout(StrEnum):
    """One of the two ways a package may lie in a store."""

    FILE_LEVEL = "file_level"
    LEGACY = "legacy"


class Phase(StrEnum):
    """The only word on where reads go; it stands in ``store.toml``."""

    DUAL = "dual"
    FILE_LEVEL = "file_level"
    CLEAN = "clean"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"

    @property
    def label(self) -> str:
        """What people are shown."""
        return "legacy removed" if self is Phase.CLEAN else self.value.replace("_", " ")

    @property
    def read_order(self) -> tuple[Layout, ...]:
        """The layouts to look in, the first that has the package wins."""
        if self is Phase.ROLLED_BACK:
            return (Layout.LEGACY,)
        return (Layout.FILE_LEVEL, Layout.LEGACY)


NEXT: dict[Phase, frozenset[Phase]] = {
    Phase.DUAL: frozenset({Phase.FILE_LEVEL, Phase.ROLLING_BACK}),
    Phase.FILE_LEVEL: frozenset({Phase.CLEAN, Phase.ROLLING_BACK}),
    Phase.CLEAN: frozenset({Phase.ROLLING_BACK}),
    Phase.ROLLING_BACK: frozenset({Phase.ROLLED_BACK}),
    Phase.ROLLED_BACK: frozenset({Phase.DUAL}),
}
"""The phases that may follow each phase."""
