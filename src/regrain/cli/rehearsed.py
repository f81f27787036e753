"""What a rehearsal would take, and what it found, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output

if TYPE_CHECKING:
    from regrain.app.circle import Course
    from regrain.app.rehearsal import Rehearsal
    from regrain.app.survey import Foreseen
    from regrain.migrate.estimate import Estimate, Range, Total


def show_foreseen(found: Foreseen, seed: int, command: str) -> None:
    """Say what a rehearsal would take."""
    click.echo(f"would rehearse with {_sample(found, seed)}")
    inodes = "" if found.free_inodes is None else f" and {output.count(found.free_inodes, 'inode')}"
    output.pairs(
        [
            ("in", output.shown(found.place)),
            (
                "needs at most",
                (
                    f"{output.size(found.needed_bytes)} and "
                    f"{output.count(found.needed_inodes, 'inode')}"
                ),
            ),
            ("can use", f"{output.size(found.free_bytes)}{inodes}"),
        ]
    )
    _problems("speaks against a migration", found.problems)
    click.echo(f"\nNext: {command}")


def _sample(found: Foreseen, seed: int) -> str:
    chosen, whole = found.chosen, found.whole
    share = chosen.size / whole.size if whole.size else 1.0
    return (
        f"{chosen.packages:,} of {output.count(whole.packages, 'package')}, "
        f"{output.size(chosen.size)} of "
        f"{output.size(whole.size)} ({share:.0%}); seed {seed}"
    )


def show(done: Rehearsal, seed: int, command: str) -> None:
    """Say what a rehearsal found."""
    click.echo(f"rehearsed with {_sample(done.foreseen, seed)}\n")
    _show_stages(done.course)
    _show_readers(done.course)
    if done.estimate is not None:
        _show_estimate(done.estimate, done.foreseen.whole)
    for name in done.swept:
        click.echo(f"\nremoved what a rehearsal that was killed had left: {output.shown(name)}")
    if done.kept:
        click.echo(f"\nthe copy is kept: {output.shown(done.kept)}")
    if done.stopped:
        click.echo("\nstopped; no verdict")
    elif done.is_go:
        click.echo("\ngo: every package came back as it was, and nothing speaks against it")
    else:
        _problems("no go", done.problems)
    click.echo(f"\nNext: {command}")


def _show_stages(course: Course) -> None:
    output.table(
        ("step", "took", "on disk", "inodes", ""),
        (
            (
                stage.name,
                brief_time(stage.seconds),
                output.size(stage.allocated),
                f"{stage.inodes:,}",
                stage.what,
            )
            for stage in course.stages
        ),
    )
    if course.stages:
        first, last = course.stages[0], course.stages[-1]
        peak = max(stage.allocated for stage in course.stages)
        click.echo(
            f"\non disk: {output.size(first.allocated)} before, {output.size(peak)} at the most "
            f"after a step, {output.size(last.allocated)} at the end"
        )


def _show_readers(course: Course) -> None:
    if course.latency is not None and course.latency[0].middle:
        alone, beside = course.latency
        click.echo(
            f"a reader: {brief_time(alone.middle)} a read when alone, "
            f"{brief_time(beside.middle)} beside the migration "
            f"({beside.middle / alone.middle:.1f} times as long; one in twenty took over "
            f"{brief_time(beside.slow)}; {beside.reads:,} reads)"
        )
    seen = course.comparison
    if seen is not None and seen.files:
        click.echo(
            f"reading from the file level takes {seen.slowdown:.2f} times as long as from legacy"
        )


def _show_estimate(found: Estimate, whole: Total) -> None:
    click.echo(
        f"\nscaled to all {output.count(whole.packages, 'package')}, "
        f"{output.size(whole.allocated)} on disk:"
    )
    for name in ("init", "migrate", "verify deep", "cutover", "cleanup", "rollback"):
        if name in found.seconds:
            click.echo(f"  {name:<12} {_between(found.seconds[name])}")
    share = found.saved_share(whole)
    click.echo(
        f"  {'disk':<12} {_sizes(found.after_bytes)} without legacy directories, "
        f"{_balance(found.saved_bytes, share)}"
    )
    if _shares(share) != _shares(share._replace(high=share.low)):
        click.echo(
            "  From what is saved if other packages share no more than these, to what is saved if\n"
            "  all releases of a family share as these do, give or take a family of the sample."
        )
    if found.is_rough:
        click.echo("  The times are rough: so small a sample is mostly starting and ending.")


def _between(seconds: Range) -> str:
    low, high = output.duration(seconds.low), output.duration(seconds.high)
    return low if low == high else f"{low} to {high}"


def _sizes(count: Range) -> str:
    low, high = output.size(count.low), output.size(count.high)
    return low if low == high else f"{low} to {high}"


def _balance(saved: Range, share: Range) -> str:
    if saved.high < 0:  # nothing is shared, or no legacy directory is there any more
        more = saved._replace(low=-saved.high, high=-saved.low)
        part = share._replace(low=-share.high, high=-share.low)
        return f"{_sizes(more)} more than now ({_shares(part)})"
    return f"{_sizes(saved)} less than now ({_shares(share)})"


def _shares(share: Range) -> str:
    low, high = f"{share.low:.0%}", f"{share.high:.0%}"
    return low if low == high else f"{low} to {high}"


def _problems(title: str, problems: list[str]) -> None:
    if problems:
        click.echo(f"\n{title}:")
    for problem in problems:
        click.echo(f"  {output.shown(problem)}")


def brief_time(seconds: float) -> str:
    """Return a short time as people read it."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else output.duration(seconds)
