"""The verb that lets others watch: serve."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import click

from regrain.cli import log, output
from regrain.cli.context import Context, pass_context
from regrain.errors import RegrainError

if TYPE_CHECKING:
    from types import FrameType

    from regrain.app.browsing import Browser
    from regrain.app.observing import Observer


@click.command()
@click.option(
    "--listen",
    "place",
    metavar="HOST:PORT",
    default="127.0.0.1:9470",
    show_default=True,
    help="Where to answer; port 0 takes a free one.",
)
@click.option(
    "--allow-host",
    "names",
    metavar="NAME",
    multiple=True,
    help="Answer requests for this host name, too, such as a proxy's; may be repeated.",
)
@click.option("--once", is_flag=True, help="Print the metrics once, and end; nothing is served.")
@pass_context
def serve(context: Context, place: str, *, names: tuple[str, ...], once: bool) -> None:
    """Let people and programs watch the store over HTTP, read-only, until SIGINT or SIGTERM.

    / is a page for people that follows the store as it changes, /metrics is for Prometheus,
    /healthz for probes (503 where health is critical), /api/status is `status --json`. Nothing is
    written to the store. With --once nothing but the metrics is printed, for a collector of text
    files.

    Example: regrain --store /opt/pm/store serve --listen 127.0.0.1:9470
    """
    from regrain.app.browsing import Browser
    from regrain.app.observing import Observer

    observer = Observer(context.store.path, context.settings)
    if once:
        _print_metrics(observer)
    else:
        _serve(observer, Browser(context.store.path), place, names)


def _print_metrics(observer: Observer) -> None:
    from regrain.web.exposition import render
    from regrain.web.metrics import families

    click.echo(render(families(observer.look())), nl=False)


def _serve(observer: Observer, browser: Browser, place: str, names: tuple[str, ...]) -> None:
    try:
        from regrain.web.serving import address_of, listen, serve
    except ImportError as error:
        raise RegrainError(
            "the server is not installed",
            why=str(error),
            advice="Install regrain[web]; 'regrain serve --once' needs nothing more.",
        ) from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    listening = listen(place)
    address = address_of(listening)
    output.note(f"serving {address}/ (a page), {address}/metrics, /healthz and /api/status")
    serve(observer, browser, listening, names, partial(output.note, level="error", event=log.ERROR))


def _end(number: int, _: FrameType | None) -> None:
    """End at once: there is nothing to put in order.

    A server that runs takes the signal itself, and passes it on when the last answer is given.
    """
    os._exit(128 + number)
