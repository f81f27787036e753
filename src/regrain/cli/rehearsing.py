"""The verb that tries it all on a copy first: rehearse."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

import click

from regrain.cli import log, output
from regrain.cli.context import Context, Stop, dry_run_option, json_option, pass_context
from regrain.cli.progress import Bar
from regrain.cli.rehearsed import brief_time, show, show_foreseen
from regrain.errors import UsageError

if TYPE_CHECKING:
    from regrain.app.circle import Stage
    from regrain.app.rehearsal import Rehearsal
    from regrain.app.survey import Foreseen
    from regrain.migrate.estimate import Estimate, Total
    from regrain.migrate.foreground import Latency
    from regrain.migrate.sample import Share
    from regrain.store.scan import Usage

EXIT_NO_GO = 5
_SAMPLE = "5%"
_SEEDS = 1_000_000


@click.command()
@click.option(
    "--sample",
    metavar="SHARE",
    default=_SAMPLE,
    show_default=True,
    help="How many packages: a share of all (10%), or a number; 3 at the least.",
)
@click.option("--seed", type=click.IntRange(0), help="Draw the same sample again.")
@click.option("--keep", is_flag=True, help="Leave the copy, beside the store, to look at.")
@click.option(
    "--scratch",
    metavar="DIR",
    default="",
    help="Make the copy in this directory, on the same file system.",
)
@dry_run_option
@json_option
@pass_context
def rehearse(
    context: Context,
    sample: str,
    *,
    seed: int | None,
    keep: bool,
    scratch: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Take copies of some packages around the full circle; say what that took, and go or no go.

    Works before init, too. Copies of a sample are migrated, verified, read from both layouts,
    switched over, cleaned up, rolled back and compared with what they were, to the last
    attribute. The store is left as it is; the copies are removed. What was measured is scaled
    to the whole store.

    Exit code 0: go. 5: no go, with the reasons; or too little space for the copies.

    Example: regrain --store /opt/pm/store rehearse --sample 10%
    """
    from regrain.app import rehearsal
    from regrain.app.survey import Wanted

    wanted = Wanted(
        _share(sample), secrets.randbelow(_SEEDS) if seed is None else seed, scratch, keep
    )
    if dry_run:
        found = rehearsal.foresee(context.path, context.settings, wanted)
        again = "" if sample == _SAMPLE else f" --sample {sample}"
        command = f"regrain rehearse{again} --seed {wanted.seed}"
        tell = _foreseen_document if as_json else show_foreseen
        tell(found, wanted.seed, command)
        return EXIT_NO_GO if found.problems else 0
    stop = Stop()
    telling = _Telling(stop, as_json=as_json)
    try:
        done = rehearsal.rehearse(
            context.path,
            context.settings,
            wanted,
            on_package=telling.package,
            on_stage=telling.stage,
            stopping=stop,
        )
    finally:
        telling.end()
    command = _next(context, done)
    if as_json:
        _document(done, wanted.seed, command)
    else:
        show(done, wanted.seed, command)
    if done.stopped:
        return stop.exit_code
    return 0 if done.is_go else EXIT_NO_GO


def _share(text: str) -> Share:
    """Return what ``5%``, ``0.5%`` or ``12`` mean.

    Raises:
        UsageError: It is neither.
    """
    from regrain.migrate.sample import Share

    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
    number = float(match[1]) if match else 0.0
    if match is not None and match[2] and 0 < number <= 100:
        return Share(part=number / 100)
    if match is not None and not match[2] and number >= 1 and number.is_integer():
        return Share(packages=int(number))
    raise UsageError(
        f"'{text}' is no sample", advice="Write a share such as 5%, or a number of packages."
    )


def _next(context: Context, done: Rehearsal) -> str:
    from regrain.cli.telling import next_command
    from regrain.errors import NotAStoreError

    if not done.is_go:
        return "regrain rehearse"
    try:
        return next_command(context)
    except NotAStoreError:
        return "regrain init"


