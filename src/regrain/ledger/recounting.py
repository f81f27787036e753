"""What the ledger tells of the past: what was done when, what each package took and brought."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import sqlalchemy as sa

    from regrain.ledger.queries import Ledger

STEP_SECONDS = 600
"""The same thing done again within so long is told as one step."""

MIGRATED = "package_migrated"
"""Stands in the tale for packages that were completed, of which the history keeps no lines."""

BUCKETS = 240
_CONCLUSIONS = frozenset({"phase", "verified"})
_PIECE = 500

_DONE = "status = 'completed' AND excluded = 0 AND completed_at IS NOT NULL"
_PACKAGE = (
    "SELECT package_hash, name, version, status, COALESCE(file_count, 0), byte_count,"
    " allocated_bytes, added_bytes, space_saved, started_at, completed_at,"
    " COALESCE(error_message, ''), error_path, attempts FROM store_migration "
)
_LARGEST = (
    _PACKAGE + "WHERE status = 'completed' AND excluded = 0"
    " ORDER BY space_saved DESC NULLS LAST, package_hash LIMIT ?"
)
_SLOWEST = (
    f"{_PACKAGE} WHERE {_DONE} AND started_at IS NOT NULL"
    " ORDER BY completed_at - started_at DESC NULLS LAST, byte_count DESC, package_hash LIMIT ?"
)
_FAILED = (
    f"{_PACKAGE} WHERE status = 'failed' AND excluded = 0"
    " ORDER BY completed_at NULLS FIRST, package_hash LIMIT ?"
)
_FAMILIES = (
    "SELECT name, COUNT(*), SUM(allocated_bytes), SUM(added_bytes), SUM(space_saved)"
    " FROM store_migration WHERE status = 'completed' AND excluded = 0 GROUP BY name"
    " ORDER BY SUM(space_saved) DESC NULLS LAST, name LIMIT ?"
)
_CHECKED = (
    "SELECT COUNT(verified_at), COUNT(*), MAX(verified_at), COALESCE(SUM(allocated_bytes), 0)"
    " FROM store_migration"
    " WHERE status = 'completed' AND excluded = 0"
)
_SPAN = f"SELECT MIN(completed_at), MAX(completed_at) FROM store_migration WHERE {_DONE}"  # noqa: S608 -- no value in it
_CURVE = (
    "SELECT MAX(completed_at), COUNT(*), SUM(byte_count), SUM(space_saved) FROM store_migration"  # noqa: S608
    f" WHERE {_DONE} GROUP BY (completed_at - ?) / ? ORDER BY 1"
)
_LINES = "SELECT at, event, package_hash, detail FROM history ORDER BY id"
_COMPLETIONS = (
    f"SELECT completed_at, COUNT(*) FROM store_migration WHERE {_DONE}"  # noqa: S608
    " GROUP BY completed_at ORDER BY completed_at"
)


class Told(NamedTuple):
    """What the ledger tells of one package's migration.

    Attributes:
        package_hash: It.
        name: Of its manifest, may be empty, may be anything.
        version: Likewise.
        status: A word of ``model.status``.
        files: Regular files.
        size: Their bytes, each path counted.
        allocated: Bytes on disk of its legacy directory.
        added: Bytes on disk that it brought to the store; None before it was completed.
        saved: What removing its legacy directory frees on balance; likewise.
        started_at: When it was last claimed; in Unix seconds, as all times.
        completed_at: When it was recorded as completed, or failed.
        error: Why it failed.
        error_path: Where, as raw bytes.
        attempts: How often it was claimed.
    """

    package_hash: str
    name: str
    version: str
    status: str
    files: int
    size: int
    allocated: int
    added: int | None
    saved: int | None
    started_at: int | None
    completed_at: int | None
    error: str
    error_path: bytes | None
    attempts: int


class Family(NamedTuple):
    """Completed packages of one name: how many, and sums of what ``Told`` has."""

    name: str
    packages: int
    allocated: int
    added: int
    saved: int


class Point(NamedTuple):
    """What was completed in one stretch of time, up to its end."""

    at: int
    packages: int
    size: int
    saved: int


class Step(NamedTuple):
    """The same thing, done once or many times in a row.

    Attributes:
        began_at: The first time.
        ended_at: The last.
        event: Its word in the history.
        times: How often.
        package: Of which package, where it was done once to one.
        detail: What the last line says.
    """

    began_at: int
    ended_at: int
    event: str
    times: int
    package: str
    detail: str


class Tale(NamedTuple):
    """All of it, as it was at one moment.

    Attributes:
        rows_max: Packages in each list, at the most.
        steps: What was done, in order; the last ``steps_max``.
        steps_before: How many steps came before these.
        events: How often each event happened.
        curve: Completed packages over time.
        saving: The packages that save most.
        families: Names whose packages together save most.
        allocated: Bytes on disk of the legacy directories of all completed packages.
        slowest: The packages that took longest.
        failed: Packages that failed, those set aside left out.
        verified: Completed packages that were compared with their source.
        completed: Completed packages.
        verified_at: When one was last compared.
    """

    rows_max: int
    steps: list[Step]
    steps_before: int
    events: dict[str, int]
    curve: list[Point]
    saving: list[Told]
    families: list[Family]
    allocated: int
    slowest: list[Told]
    failed: list[Told]
    verified: int
    completed: int
    verified_at: int | None


def recount(ledger: Ledger, *, rows_max: int, steps_max: int) -> Tale:
    """Tell what was done, as the ledger has it; one transaction.

    Args:
        ledger: It.
        rows_max: Packages in each list, at the most.
        steps_max: Steps, at the most.
    """
    with ledger._transaction() as connection:  # noqa: SLF001 -- of the same room
        steps, events = _steps(connection)
        verified, completed, verified_at, allocated = connection.exec_driver_sql(_CHECKED).one()
        families = connection.exec_driver_sql(_FAMILIES, (rows_max,)).all()
        return Tale(
            rows_max=rows_max,
            steps=steps[-steps_max:],
            steps_before=max(0, len(steps) - steps_max),
            events=dict(+events),
            curve=_curve(connection),
            saving=_packages(connection, _LARGEST, rows_max),
            families=[
                Family(row[0], row[1], row[2] or 0, row[3] or 0, row[4] or 0) for row in families
            ],
            allocated=allocated,
            slowest=_packages(connection, _SLOWEST, rows_max),
            failed=_packages(connection, _FAILED, rows_max),
            verified=verified,
            completed=completed,
            verified_at=verified_at,
        )


def carried_bytes(ledger: Ledger, digests: Sequence[bytes]) -> dict[bytes, int]:
    """Return what objects take on disk, all carriers of each; by raw digest."""
    found: dict[bytes, int] = {}
    with ledger._transaction() as connection:  # noqa: SLF001 -- of the same room
        for begin in range(0, len(digests), _PIECE):
            piece = tuple(digests[begin : begin + _PIECE])
            query = (
                "SELECT digest, SUM(allocated_bytes) FROM objects JOIN carriers ON object_id = id"  # noqa: S608
                f" WHERE digest IN ({', '.join('?' * len(piece))}) GROUP BY digest"
            )
            found.update((row[0], row[1]) for row in connection.exec_driver_sql(query, piece))
    return found


def _packages(connection: sa.Connection, query: str, rows_max: int) -> list[Told]:
    return [Told(*row) for row in connection.exec_driver_sql(query, (rows_max,))]


def _curve(connection: sa.Connection) -> list[Point]:
    first, last = connection.exec_driver_sql(_SPAN).one()
    if first is None:
        return []
    width = max(1, (last - first) // BUCKETS + 1)
    rows = connection.exec_driver_sql(_CURVE, (first, width))
    return [Point(row[0], row[1], row[2] or 0, row[3] or 0) for row in rows]


def _steps(connection: sa.Connection) -> tuple[list[Step], Counter[str]]:
    """Return the history and the completions as steps, and how often each event happened."""
    events: Counter[str] = Counter()
    happened: list[tuple[int, int, Step]] = []
    for at, event, package, detail in connection.exec_driver_sql(_LINES):
        events[event] += 1
        # Times are in seconds. What a store as a whole was brought to by its packages comes
        # after those of the same second; the sort is stable: else lines keep their order.
        rank = 2 if event in _CONCLUSIONS else 0
        happened.append((at, rank, Step(at, at, event, 1, package or "", detail)))
    for at, count in connection.exec_driver_sql(_COMPLETIONS):
        events[MIGRATED] += count
        happened.append((at, 1, Step(at, at, MIGRATED, count, "", "")))
    happened.sort(key=lambda item: item[:2])
    return joined(step for _, _, step in happened), events


def joined(happened: Iterable[Step]) -> list[Step]:
    """Join what was done to one package after the other.

    Whatever concerns the whole store stands alone, and nothing is joined across it.
    """
    steps: list[Step] = []
    open_steps: dict[str, int] = {}
    for step in happened:
        if not step.package and step.event != MIGRATED:
            open_steps.clear()
            steps.append(step)
            continue
        place = open_steps.get(step.event)
        if place is None or step.began_at - steps[place].ended_at > STEP_SECONDS:
            open_steps[step.event] = len(steps)
            steps.append(step)
            continue
        last = steps[place]
        one = step.package if step.package == last.package else ""
        times = last.times + step.times
        steps[place] = Step(last.began_at, step.ended_at, step.event, times, one, step.detail)
    return steps
