"""The page as a whole: what stands where. What changes in it is written by other modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrain import __version__
from regrain.web.page import course, log, packages, parts
from regrain.web.page.markup import Html, join, tag
from regrain.web.page.space import space
from regrain.web.page.tables import scrolled

if TYPE_CHECKING:
    from regrain.web.page.glimpse import Glimpse
    from regrain.web.page.packages import Wanted

WAITING = Html('<p class="soft">Nothing was seen of the store yet.</p>')


def changing(glimpse: Glimpse) -> dict[str, str]:
    """Return all parts that change, by the name of their place."""
    seen, points = glimpse.seen, glimpse.points
    found: dict[str, str] = {"trouble": parts.trouble(glimpse.trouble)}
    if seen is not None:
        found |= {
            "phase": parts.phase(seen),
            "progress": parts.progress(seen),
            "gate": parts.gate(seen),
            "health": parts.health(seen),
            "space": space(glimpse),
            "stamp": parts.stamp(seen),
        }
    return found | {
        "rate-words": course.rate_words(points),
        "reads-words": course.reads_words(points),
        "course-table": course.figures(points),
        "log": log.log(glimpse.past.lines),
    }


def page(glimpse: Glimpse, asked: Wanted, listed: Html, token: str) -> str:
    """Return the whole page.

    Args:
        glimpse: What there is to see.
        asked: Which packages are asked for.
        listed: These.
        token: Of the server: a page of another server's is to be loaded anew.
    """
    live = changing(glimpse)

    def place(name: str, **attributes: str) -> Html:
        inside = Html(live.get(name, WAITING))
        return tag("div", inside, data_live=name, **attributes)

    store = "" if glimpse.seen is None else str(glimpse.seen.figures["store"])
    plots = tag(
        "div",
        _plot("rate", "Rate", "Bytes read a second", place("rate-words")),
        _plot("reads", "Readers", "What a small read takes beside a run", place("reads-words")),
        class_="plots",
    )
    both = (
        plots,
        tag(
            "details",
            tag("summary", "Both as a table"),
            scrolled("Rate and readers as a table", place("course-table")),
        ),
    )
    body = (
        tag("div", place("trouble"), role="alert"),
        tag("section", tag("h2", "Phase", id="phase-h"), place("phase"), aria_labelledby="phase-h"),
        tag(
            "div",
            _card("Progress", "progress", place("progress")),
            _card("Health", "health", place("health")),
            class_="grid wide-first",
        ),
        tag(
            "div",
            _card("Space", "space", place("space")),
            _card("Gate of the cutover", "gate", place("gate")),
            class_="grid wide-first",
        ),
        _card("Over time", "course", *both),
        _card(
            "Packages",
            "packages",
            packages.form(asked),
            tag("div", listed, id="listed"),
        ),
        _card(
            "Log",
            "log",
            scrolled("The last lines of the log", place("log"), "scroll tail"),
        ),
    )
    return document(f"regrain: {store}", _header(store, place("stamp")), join(*body), token)


def of_package(title: str, content: Html, token: str) -> str:
    """Return the page of one package, which does not change by itself."""
    back = tag("p", tag("a", "Back to the store", href="/#packages"))
    return document(title, back, tag("article", content, class_="card account"), token)


def document(title: str, header: Html, main: Html, token: str) -> str:
    """Return a document; all it loads comes from this server."""
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href="/static/uplot.css"),
        tag("link", rel="stylesheet", href="/static/page.css"),
        tag("script", src="/static/uplot.js", defer=True),
        tag("script", src="/static/page.js", defer=True),
    )
    body = join(
        tag("a", "To the content", href="#main", class_="skip"),
        tag("header", header),
        tag("main", main, id="main", tabindex="-1"),
        tag("footer", tag("p", f"regrain {__version__}, read-only. Times are UTC.")),
    )
    whole = tag("html", tag("head", head), tag("body", body, data_token=token), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def _header(store: str, stamp: Html) -> Html:
    return join(
        tag(
            "div",
            tag("h1", tag("span", "regrain", class_="mark"), " ", tag("span", store, id="store")),
            tag("div", stamp, tag("span", id="link"), class_="stamp"),
            class_="bar",
        ),
        tag("p", role="status", id="announced", class_="hidden"),
        tag(
            "noscript",
            tag(
                "p",
                "Without scripts this page shows what was seen when it was loaded.",
                class_="soft",
            ),
        ),
        tag(
            "nav",
            *(
                tag("a", name, href=f"#{place}")
                for name, place in (
                    ("Progress", "progress"),
                    ("Space", "space"),
                    ("Gate", "gate"),
                    ("Over time", "course"),
                    ("Packages", "packages"),
                    ("Log", "log"),
                )
            ),
            aria_label="Sections",
        ),
    )


def _card(title: str, name: str, *inside: Html) -> Html:
    heading = tag("h2", title, id=f"{name}-h")
    return tag("section", heading, *inside, id=name, class_="card", aria_labelledby=f"{name}-h")


def _plot(name: str, title: str, note: str, said: Html) -> Html:
    return tag(
        "figure",
        tag("figcaption", tag("b", title), " ", tag("span", note, class_="soft")),
        tag("div", id=f"plot-{name}", class_="plot", aria_hidden="true"),
        said,
    )
