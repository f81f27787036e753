"""What every command shares: where the store is, how it is configured, common options."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from functools import cached_property
from typing import TYPE_CHECKING

import click

from regrain.app.database import use_database
from regrain.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from regrain.app.store import PackageStore
    from regrain.settings import Settings

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run_option = click.option(
    "-n", "--dry-run", is_flag=True, help="Say what would be done; change nothing."
)


def _known(_: click.Context, __: click.Parameter, word: str | None) -> str | None:
    """Refuse a word that names no engine, also where nothing is to be done."""
    if word is not None:
        from regrain.store.engines import check_word

        check_word(word)
    return word


executor_option = click.option(
    "--executor",
    callback=_known,
    metavar="local|dask:ADDRESS|mpi",
    help="Who has the workers: this host, a Dask scheduler, or MPI.",
)


class NotNegative(click.FloatRange):
    """A number from 0 on; ``nan``, which compares with nothing, is none."""

    def __init__(self) -> None:
        super().__init__(0)

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number that was given; click hands over its text."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Context:
    """The global options, and what follows from them."""

    def __init__(self, path: str | None, config: str | None, verbosity: int) -> None:
        self._path = path
        self._config = config
        self.verbosity = verbosity

    @cached_property
    def settings(self) -> Settings:
        """The settings, checked."""
        from regrain.settings import load

        return load(self._config, os.environ)

    @property
    def path(self) -> str:
        """Where the store is.

        Raises:
            UsageError: Nothing says it.
        """
        path = self.settings.store.path if self._path is None else self._path
        if not path:
            raise UsageError(
                "no store was named",
                advice="Use --store PATH, or set path under [store] in the configuration.",
            )
        with contextlib.suppress(ConfigurationError):  # told by who needs the settings
            use_database(path, self.settings)
        return path

    @cached_property
    def store(self) -> PackageStore:
        """The store, open."""
        from regrain.app.store import PackageStore

        settings = self.settings
        return PackageStore.open(self.path, settings)


pass_context = click.make_pass_decorator(Context)


class Stop:
    """Turns SIGINT and SIGTERM into a request to stop; a second one ends at once."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        """Tell whether a stop was asked for."""
        return self.number != 0

    def listen(self, on_first: Callable[[], None]) -> None:
        """Handle signals from now on."""

        def handle(number: int, _: FrameType | None) -> None:
            if self.number:
                os._exit(128 + number)
            self.number = number
            on_first()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handle)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return 128 + self.number
