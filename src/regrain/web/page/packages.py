"""The list of packages, page by page; and all that is known of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from regrain.ledger.browsing import Kind, Leaf, Row
from regrain.model.status import Status
from regrain.model.wording import moment, size, visible
from regrain.web.page.markup import Html, join, tag, words
from regrain.web.page.tables import Head, scrolled, table

if TYPE_CHECKING:
    from regrain.app.account import Account

ROWS_MAX = 25
TEXT_MAX = 100

LABELS = {
    Kind.ALL: "all, failed first",
    Kind.CONCERNED: "damaged or changed",
    Kind.FAILED: "failed",
    Kind.UNDONE: "to be migrated",
    Kind.MIGRATED: "migrated",
    Kind.ASIDE: "set aside",
    Kind.ADDED: "added at the file level",
}
_BADGES = {
    Kind.CONCERNED: "damaged",
    Kind.FAILED: "failed",
    Kind.MIGRATED: "migrated",
    Kind.ASIDE: "set aside",
    Kind.ADDED: "added",
}


class Wanted(NamedTuple):
    """Which packages somebody asks for.

    Attributes:
        kind: Which.
        text: What is to be found in them.
        page: Which page of them, from 1.
    """

    kind: Kind = Kind.ALL
    text: str = ""
    page: int = 1

    @property
    def first(self) -> int:
        """Rows before this page."""
        return (self.page - 1) * ROWS_MAX

    def address(self, page: int) -> str:
        """Return where another page of the same is."""
        fields = {"q": self.text, "kind": self.kind.value, "page": page if page > 1 else ""}
        return f"/?{urlencode({key: value for key, value in fields.items() if value})}#packages"


def wanted(query: dict[str, str]) -> Wanted:
    """Return what a query asks for; what makes no sense in it asks for nothing."""
    kind, page = query.get("kind", ""), query.get("page", "")
    is_page = page.isdecimal() and page.isascii() and len(page) < 9
    return Wanted(
        Kind(kind) if kind in {one.value for one in Kind} else Kind.ALL,
        query.get("q", "").strip()[:TEXT_MAX],
        max(1, int(page)) if is_page else 1,
    )


def form(asked: Wanted) -> Html:
    """Return what one asks with; it works without scripts."""
    options = (
        tag("option", label, value=kind.value, selected=kind is asked.kind)
        for kind, label in LABELS.items()
    )
    choice = tag("select", *options, id="kind", name="kind")
    field = tag(
        "input",
        type="search",
        id="q",
        name="q",
        value=asked.text,
        maxlength=TEXT_MAX,
        autocomplete="off",
        spellcheck="false",
        placeholder="name, hash or reason",
    )
    return tag(
        "form",
        tag("p", tag("label", "Search", for_="q"), field),
        tag("p", tag("label", "Show", for_="kind"), choice),
        tag("p", tag("button", "Find", type="submit")),
        role="search",
        action="/#packages",
        method="get",
        id="find",
    )


def results(asked: Wanted, leaf: Leaf) -> Html:
    """Return one page of packages, and the way to others."""
    pages = max(1, -(-leaf.total // ROWS_MAX))
    if not leaf.rows:
        empty = "No such package." if asked.text or asked.kind else "The store has no packages."
        beyond = leaf.total and tag("a", "Back to the first page.", href=asked.address(1))
        return tag("p", empty if not leaf.total else "There is no such page. ", beyond or None)
    last = asked.first + len(leaf.rows)
    caption = f"Packages {asked.first + 1:,} to {last:,} of {leaf.total:,}"
    return join(
        scrolled("Packages as a table", table(caption, _HEADS, map(_cells, leaf.rows), "packages")),
        _pager(asked, pages) if pages > 1 else None,
    )


_HEADS = (
    Head("package", "name"),
    Head("state", "state"),
    Head("files", "number wide"),
    Head("size", "number size"),
    Head("saved", "number wide"),
    Head("why", "why"),
)


def _cells(row: Row) -> tuple[str, ...]:
    name = visible(f"{row.name} {row.version}".strip()) or "(no name)"
    # Bytes that are not UTF-8 look as they do in `status`.
    where = None if row.path is None else tag("span", words(row.path), class_="note")
    return (
        join(
            tag("a", name, href=f"/package/{row.package_hash}"),
            " ",
            tag("code", row.package_hash[:12]),
        ),
        _badge(row),
        f"{row.files:,}" if row.status else "-",
        size(row.size),
        # What was rolled back, or is to be migrated anew, saves nothing now.
        "-" if row.saved is None or row.status != Status.COMPLETED else size(row.saved),
        join(visible(row.why), where),
    )


def _badge(row: Row) -> Html:
    label = _BADGES.get(row.kind) or row.status.replace("_", " ")
    return tag("span", label, class_=f"badge {row.kind.value}")


def _pager(asked: Wanted, pages: int) -> Html:
    def link(name: str, page: int, rel: str) -> Html:
        if not 1 <= page <= pages or page == asked.page:
            return tag("span", name, class_="soft")
        return tag("a", name, href=asked.address(page), rel=rel)

    return tag(
        "nav",
        link("First", 1, "first"),
        link("Previous", asked.page - 1, "prev"),
        tag("span", f"page {asked.page:,} of {pages:,}"),
        link("Next", asked.page + 1, "next"),
        link("Last", pages, "last"),
        class_="pager",
        aria_label="Pages of packages",
    )


def account(found: Account) -> Html:
    """Return what ``why`` tells."""
    row, standing = found.row, found.standing
    name = "" if row is None else f"{row.name} {row.version}".strip()
    read_from = "nowhere" if found.read_from is None else found.read_from.value.replace("_", " ")
    facts = [
        ("hash", tag("code", found.package_hash)),
        ("read from", join(f"{read_from}: {found.because}")),
        ("lies in", join(", ".join(one.value.replace("_", " ") for one in found.layouts) or "-")),
        ("migration", join("never had a legacy directory" if row is None else _words(row.status))),
    ]
    if row is not None:
        facts += [
            ("files", join(f"{row.files:,}, {size(row.size)}")),
            ("attempts", join(f"{row.attempts:,}")),
        ]
        if row.space_saved is not None and row.status is Status.COMPLETED:
            facts.append(("saves", join(f"{size(row.space_saved)} on balance")))
        if row.error_message:
            where = "" if row.error_path is None else join(" (", words(row.error_path), ")")
            facts.append(("failed", join(row.error_message, where)))
    if standing is not None and standing.verified_at is not None:
        facts.append(("compared", join(f"{moment(standing.verified_at)} UTC")))
    if found.concern is not None:
        at = f" (found {moment(found.concern.found_at)} UTC)"
        facts.append(("against it", join(found.concern.what, at)))
    return join(
        tag("h1", name or "(no name)"),
        tag("dl", *(tag("div", tag("dt", key), tag("dd", value)) for key, value in facts)),
        tag("h2", "What to do"),
        tag("p", found.todo),
        tag("h2", "History"),
        _history(found),
    )


def _words(status: str) -> str:
    return status.replace("_", " ")


def _history(found: Account) -> Html:
    if not found.events:
        return tag("p", "The history has no line about it.", class_="soft")
    rows = (
        (moment(event.at), _words(event.event), event.detail)
        for event in found.events[::-1][:ROWS_MAX]
    )
    heads = (Head("at (UTC)", "when"), Head("event"), Head("detail", "why"))
    return scrolled("History", table("The newest first", heads, rows))
