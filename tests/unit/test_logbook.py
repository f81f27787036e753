"""Logs: written to, put away when they are full, read as one, and never too many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regrain import disk
from regrain.migrate.chronicle import read_chronicle
from regrain.migrate.journal import Journal
from regrain.migrate.logbook import Limits, Logbook, lines_of, logs_in
from regrain.model import clock
from regrain.store.root import StoreRoot
from tests.command import Regrain

LINES = 40
SMALL = Limits(file_bytes=400, total_bytes=1 << 20)


@pytest.fixture
def root(store_path: Path) -> StoreRoot:
    store_path.mkdir()
    Regrain(store_path)("init")
    return StoreRoot(str(store_path))


def line(number: int) -> bytes:
    return b'{"at":%d,"event":"Remark","pid":1,"text":"number %d"}\n' % (number, number)


def logs_of(root: StoreRoot) -> Path:
    return Path(root.path) / "migration" / "logs"


def names(root: StoreRoot) -> list[str]:
    return sorted(os.listdir(logs_of(root)))


def told(root: StoreRoot) -> list[int]:
    """What all logs tell, the oldest first."""
    with disk.Closing(disk.open_directory("migration/logs", root.fd)) as fd:
        lines = [one for log in logs_in(fd) for one in lines_of(fd, log)]
    assert all(one + b"\n" == line(number) for number, one in enumerate(lines, _first(lines)))
    return [_number(one) for one in lines]


def _first(lines: list[bytes]) -> int:
    return _number(lines[0]) if lines else 0


def _number(raw: bytes) -> int:
    return int(raw.split(b":")[1].split(b",")[0])


def fill(root: StoreRoot, limits: Limits, first: int = 0) -> Logbook:
    book = Logbook(root, limits)
    for number in range(first, first + LINES):
        book.append(line(number))
    return book


def test_a_full_log_is_put_away_and_all_are_read_in_order(root: StoreRoot) -> None:
    fill(root, SMALL)
    today = clock.day_name(clock.now())
    found = names(root)
    assert found[0] == f"{today}.000001.jsonl.zst"
    assert found[-1] == f"{today}.jsonl"
    assert len(found) == 1 + LINES * len(line(10)) // SMALL.file_bytes
    assert told(root) == list(range(LINES))
    chronicle = read_chronicle(root)
    assert [remark.at for remark in chronicle.remarks] == list(range(LINES))
    assert (chronicle.unreadable, chronicle.left_out) == (0, 0)


def test_numbers_go_on_in_the_next_run(root: StoreRoot) -> None:
    fill(root, SMALL)
    before = set(names(root))
    fill(root, SMALL, LINES)
    assert before < set(names(root))
    assert told(root) == list(range(2 * LINES))


def test_the_oldest_go_where_there_are_too_many(root: StoreRoot) -> None:
    limits = Limits(file_bytes=400, total_bytes=300)
    fill(root, limits)
    sizes = [path.stat().st_size for path in logs_of(root).iterdir()]
    assert sum(sizes) <= limits.total_bytes + limits.file_bytes
    kept = told(root)
    assert kept == list(range(LINES - len(kept), LINES))
    assert 0 < len(kept) < LINES


def test_logs_of_former_days_count_where_today_is_short(root: StoreRoot) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        (logs_of(root) / f"{day}.jsonl").write_bytes(b" " * 600)
    Logbook(root, Limits(400, 900)).append(line(1))
    assert names(root)[0] == "2026-01-02.jsonl"


def test_a_log_that_is_put_away_is_a_frame_others_can_read(root: StoreRoot) -> None:
    import zstandard

    (logs_of(root) / "2026-01-01.jsonl").write_bytes(line(0))
    book = Logbook(root)
    book.append(line(1))
    book.put_away()
    old, new, now = names(root)
    assert (old, now) == ("2026-01-01.000001.jsonl.zst", f"{clock.day_name(clock.now())}.jsonl")
    for number, name in enumerate((old, new)):
        packed = (logs_of(root) / name).read_bytes()
        assert zstandard.ZstdDecompressor().decompress(packed) == line(number)
    assert (logs_of(root) / old).stat().st_mode & 0o777 == 0o644
    book.append(line(2))
    assert told(root) == [0, 1, 2]


def test_a_snapshot_is_put_away_beside_the_logs(root: StoreRoot) -> None:
    import zstandard

    state = Path(root.path) / "migration" / "state.json"
    today = clock.day_name(clock.now())
    # Killed before it was compressed.
    (logs_of(root) / f"{today}.000001.state.json").write_bytes(b"old")
    Journal(root).line("Remark", {})
    state.write_bytes(b"new")
    for _ in range(2):  # nothing is left to put away the second time
        Journal(root).put_away()
        assert not state.exists()
        found = {
            name: zstandard.ZstdDecompressor().decompress((logs_of(root) / name).read_bytes())
            for name in names(root)
            if "state" in name
        }
        assert found == {
            f"{today}.000001.state.json.zst": b"old",
            f"{today}.000003.state.json.zst": b"new",
        }
    assert len(told_events(root)) == 1, "it is no log"


def told_events(root: StoreRoot) -> list[bytes]:
    with disk.Closing(disk.open_directory("migration/logs", root.fd)) as fd:
        return [one for log in logs_in(fd) for one in lines_of(fd, log)]


def test_nothing_is_told_twice_after_a_kill(root: StoreRoot) -> None:
    book = fill(root, SMALL)
    first = names(root)[0]
    # Killed before the plain one was removed, and with a frame that is not whole.
    plain = b"".join(line(number) for number in range(8))
    (logs_of(root) / first.removesuffix(".zst")).write_bytes(plain)
    (logs_of(root) / f".{first.removesuffix('.jsonl.zst')}").write_bytes(b"half")
    assert told(root) == list(range(LINES))
    book.put_away()
    assert told(root) == list(range(LINES))
    assert not [name for name in names(root)[:-1] if not name.endswith(".zst")]


def test_a_frame_that_is_broken_is_counted_and_passed_over(root: StoreRoot) -> None:
    fill(root, SMALL)
    first, second, *_ = names(root)
    (logs_of(root) / first).write_bytes(b"no frame")
    content = (logs_of(root) / second).read_bytes()
    (logs_of(root) / second).write_bytes(content[:-9])
    chronicle = read_chronicle(root)
    assert chronicle.unreadable == 2
    assert chronicle.remarks[-1].at == LINES - 1


def test_where_it_cannot_be_put_away_lines_are_still_written(root: StoreRoot) -> None:
    book = Logbook(root, SMALL)
    failures = 0
    blocked = logs_of(root) / f".{clock.day_name(clock.now())}.000001"
    blocked.mkdir()  # in the way of the compressed one
    for number in range(LINES):
        try:
            book.append(line(number))
        except OSError:
            failures += 1
    assert failures == LINES * len(line(10)) // SMALL.file_bytes
    assert told(root) == list(range(LINES))
    blocked.rmdir()
    book.put_away()
    assert told(root) == list(range(LINES))
    assert all(name.endswith(".zst") for name in names(root)[:-1])
