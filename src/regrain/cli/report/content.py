"""What stands in a report, section by section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.cli import output
from regrain.cli.report import foretold
from regrain.cli.report.history import course_sections, timeline
from regrain.cli.report.parts import Bar, Bars, Section, Table
from regrain.model.status import Status
from regrain.model.wording import moment, percent, visible

if TYPE_CHECKING:
    from regrain.app.reporting import Report
    from regrain.ledger.recounting import Told

_BARS_MAX = 12


def title(report: Report) -> str:
    """Return the heading of the whole."""
    return f"Migration report of {visible(report.store)}"


def made(report: Report) -> str:
    """Return when and by what it was made."""
    return f"Made {moment(report.made_at)} UTC by regrain {report.version}."


def sections(report: Report) -> list[Section]:
    """Return all of it, in order."""
    return [
        _summary(report),
        timeline(report),
        _space(report),
        _by_package(report),
        _by_kind(report),
        _slowest(report),
        _failures(report),
        *course_sections(report),
        _checks(report),
        _about(report),
    ]


def _summary(report: Report) -> Section:
    totals = report.state.totals
    issues = report.health.issues
    facts = [
        ("phase", report.phase.label),
        ("migrated", f"{totals.count(Status.COMPLETED):,} of {totals.packages:,} packages"),
        ("saved", f"{output.size(totals.saved)} ({percent(totals.saved, report.tale.allocated)})"),
        *_all_counted(report),
        ("failed", output.count(totals.count(Status.FAILED), "package")),
        ("health", report.health.status),
    ]
    text = [f"Next: {report.figures['next_command']}"]
    text += [f"Running now: {visible(report.state.running)}."] if report.state.running else []
    text += [f"Health: {visible(issue)}." for issue in issues]
    return Section("summary", "Summary", text, facts)


def _all_counted(report: Report) -> list[tuple[str, str]]:
    """Return the share that is saved when all that regrain itself takes is counted."""
    share = None if report.space is None else report.space.saved_share
    return [] if share is None else [("saved, overhead counted", f"{share:.1%}")]


def _measured(report: Report) -> list[Table]:
    space = report.space
    if space is None:
        return []
    rows = [
        ("before: legacy directories, and packages that had none", space.before),
        ("now: all that lies in the store", space.now),
        ("after a cleanup of what is migrated", space.after),
        (
            "of these, what regrain itself takes (lists, ledger, logs)",
            space.overhead,
        ),
    ]
    return [
        Table(
            "The whole store, measured",
            ("what", "on disk", "in bytes"),
            [(name, output.size(size), f"{size:,}") for name, size in rows],
            frozenset({1, 2}),
        )
    ]


def _space(report: Report) -> Section:
    totals, freed = report.state.totals, report.state.matters.freed
    done = report.tale.allocated
    rows = [
        ("all legacy directories, before any was removed", totals.allocated),
        ("those of migrated packages", done),
        ("what these packages added to the store", done - totals.saved),
        ("saved on balance once their legacy directories are gone", totals.saved),
        ("freed so far by removing legacy directories", freed),
        ("objects in the store", totals.carriers_allocated),
        ("what a rollback would take now, at the most", report.state.matters.undo_bytes),
    ]
    table = Table(
        "Bytes on disk",
        ("what", "on disk", "in bytes"),
        [(name, output.size(size), f"{size:,}") for name, size in rows],
        frozenset({1, 2}),
    )
    text = [
        (
            "Bytes on disk, each inode once. A legacy file that an object shares its inode with "
            "counts as legacy until its directory goes; file lists count with their packages."
        ),
        (
            f"{totals.deduplicated:,} of {totals.files_done:,} migrated files share an object that "
            "was there before them."
        ),
    ]
    bars = Bars(
        "Migrated packages, before and after",
        [
            Bar(
                "migrated packages",
                done,
                max(0, done - totals.saved),
                f"{output.size(done)} before, {output.size(done - totals.saved)} after cleanup",
            )
        ],
        "before",
        "after",
    )
    tables = [*_measured(report), table, *foretold.tables(report.figures)]
    return Section("space", "Space", text, plots=[bars] if done else [], tables=tables)


def _by_package(report: Report) -> Section:
    tale = report.tale
    bars = Bars(
        "Names whose packages save most, before and after",
        [
            Bar(
                visible(family.name) or "(no name)",
                family.allocated,
                max(0, family.allocated - family.saved),
                (
                    f"{output.size(family.saved)} of {output.size(family.allocated)} saved "
                    f"({percent(family.saved, family.allocated)})"
                ),
            )
            for family in tale.families[:_BARS_MAX]
        ],
        "before",
        "after",
    )
    names = Table(
        f"Names whose packages save most (at the most {tale.rows_max})",
        ("name", "packages", "before", "added", "saved", "share"),
        [
            (
                visible(family.name) or "(no name)",
                f"{family.packages:,}",
                output.size(family.allocated),
                output.size(family.added),
                output.size(family.saved),
                percent(family.saved, family.allocated),
            )
            for family in tale.families
        ],
        frozenset(range(1, 6)),
        "No package was migrated yet.",
    )
    packages = Table(
        f"Packages that save most (at the most {tale.rows_max})",
        ("package", "hash", "files", "before", "added", "saved", "share"),
        [
            (
                _name(one),
                visible(one.package_hash[:12]),
                f"{one.files:,}",
                output.size(one.allocated),
                output.size(one.added or 0),
                output.size(one.saved or 0),
                percent(one.saved or 0, one.allocated),
            )
            for one in tale.saving
        ],
        frozenset(range(2, 7)),
        "No package was migrated yet.",
    )
    text = [
        (
            "The first package that brings a content pays for it; those that come later and share"
            " it save. So a single package says little; all packages of a name say more."
        ),
    ]
    plots = [bars] if bars.rows else []
    return Section("packages", "Savings by package", text, plots=plots, tables=[names, packages])


def _by_kind(report: Report) -> Section:
    kinds = report.kinds
    table = Table(
        "Kinds of files",
        ("kind", "files", "bytes", "before", "contents", "after", "saved"),
        [
            (
                row.name,
                f"{row.files:,}",
                output.size(row.size),
                output.size(row.before),
                f"{row.contents:,}",
                output.size(row.after),
                percent(row.before - row.after, row.before),
            )
            for row in kinds.rows
        ],
        frozenset(range(1, 7)),
        "No package is published.",
    )
    bars = Bars(
        "Kinds of files, before and after",
        [
            Bar(
                row.name,
                row.before,
                row.after,
                f"{output.size(row.before)} before, {output.size(row.after)} after",
            )
            for row in sorted(kinds.rows, key=lambda row: -row.before)
        ],
        "before",
        "after",
    )
    text = [
        (
            "By name and mode. Before: sizes in whole blocks, as legacy directories hold them. "
            "After: what the objects take. A content that files of several kinds have counts for "
            "the first."
        ),
    ]
    if kinds.packages + kinds.unreadable < kinds.published:
        text.append(
            f"{kinds.packages:,} of {kinds.published:,} packages were looked at, chosen at "
            "random. What they share with others does not show, so the store saves more."
        )
    if kinds.unreadable:
        text.append(
            f"The file lists of {output.count(kinds.unreadable, 'package')} could not be read; "
            "'regrain verify' says why."
        )
    plots = [bars] if bars.rows else []
    return Section("kinds", "Savings by kind of file", text, plots=plots, tables=[table])


def _slowest(report: Report) -> Section:
    rows = report.tale.slowest
    table = Table(
        f"Packages that took longest (at the most {report.tale.rows_max})",
        ("package", "hash", "took", "files", "bytes", "attempts", "recorded at (UTC)"),
        [
            (
                _name(one),
                visible(one.package_hash[:12]),
                output.duration(_took(one)),
                f"{one.files:,}",
                output.size(one.size),
                str(one.attempts),
                moment(one.completed_at),
            )
            for one in rows
        ],
        frozenset({2, 3, 4, 5}),
        "No package was migrated yet.",
    )
    text = [
        (
            "From the moment a package was taken until it was recorded, in whole seconds. Packages "
            "are recorded by batches, so that small ones wait for others of theirs."
        ),
    ]
    return Section("slowest", "Slowest packages", text, tables=[table])


def _took(one: Told) -> int:
    return max(0, (one.completed_at or 0) - (one.started_at or 0))


def _failures(report: Report) -> Section:
    failed = report.state.totals.count(Status.FAILED)
    packages = Table(
        "Failed packages"
        + (f" (the first {report.tale.rows_max} of {failed:,})" * (failed > report.tale.rows_max)),
        ("package", "hash", "why", "where", "at (UTC)"),
        [
            (
                _name(one),
                visible(one.package_hash[:12]),
                visible(one.error),
                "" if one.error_path is None else visible(one.error_path),
                moment(one.completed_at),
            )
            for one in report.tale.failed
        ],
    )
    concerns = Table(
        "What stands against packages",
        ("hash", "what", "found at (UTC)"),
        [
            (visible(name[:12]), visible(concern.what), moment(concern.found_at))
            for name, concern in list(report.state.matters.concerns.items())[: report.tale.rows_max]
        ],
    )
    text = []
    if failed:
        text.append("'regrain why HASH' says what to do; 'regrain migrate --retry-failed' retries.")
    return Section("failures", "Failures", text, tables=[packages, concerns])


def _checks(report: Report) -> Section:
    tale, matters = report.tale, report.state.matters
    proven = "found nothing" if matters.is_proven else "not since a package was last migrated"
    backup = "never made by regrain" if matters.backup is None else matters.backup.event
    marked = "never" if matters.marked_at is None else moment(matters.marked_at)
    found = len(matters.concerns)
    rows = [
        (
            "published packages compared with their source",
            f"{tale.verified:,} of {tale.completed:,}, the last at {moment(tale.verified_at)}",
        ),
        ("deep verification of the whole store", proven),
        ("packages something stands against", f"{found:,}"),
        ("damaged things moved to quarantine by runs", f"{_quarantined(report):,}"),
        ("backup", visible(backup.replace("_", " "))),
        ("backup marked", marked),
        ("a backup covers every package", "yes" if matters.is_backed_up else "not as far as known"),
        ("health", report.health.status),
    ]
    rules = Table(
        "Rules of health that do not hold",
        ("rule", "severity", "why", "what to do"),
        [
            (issue.rule, issue.severity, visible(issue.reason), visible(issue.advice))
            for issue in report.health.details
        ],
        empty="All hold.",
    )
    return Section(
        "checks",
        "Checks and their results",
        tables=[Table("Checks", ("check", "result"), rows), rules],
    )


def _quarantined(report: Report) -> int:
    return sum(run.events["ObjectDamaged"] for run in report.chronicle.runs)


def _about(report: Report) -> Section:
    chronicle = report.chronicle
    text = [
        (
            "From the ledger: packages, space, what was done. From the logs: runs, what held them "
            "back, how long readers waited. From file lists: kinds of files. Times are UTC."
        ),
    ]
    if not chronicle.runs:
        text.append("There are no logs.")
    if chronicle.unreadable:
        text.append(f"{output.count(chronicle.unreadable, 'line')} of the logs cannot be read.")
    if chronicle.left_out:
        text.append(f"{output.size(chronicle.left_out)} of older logs were left out.")
    if report.tale.steps_before:
        text.append(f"Left out: {output.count(report.tale.steps_before, 'earlier step')}.")
    return Section("about", "About this report", text)


def _name(one: Told) -> str:
    return visible(f"{one.name} {one.version}".strip()) or "(no name)"
