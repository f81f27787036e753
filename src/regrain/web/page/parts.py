"""The parts of the page that change, each by itself: phase, progress, gate, health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain.app.readiness import readiness
from regrain.model.phase import Phase
from regrain.model.status import Status
from regrain.model.wording import count, duration, moment, size
from regrain.web.page.markup import Html, join, tag

if TYPE_CHECKING:
    from regrain.app.observing import Overview
    from regrain.errors import RegrainError

_FORTH = (
    (Phase.DUAL, "both layouts, migrating"),
    (Phase.FILE_LEVEL, "reads go to the file level"),
    (Phase.CLEAN, "legacy directories gone"),
)
_BACK = (
    (Phase.ROLLING_BACK, "legacy directories rebuilt"),
    (Phase.ROLLED_BACK, "reads go to legacy directories"),
)
_SIGNS = {True: "met", False: "open", None: "later"}
_SIGN_WORDS = {"met": "met", "open": "not yet", "later": "asked by the cutover"}
_PASSED = {
    Phase.FILE_LEVEL: "The gate was passed: reads go to the file level.",
    Phase.CLEAN: "The gate was passed, and the legacy directories are gone.",
    Phase.ROLLING_BACK: "A rollback is on its way; the gate is for later.",
    Phase.ROLLED_BACK: "Rolled back. 'regrain migrate' goes forward again.",
}


def trouble(error: RegrainError | None) -> Html:
    """Return why nothing can be seen."""
    if error is None:
        return Html("")
    return tag(
        "div",
        tag("h2", "The store cannot be looked at"),
        tag("p", str(error)),
        tag("p", "The page goes on by itself once that is mended.", class_="soft"),
        class_="banner critical",
    )


def phase(seen: Overview) -> Html:
    """Return the way of a store, and where on it this one is."""
    now = seen.state.phase
    is_back = now in {Phase.ROLLING_BACK, Phase.ROLLED_BACK}
    way = _BACK if is_back else _FORTH
    place = [step for step, _ in way].index(now)
    steps = [
        tag(
            "li",
            tag("span", str(number), class_="dot", aria_hidden="true"),
            tag("span", tag("b", step.label), tag("span", note, class_="note"), class_="step"),
            class_="done" if number <= place else "now" if number == place + 1 else None,
            aria_current="step" if step is now else None,
        )
        for number, (step, note) in enumerate(way, 1)
    ]
    return tag("ol", *steps, class_="phases")


def progress(seen: Overview) -> Html:
    """Return how far it is."""
    figures, state = seen.figures, seen.state
    done, total = whole(figures, "bytes_done"), whole(figures, "bytes_total")
    packages, migrated = whole(figures, "total_packages"), whole(figures, "migrated_packages")
    share = done / total if total else float(bool(packages))
    rate, failed = figures["rate_bytes_per_second"], state.totals.count(Status.FAILED)
    bar = tag(
        "progress",
        f"{share:.0%}",
        value=f"{share:.4f}",
        max="1",
        class_="held" if figures["throttled"] else None,
        aria_label="bytes migrated",
    )
    return join(
        tag(
            "p",
            tag("span", _percent(share), class_="percent"),
            tag("span", f"{migrated:,} of {count(packages, 'package')} migrated", class_="beside"),
            tag("span", f"{failed:,} failed", class_="badge failed") if failed else None,
            class_="headline",
        ),
        bar,
        _facts(
            ("read", _of(done, total)),
            ("rate", f"{size(rate)}/s" if isinstance(rate, float) else "-"),
            ("time left", _left(seen)),
            ("files shared", f"{whole(figures, 'deduplicated_files'):,}"),
            ("failed", f"{failed:,}"),
        ),
        tag(
            "p",
            tag("span", "Running", class_="key"),
            tag("span", state.running or "nothing", class_="value"),
            class_="line",
        ),
        _brakes(seen),
        tag(
            "p",
            tag("span", "Next", class_="key"),
            tag("code", str(figures["next_command"])),
            class_="line",
        ),
    )


def _of(done: int, total: int) -> str:
    """Return a size of another; the unit once, where it is the same."""
    (number, unit), whole_ = size(done).split(" "), size(total)
    return f"{number if whole_.endswith(f' {unit}') else f'{number} {unit}'} of {whole_}"


def _percent(share: float) -> str:
    """Return it rounded down: what is not done is not 100 %."""
    return f"{int(share * 1000) / 10:.1f} %" if 0 < share < 1 else f"{share:.0%}".replace("%", " %")


def _left(seen: Overview) -> str:
    left = seen.figures["estimated_time_remaining_seconds"]
    if isinstance(left, float):
        return duration(left)
    if seen.figures["paused"]:
        return "paused"
    return "not known yet" if seen.state.of_the_run is not None else "-"


def _brakes(seen: Overview) -> Html | None:
    reason = seen.figures["throttle_reason"]
    if not isinstance(reason, str) or not reason:
        return None
    name = "Paused" if seen.figures["paused"] else "Held back"
    return tag(
        "p",
        tag("span", name, class_="key"),
        tag("span", reason, class_="value"),
        class_="line warm",
    )


def _facts(*facts: tuple[str, str]) -> Html:
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts),
        class_="facts",
    )


def gate(seen: Overview) -> Html:
    """Return what a cutover would ask."""
    if seen.state.phase in _PASSED:
        return tag("p", _PASSED[seen.state.phase])
    items = []
    for check in readiness(seen.state, seen.health):
        sign = _SIGNS[check.is_met]
        items.append(
            tag(
                "li",
                tag("span", class_=f"sign {sign}", aria_hidden="true"),
                tag(
                    "span",
                    tag("b", check.name),
                    tag("span", f" ({_SIGN_WORDS[sign]})", class_="hidden"),
                    tag("span", check.words, class_="note"),
                    class_="step",
                ),
            )
        )
    return tag("ul", *items, class_="checks")


def health(seen: Overview) -> Html:
    """Return the judgement, with what to do."""
    judged = seen.health
    issues = [
        tag(
            "li",
            tag("b", f"{issue.severity}: "),
            issue.reason,
            tag("span", issue.advice, class_="note"),
            class_=issue.severity,
        )
        for issue in judged.details
    ]
    trigger = seen.figures["last_trigger"]
    room = seen.room
    inodes = "-" if room.free_inodes is None else f"{room.free_inodes:,}"
    return join(
        tag("p", tag("span", judged.status, class_=f"badge {judged.status}")),
        tag("ul", *issues, class_="issues") if issues else None,
        tag("p", f"A trigger ended the last run: {trigger}") if trigger else None,
        _facts(
            ("free", size(room.free_bytes)),
            ("to stay free", size(room.free_bytes_min)),
            ("free inodes", inodes),
            ("packages damaged", f"{len(seen.state.matters.concerns):,}"),
        ),
    )


def stamp(seen: Overview) -> Html:
    """Return when the store was looked at."""
    return join("Seen ", tag("time", f"{moment(seen.at)} UTC"))


def announcement(seen: Overview) -> str:
    """Return a sentence for who hears the page; it changes seldom."""
    figures = seen.figures
    done, total = whole(figures, "bytes_done"), whole(figures, "bytes_total")
    tenths = f"{int(10 * done / total) * 10} percent migrated. " if total else ""
    failed = seen.state.totals.count(Status.FAILED)
    held = "Held back. " if figures["throttled"] else ""
    return (
        f"Phase {seen.state.phase.label}. {tenths}{held}"
        f"{'A command is running' if seen.state.running else 'Nothing is running'}. "
        f"{count(failed, 'package')} failed. Health {seen.health.status}."
    )


def title(seen: Overview) -> str:
    """Return what a tab shows: what has gone how far."""
    figures = seen.figures
    done, total = whole(figures, "bytes_done"), whole(figures, "bytes_total")
    share = _percent(done / total) if total else seen.state.phase.label
    worst = "" if seen.health.status == "healthy" else f"{seen.health.status}! "
    return f"{worst}{share}, regrain"


def whole(figures: dict[str, object], name: str) -> int:
    """Return a figure that is a number."""
    value = figures[name]
    return value if isinstance(value, int) else 0
