"""Packages page by page, for people: what needs them comes first."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from regrain.ledger.schema import integrity, store_migration, store_refs
from regrain.model.status import Status

if TYPE_CHECKING:
    from regrain.ledger.queries import Ledger

_m, _i = store_migration.c, integrity.c
_UNDONE = (Status.PENDING, Status.IN_PROGRESS, Status.ROLLED_BACK)


class Kind(StrEnum):
    """Which packages to show."""

    ALL = ""
    CONCERNED = "concerned"
    FAILED = "failed"
    UNDONE = "undone"
    MIGRATED = "migrated"
    ASIDE = "aside"
    ADDED = "added"


class Row(NamedTuple):
    """A package in a list.

    Attributes:
        package_hash: It.
        kind: Where it belongs; the first of these that fits, in the order of ``Kind``.
        status: Of its migration; empty for one that was added at the file level.
        name: Of its manifest, may be empty, may be anything.
        version: Likewise.
        files: Regular files.
        size: Their bytes.
        saved: What removing its legacy directory frees on balance; None before it was migrated.
        why: What stands against it, or why it failed; empty where nothing does.
        path: Where it failed, as raw bytes.
    """

    package_hash: str
    kind: Kind
    status: str
    name: str
    version: str
    files: int
    size: int
    saved: int | None
    why: str
    path: bytes | None


class Leaf(NamedTuple):
    """One page of a list.

    Attributes:
        rows: What stands on it.
        total: How many rows all pages have.
    """

    rows: list[Row]
    total: int


_KIND = sa.case(
    (_i.what.is_not(None), Kind.CONCERNED.value),
    (_m.excluded == 1, Kind.ASIDE.value),
    (_m.status == Status.FAILED, Kind.FAILED.value),
    (_m.status.in_(_UNDONE), Kind.UNDONE.value),
    (_m.status == Status.COMPLETED, Kind.MIGRATED.value),
    else_=Kind.ADDED.value,
)
_RANK = sa.case(
    (_i.what.is_not(None), 0),
    (_m.excluded == 1, 4),
    (_m.status == Status.FAILED, 1),
    (_m.status == Status.IN_PROGRESS, 2),
    (_m.status.in_(_UNDONE), 3),
    else_=5,
)
_FROM = store_refs.outerjoin(store_migration, _m.package_hash == store_refs.c.hash).outerjoin(
    integrity, _i.package_hash == store_refs.c.hash
)


def browse(ledger: Ledger, *, kind: Kind, text: str, first: int, rows_max: int) -> Leaf:
    """Return one page of the packages: damaged and failed ones first, then by name.

    Args:
        ledger: It.
        kind: Which packages.
        text: What their name, version or reason has in it, or their hash begins with.
        first: Rows that come before this page.
        rows_max: Rows on it, at the most.
    """
    wanted: sa.ColumnElement[bool] = sa.true()
    if kind is not Kind.ALL:
        wanted = _KIND.in_([kind.value])
    if text:
        wanted = sa.and_(wanted, _has(text))
    count = sa.select(sa.func.count()).select_from(_FROM).where(wanted)
    query = (
        sa.select(
            store_refs.c.hash,
            _KIND.label("kind"),
            _m.status,
            _m.name,
            _m.version,
            _m.file_count,
            sa.func.coalesce(_m.byte_count, store_refs.c.size).label("size"),
            _m.space_saved,
            _i.what,
            _m.error_message,
            _m.error_path,
        )
        .select_from(_FROM)
        .where(wanted)
        .order_by(_RANK, _m.name, _m.version, store_refs.c.hash)
        .limit(rows_max)
        .offset(first)
    )
    with ledger._transaction() as connection:  # noqa: SLF001 -- of the same room
        total = connection.execute(count).scalar_one()
        rows = connection.execute(query).all()
    return Leaf([_row(row) for row in rows], total)


def _has(text: str) -> sa.ColumnElement[bool]:
    return sa.or_(
        store_refs.c.hash.startswith(text.lower(), autoescape=True),
        (_m.name + " " + _m.version).icontains(text, autoescape=True),
        _m.error_message.icontains(text, autoescape=True),
        _i.what.icontains(text, autoescape=True),
    )


def _row(row: sa.Row[*tuple[Any, ...]]) -> Row:
    found = row._mapping  # noqa: SLF001 -- SQLAlchemy's public name for it
    kind = Kind(found["kind"])
    failed = found["error_message"] if found["status"] == Status.FAILED else None
    return Row(
        package_hash=found["hash"],
        kind=kind,
        status=found["status"] or "",
        name=found["name"] or "",
        version=found["version"] or "",
        files=found["file_count"] or 0,
        size=found["size"] or 0,
        saved=found["space_saved"],
        why=found["what"] or failed or "",
        path=found["error_path"] if failed else None,
    )