class _Telling:
    """Tells which step it is at: a bar on a terminal, else a line for each step that is done."""

    def __init__(self, stop: Stop, *, as_json: bool) -> None:
        self._stop = stop
        self._as_json = as_json
        self._bar = Bar(total=None, hidden=as_json)
        self._packages = self._bytes = 0

    def package(self, usage: Usage) -> None:
        """Take a package that was measured."""
        self._packages += 1
        self._bytes += usage.size
        self._bar.update(f"looked at {output.count(self._packages, 'package')}", self._bytes, None)

    def stage(self, number: int, total: int, stage: str | Stage) -> None:
        """Take a step: its name before it, all of it after it."""
        if isinstance(stage, str):
            if number == 1:  # until there are copies to remove, a signal may end it at once
                self._stop.listen(
                    lambda: self._bar.say("stopping; the copies are removed", event=log.STOPPING)
                )
            self._bar.update(f"step {number} of {total}: {stage}", 0, None)
        elif self._as_json:
            output.document("status", step=number, steps=total, **_step(stage))
        else:
            self._bar.say(
                f"step {number} of {total}: {stage.name}, {brief_time(stage.seconds)}: {stage.what}"
            )

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()


# for programs


def _step(stage: Stage) -> dict[str, object]:
    return {
        "name": stage.name,
        "seconds": stage.seconds,
        "allocated_bytes": stage.allocated,
        "inodes": stage.inodes,
        "free_bytes": stage.free_bytes,
        "what": stage.what,
        "ok": stage.is_well,
    }


def _figures(total: Total) -> dict[str, int]:
    return {
        "packages": total.packages,
        "files": total.files,
        "inodes": total.inodes,
        "bytes": total.size,
        "allocated_bytes": total.allocated,
    }


def _foreseen_fields(found: Foreseen, seed: int) -> dict[str, object]:
    return {
        "seed": seed,
        "sample": _figures(found.chosen),
        "store": _figures(found.whole),
        "package_hashes": [one.package_hash for one in found.sample],
        "needed_bytes": found.needed_bytes,
        "needed_inodes": found.needed_inodes,
        "usable_bytes": found.free_bytes,
        "usable_inodes": found.free_inodes,
        "scratch": output.shown(found.place),
    }


def _latency_fields(latency: Latency) -> dict[str, object]:
    return {
        "reads": latency.reads,
        "median_seconds": latency.middle,
        "p95_seconds": latency.slow,
    }


def _estimate_fields(found: Estimate, whole: Total) -> dict[str, object]:
    return {
        "seconds": {name: list(took) for name, took in found.seconds.items()},
        "after_bytes": list(found.after_bytes),
        "saved_bytes": list(found.saved_bytes),
        "saved_share": list(found.saved_share(whole)),
        "rough": found.is_rough,
    }


def _document(done: Rehearsal, seed: int, command: str) -> None:
    course, seen = done.course, done.course.comparison
    peak = max(course.stages, key=lambda stage: stage.allocated, default=None)
    output.document(
        "summary",
        dry_run=False,
        go=done.is_go,
        stopped=done.stopped,
        problems=[output.shown(one) for one in done.problems],
        **_foreseen_fields(done.foreseen, seed),
        steps=[_step(stage) for stage in course.stages],
        peak_allocated_bytes=peak.allocated if peak else None,
        peak_inodes=max((stage.inodes for stage in course.stages), default=None),
        latency=None
        if course.latency is None
        else {
            "alone": _latency_fields(course.latency[0]),
            "while_migrating": _latency_fields(course.latency[1]),
        },
        slowdown=None if seen is None else seen.slowdown,
        estimate=None
        if done.estimate is None
        else _estimate_fields(done.estimate, done.foreseen.whole),
        kept=output.shown(done.kept),
        swept=[output.shown(name) for name in done.swept],
        next_command=command,
    )


def _foreseen_document(found: Foreseen, seed: int, command: str) -> None:
    output.document(
        "summary",
        dry_run=True,
        problems=[output.shown(one) for one in found.problems],
        **_foreseen_fields(found, seed),
        next_command=command,
    )
