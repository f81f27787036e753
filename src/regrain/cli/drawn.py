"""The bar that is drawn on a terminal. Loading what draws it takes a while: only where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Task


class _Pace(TransferSpeedColumn):
    """How fast it goes, as the command says; where it does not, as the bar sees it."""

    def render(self, task: Task) -> Text:
        """Return the words."""
        told = task.fields["pace"]
        return super().render(task) if told is None else Text(told, style="progress.data.speed")


def make_bar() -> Progress:
    """Return a bar as wide as the terminal; where that is narrow, words are cut off."""
    words = Column(no_wrap=True, overflow="ellipsis", ratio=2)
    return Progress(
        TextColumn("{task.description}", table_column=words, markup=False),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
        DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
        _Pace(table_column=Column(no_wrap=True)),
        console=Console(stderr=True),
        transient=True,
        expand=True,
    )
