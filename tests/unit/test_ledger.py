"""The ledger's statements, one by one, on a database of their own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from regrain.errors import CorruptionError, RegrainError
from regrain.ledger import (
    Claim,
    Ledger,
    NewCarrier,
    Outcome,
    Scanned,
    UnrecordedObjectsError,
    open_ledger,
)
from regrain.model import clock
from regrain.model.status import Status

NAMES = {letter: letter * 64 for letter in "abcdef"}
DIGESTS = [bytes([n]) * 32 for n in range(6)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger: making one takes a while, copying it does not."""
    place = tmp_path_factory.mktemp("template")
    open_ledger(str(place), create=True).close()
    return place / "state.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, template: Path) -> Iterator[Path]:
    """Where the ledger of a store is: every test here runs on both databases."""
    if request.param == "sqlite":
        shutil.copy(template, tmp_path)
        yield tmp_path
    else:
        server = request.getfixturevalue("postgres")
        with server.ledger_of(tmp_path):
            yield tmp_path


@pytest.fixture
def ledger(place: Path) -> Iterator[Ledger]:
    found = open_ledger(str(place))
    yield found
    found.close()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time, which stands still until the test changes it."""
    time = [1_000_000]
    monkeypatch.setattr(clock, "now", lambda: time[0])
    return time


def scanned(letter: str, size: int = 100, **changes: Any) -> Scanned:
    values = {
        "package_hash": NAMES[letter],
        "name": f"name-{letter}",
        "version": "1",
        "files": 3,
        "inodes": 5,
        "size": size,
        "allocated": 4096,
    }
    return Scanned(**{**values, **changes})


def outcome(claim: Claim, digests: list[bytes], **changes: Any) -> Outcome:
    values = {
        "claim": claim,
        "tree_hash": "1" * 64,
        "list_hash": "2" * 64,
        "digests": digests,
        "files": 3,
        "size": 100,
        "added": 1000,
        "deduplicated": 1,
        "verified": True,
    }
    assert values.keys() == {field.name for field in fields(Outcome)}
    return Outcome(**{**values, **changes})


def carriers(*digests: bytes, mode: int = 0o644) -> list[NewCarrier]:
    return [NewCarrier(digest, mode, True, -1, 10, 4096) for digest in digests]


def take(ledger: Ledger, *letters: str) -> dict[str, Claim]:
    """Queue and claim packages."""
    ledger.queue(scanned(letter) for letter in letters)
    claims = {claim.package_hash: claim for claim in ledger.claim(100)}
    return {letter: claims[NAMES[letter]] for letter in letters}


def rows(ledger: Ledger, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with ledger._transaction() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query, values)]


def status_of(ledger: Ledger, letter: str) -> Status:
    row = ledger.package_row(NAMES[letter])
    assert row is not None
    return row.status


def unreferenced(ledger: Ledger) -> dict[bytes, int | None]:
    return dict(rows(ledger, "SELECT digest, unreferenced_since FROM objects"))


# queueing


def test_packages_are_queued_once(ledger: Ledger, now: list[int]) -> None:
    assert ledger.queue([scanned("a"), scanned("b")]) == 2
    assert ledger.queue([scanned("b", 999), scanned("c"), scanned("c")]) == 1
    assert ledger.known_packages() == {NAMES["a"], NAMES["b"], NAMES["c"]}
    assert ledger.pending()[:3] == (3, 9, 300)
    assert rows(
        ledger, "SELECT hash, ref_count, size, created_at FROM store_refs ORDER BY hash"
    ) == [(NAMES[letter], 1, 100, now[0]) for letter in "abc"]


def test_what_is_known_keeps_its_state(ledger: Ledger) -> None:
    claims = take(ledger, "a", "b")
    ledger.record([outcome(claims["a"], [])], [])
    ledger.fail(NAMES["b"], "broken", None)
    assert ledger.queue([scanned("a"), scanned("b")]) == 0
    assert (status_of(ledger, "a"), status_of(ledger, "b")) == (Status.COMPLETED, Status.FAILED)


def test_a_queue_that_breaks_off_leaves_nothing(ledger: Ledger) -> None:
    def broken() -> Iterator[Scanned]:
        yield scanned("a")
        raise RegrainError("no further")

    with pytest.raises(RegrainError, match="no further"):
        ledger.queue(broken())
    assert ledger.known_packages() == set()


# claiming


def test_the_smallest_are_taken_first(ledger: Ledger, now: list[int]) -> None:
    ledger.queue([scanned("a", 30), scanned("b", 10), scanned("c", 20), scanned("d", 10)])
    first = ledger.claim(2)
    assert [claim.package_hash for claim in first] == [NAMES["b"], NAMES["d"]]
    assert [claim.size for claim in first] == [10, 10]
    assert {status_of(ledger, letter) for letter in "bd"} == {Status.IN_PROGRESS}
    assert {status_of(ledger, letter) for letter in "ac"} == {Status.PENDING}
    second = ledger.claim(10)
    assert [claim.package_hash for claim in second] == [NAMES["c"], NAMES["a"]]
    assert ledger.claim(10) == []
    assert {claim.package_hash for claim in ledger.in_progress()} == {NAMES[n] for n in "abcd"}
    row = ledger.package_row(NAMES["a"])
    assert row is not None
    assert (row.started_at, row.attempts) == (now[0], 1)


def test_a_claim_tells_what_was_scanned(ledger: Ledger) -> None:
    ledger.queue([scanned("a", 7, name="jq", version="1.7", files=4, allocated=8192)])
    (claim,) = ledger.claim(1)
    assert (claim.name, claim.version, claim.files) == ("jq", "1.7", 4)
    assert (claim.size, claim.allocated) == (7, 8192)


@pytest.mark.parametrize(
    ("glob", "letters"),
    [
        ("name-a", "a"),
        ("name-*", "abc"),
        ("name-[ab]", "ab"),
        ("bbbb*", "b"),
        ("c" * 64, "c"),
        ("NAME-A", ""),
        ("ame-a", ""),
        ("%", ""),
    ],
)
def test_only_what_a_glob_matches(ledger: Ledger, glob: str, letters: str) -> None:
    ledger.queue([scanned("a", 3), scanned("b", 2), scanned("c", 1)])
    assert ledger.pending(only=glob)[0] == len(letters)
    found = ledger.claim(10, only=glob)
    assert [claim.package_hash for claim in found] == [NAMES[n] for n in reversed(letters)]
    assert ledger.pending()[0] == 3 - len(letters)


@pytest.mark.parametrize("only", [None, "name-*"])
@pytest.mark.parametrize("limit", [0, 1, 2])
def test_no_more_than_were_asked_for(ledger: Ledger, only: str | None, limit: int) -> None:
    ledger.queue([scanned("a"), scanned("b"), scanned("c")])
    assert len(ledger.claim(limit, only=only)) == limit
    assert len(ledger.in_progress()) == limit


# putting back, failing, trying again


def test_what_is_given_up_is_taken_again(ledger: Ledger) -> None:
    take(ledger, "a", "b")
    ledger.give_up([NAMES["a"]])
    assert (status_of(ledger, "a"), status_of(ledger, "b")) == (Status.PENDING, Status.IN_PROGRESS)
    (claim,) = ledger.claim(10)
    assert (claim.package_hash, claim.attempts) == (NAMES["a"], 1)


def test_only_what_is_in_hand_can_be_given_up(ledger: Ledger) -> None:
    claims = take(ledger, "a", "b")
    ledger.record([outcome(claims["a"], [])], [])
    ledger.fail(NAMES["b"], "broken", None)
    ledger.give_up([NAMES["a"], NAMES["b"], NAMES["c"]])
    assert (status_of(ledger, "a"), status_of(ledger, "b")) == (Status.COMPLETED, Status.FAILED)


def test_a_failure_names_path_and_reason_until_it_is_tried_again(
    ledger: Ledger, now: list[int]
) -> None:
    take(ledger, "a")
    ledger.fail(NAMES["a"], "a special file", b"run/\xff")
    row = ledger.package_row(NAMES["a"])
    assert row is not None
    assert (row.status, row.error_message, row.error_path) == (
        Status.FAILED,
        "a special file",
        b"run/\xff",
    )
    assert row.completed_at == now[0]
    assert ledger.claim(10) == []
    assert ledger.retry_failed() == 1
    assert len(ledger.claim(10)) == 1
    row = ledger.package_row(NAMES["a"])
    assert row is not None
    assert (row.error_message, row.error_path, row.attempts) == (None, None, 2)


def test_only_matching_failures_are_tried_again(ledger: Ledger) -> None:
    take(ledger, "a", "b", "c")
    for letter in "ab":
        ledger.fail(NAMES[letter], "broken", None)
    assert ledger.retry_failed(only="name-b") == 1
    assert [status_of(ledger, n).value for n in "abc"] == ["failed", "pending", "in_progress"]


# recording


def test_a_batch_is_recorded_whole(ledger: Ledger, now: list[int]) -> None:
    claims = take(ledger, "a", "b")
    batch = [
        outcome(claims["a"], DIGESTS[:2], files=7, size=70, added=1096, deduplicated=3),
        outcome(claims["b"], DIGESTS[1:3], verified=False),
    ]
    ledger.record(batch, carriers(*DIGESTS[:3]))
    row = ledger.package_row(NAMES["a"])
    assert row is not None
    assert (row.status, row.files, row.size, row.space_saved) == (Status.COMPLETED, 7, 70, 3000)
    assert row.completed_at == now[0]
    assert list(ledger.object_sizes()) == [(digest, 10) for digest in DIGESTS[:3]]
    assert ledger.owners(DIGESTS[0]) == [NAMES["a"]]
    assert ledger.owners(DIGESTS[1]) == [NAMES["a"], NAMES["b"]]
    assert ledger.owners(DIGESTS[5]) == []
    assert ledger.recorded_packages().keys() == {NAMES["a"], NAMES["b"]}
    verified = dict(rows(ledger, "SELECT package_hash, verified_at FROM store_migration"))
    assert verified == {NAMES["a"]: now[0], NAMES["b"]: None}
    assert rows(ledger, "SELECT size FROM store_refs WHERE hash = ?", NAMES["a"]) == [(70,)]


def test_a_batch_is_recorded_whole_or_not_at_all(ledger: Ledger) -> None:
    claims = take(ledger, "a", "b")
    batch = [outcome(claims["a"], DIGESTS[:1]), outcome(claims["b"], DIGESTS[:2])]
    with pytest.raises(RegrainError):  # the second names an object that nobody published
        ledger.record(batch, carriers(DIGESTS[0]))
    assert list(ledger.object_sizes()) == []
    assert ledger.recorded_packages() == {}
    assert {status_of(ledger, letter) for letter in "ab"} == {Status.IN_PROGRESS}


def test_every_object_without_a_row_is_named_at_once(ledger: Ledger) -> None:
    """Who mends it can then record the batch; naming them package by package takes a run each."""
    claims = take(ledger, "a", "b")
    batch = [outcome(claims["a"], DIGESTS[:2]), outcome(claims["b"], DIGESTS[1:4])]
    with pytest.raises(UnrecordedObjectsError) as caught:
        ledger.record(batch, carriers(DIGESTS[0]))
    assert sorted(caught.value.digests) == DIGESTS[1:4]


def test_a_package_that_is_recorded_again_owns_what_it_has_now(ledger: Ledger) -> None:
    claims = take(ledger, "a")
    ledger.record([outcome(claims["a"], DIGESTS[:2])], carriers(*DIGESTS[:2]))
    with ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE store_migration SET status = 'pending'")
    (claim,) = ledger.claim(1)
    ledger.record([outcome(claim, DIGESTS[1:3], list_hash="3" * 64)], carriers(DIGESTS[2]))
    assert ledger.owners(DIGESTS[0]) == []
    assert ledger.owners(DIGESTS[2]) == [NAMES["a"]]
    assert ledger.recorded_packages() == {NAMES["a"]: "3" * 64}


def test_a_recorded_package_that_failed_later_and_is_tried_again(ledger: Ledger) -> None:
    claims = take(ledger, "a")
    ledger.record([outcome(claims["a"], DIGESTS[:2])], carriers(*DIGESTS[:2]))
    with ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE store_migration SET status = 'pending'")
    ledger.claim(1)
    ledger.fail(NAMES["a"], "broken", None)
    ledger.retry_failed()
    (claim,) = ledger.claim(1)
    ledger.record([outcome(claim, DIGESTS[:2])], [])
    assert ledger.owners(DIGESTS[1]) == [NAMES["a"]]
    assert status_of(ledger, "a") is Status.COMPLETED


def test_carriers_of_an_object_and_their_times(ledger: Ledger) -> None:
    claims = take(ledger, "a")
    both = [
        NewCarrier(DIGESTS[0], 0o644, True, -1, 10, 4096),
        NewCarrier(DIGESTS[0], 0o755, False, 2**62 * 10**9 + 5, 10, 8192),
    ]
    ledger.record([outcome(claims["a"], DIGESTS[:1])], both)
    assert ledger.carriers_in("00").keys() == {
        (DIGESTS[0], 0o644, False),
        (DIGESTS[0], 0o755, False),
    }
    assert ledger.carriers_in("01").keys() == set()
    found = rows(
        ledger, "SELECT mode, is_bare, mtime_seconds, mtime_nanoseconds FROM carriers ORDER BY mode"
    )
    assert found == [(0o644, 1, -1, 999_999_999), (0o755, 0, 2**62, 5)]
    assert ledger.totals().carriers_allocated == 4096 + 8192
    assert ledger.totals().objects == 1


@pytest.mark.parametrize("shard", ["00", "7f", "ff"])
def test_a_shard_is_its_two_digits(ledger: Ledger, shard: str) -> None:
    first = bytes.fromhex(shard)
    inside = [first + b"\x00" * 31, first + b"\xff" * 31]
    ledger.record_objects(carriers(*inside, b"\x42" * 32))
    assert {digest for digest, *_ in ledger.carriers_in(shard)} == set(inside)


# objects nobody holds


def test_objects_without_owners_count_from_when_they_were_seen(
    ledger: Ledger, now: list[int]
) -> None:
    ledger.record_objects(carriers(DIGESTS[0]))
    now[0] += 50
    ledger.record_objects(carriers(DIGESTS[0], DIGESTS[1]))
    assert unreferenced(ledger) == {DIGESTS[0]: 1_000_000, DIGESTS[1]: 1_000_050}


def test_an_object_that_gets_an_owner_is_referenced(ledger: Ledger) -> None:
    ledger.record_objects(carriers(*DIGESTS[:2]))
    claims = take(ledger, "a")
    ledger.record([outcome(claims["a"], DIGESTS[:1])], [])
    found = unreferenced(ledger)
    assert found[DIGESTS[0]] is None
    assert found[DIGESTS[1]] is not None


def test_an_object_that_was_published_for_nobody_counts_too(ledger: Ledger) -> None:
    """A package put back after some of its objects were published leaves them behind."""
    claims = take(ledger, "a")
    ledger.record([outcome(claims["a"], DIGESTS[:1])], carriers(*DIGESTS[:2]))
    assert unreferenced(ledger)[DIGESTS[0]] is None
    assert unreferenced(ledger)[DIGESTS[1]] is not None


def test_an_object_that_loses_its_owner_counts_from_then(ledger: Ledger) -> None:
    claims = take(ledger, "a")
    ledger.record([outcome(claims["a"], DIGESTS[:2])], carriers(*DIGESTS[:2]))
    with ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE store_migration SET status = 'pending'")
    (claim,) = ledger.claim(1)
    ledger.record([outcome(claim, DIGESTS[1:2])], [])
    assert unreferenced(ledger)[DIGESTS[0]] is not None


def test_an_object_that_another_package_holds_stays_referenced(ledger: Ledger) -> None:
    claims = take(ledger, "a", "b")
    both = [outcome(claims[letter], DIGESTS[:1]) for letter in "ab"]
    ledger.record(both, carriers(DIGESTS[0]))
    with ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE store_migration SET status = 'pending'")
    again = next(claim for claim in ledger.claim(2) if claim.package_hash == NAMES["a"])
    ledger.record([outcome(again, [])], [])
    assert ledger.owners(DIGESTS[0]) == [NAMES["b"]]
    assert unreferenced(ledger)[DIGESTS[0]] is None


# sums


def test_sums_are_counted_anew(ledger: Ledger) -> None:
    claims = take(ledger, "a", "b", "c", "d")
    ledger.record(
        [
            outcome(claims["a"], DIGESTS[:1], files=5, size=50, added=96, deduplicated=2),
            outcome(claims["b"], DIGESTS[:1], files=6, size=60, added=4100, deduplicated=1),
        ],
        carriers(DIGESTS[0]),
    )
    ledger.fail(NAMES["c"], "broken", None)
    found = ledger.totals()
    assert found.by_status == {Status.COMPLETED: 2, Status.FAILED: 1, Status.IN_PROGRESS: 1}
    assert (found.packages, found.count(Status.FAILED), found.count(Status.PENDING)) == (4, 1, 0)
    assert (found.files, found.files_done, found.deduplicated) == (5 + 6 + 3 + 3, 11, 3)
    assert (found.bytes_total, found.bytes_done) == (50 + 60 + 200, 50 + 60)
    assert found.saved == (4096 - 96) + (4096 - 4100)


def test_an_empty_ledger(ledger: Ledger) -> None:
    found = ledger.totals()
    assert (found.packages, found.files, found.saved, found.objects) == (0, 0, 0, 0)
    assert list(ledger.package_rows()) == []
    assert ledger.package_row(NAMES["a"]) is None


def test_packages_are_listed_by_hash_and_status(ledger: Ledger) -> None:
    take(ledger, "c", "a", "b")
    ledger.fail(NAMES["b"], "broken", None)
    assert [row.package_hash for row in ledger.package_rows()] == [NAMES[n] for n in "abc"]
    assert [row.package_hash for row in ledger.package_rows(Status.FAILED)] == [NAMES["b"]]


def test_history_is_kept(ledger: Ledger, now: list[int]) -> None:
    ledger.remember("initialised", detail="3 packages queued")
    take(ledger, "a")
    ledger.fail(NAMES["a"], "broken", None)
    assert rows(ledger, "SELECT at, event, package_hash, detail FROM history ORDER BY id") == [
        (now[0], "initialised", None, "3 packages queued"),
        (now[0], "package_failed", NAMES["a"], "broken"),
    ]


# moves


def test_a_package_that_is_not_in_hand_cannot_be_completed(ledger: Ledger) -> None:
    (claim,) = take(ledger, "a").values()
    ledger.give_up([NAMES["a"]])
    with pytest.raises(CorruptionError, match="illegal move"):
        ledger.record([outcome(claim, [])], [])
    assert status_of(ledger, "a") is Status.PENDING
    assert ledger.recorded_packages() == {}


def test_a_package_that_is_not_in_hand_cannot_fail(ledger: Ledger) -> None:
    """It was given up, removed or set aside meanwhile: nobody is told of a failure."""
    take(ledger, "a")
    ledger.give_up([NAMES["a"]])
    assert not ledger.fail(NAMES["a"], "broken", None)
    assert status_of(ledger, "a") is Status.PENDING


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_the_settings_of_the_database(ledger: Ledger) -> None:
    assert rows(ledger, "PRAGMA foreign_keys") == [(1,)]
    (mode,) = rows(ledger, "PRAGMA journal_mode")[0]
    (level,) = rows(ledger, "PRAGMA synchronous")[0]
    assert (mode, level) in {("wal", 2), ("delete", 3)}
    assert rows(ledger, "PRAGMA integrity_check") == [("ok",)]


def test_a_transaction_takes_the_write_lock_at_once(place: Path, ledger: Ledger) -> None:
    """Else two runs could both read, then one of them fails to write."""
    second = open_ledger(str(place))
    try:
        with ledger._transaction():
            raw = second._engine.raw_connection()
            is_file = second._engine.dialect.name == "sqlite"
            raw.cursor().execute("PRAGMA busy_timeout = 1" if is_file else "SET lock_timeout = 100")
            with pytest.raises(RegrainError, match="busy"):
                second.known_packages()
    finally:
        second.close()
