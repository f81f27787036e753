"""Doctor's judgements, on facts that no machine here has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from regrain.app.care import Source, configuration, exit_code, source_of
from regrain.ledger.rebuilding import judge_sqlite, owner_sum
from regrain.maintain.abilities import (
    NETWORK,
    Abilities,
    Mount,
    mount_of,
    parse_mounts,
    probe,
)
from regrain.maintain.doctor import kernel_numbers, versions
from regrain.maintain.doctor_disk import judge_abilities, judge_mount
from regrain.maintain.doctor_findings import Finding, Weight, some

ROOT = Path(__file__).parent.parent.parent
MOUNTS = (
    b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,usrquota\n"
    b"23 22 0:40 /a\\040b /mnt/a\\040b\\134c\\011d rw shared:2 master:3 - fuse.sshfs me@host:/ ro\n"
    b"24 22 0:41 / /mnt/nfs rw,noatime - nfs4 server:/export rw,vers=4.2\n"
    b"25 22 0:42 / /mnt/odd rw - btrfs\n"
    b"nonsense\n"
    b"26 22 0:43 / /half rw\n"
)
ABLE = Abilities(
    reflink=True,
    hard_links=True,
    user_xattrs=True,
    rename_noreplace=True,
    rename_exchange=True,
    unnamed_files=True,
    syncfs=True,
    folds_case=False,
    normalises=False,
    time_step_ns=1,
    time_max=15_032_385_535,
)


def test_mounts_are_read_with_their_escapes() -> None:
    mounts = parse_mounts(MOUNTS)
    assert mounts.keys() == {22, 23, 24}
    assert mounts[23].point == b"/mnt/a b\\c\td"
    assert (mounts[23].kind, mounts[23].source) == ("fuse.sshfs", b"me@host:/")
    assert mounts[23].is_read_only
    assert not mounts[24].is_read_only
    assert mounts[22].quotas == ["usrquota"]


def test_the_mount_of_an_open_file_is_found(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    mount = mount_of(fd)
    os.close(fd)
    assert mount is not None
    assert str(tmp_path).startswith(os.fsdecode(mount.point))
    assert mount_of(fd) is None  # closed by now


def advised(found: list[Finding]) -> set[tuple[Weight, str]]:
    assert all(bool(f.advice) == (f.level is not Weight.OK) for f in found)
    return {(f.level, f.advice.split(",")[0]) for f in found if f.advice}


@pytest.mark.parametrize("kind", sorted(NETWORK))
def test_network_file_systems_are_named(kind: str) -> None:
    found = list(judge_mount(Mount(b"/mnt", kind, b"there", ("rw",))))
    assert advised(found) == {(Weight.WARNING, "Run regrain on one machine only")}
    assert kind in found[-1].message
    found = list(judge_mount(Mount(b"/mnt", kind, b"there", ("rw",)), server_keeps_locks=True))
    assert advised(found) == {(Weight.ADVICE, "Steer the store")}
    assert "cannot be trusted" in found[-1].message


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("ext4", "rw", set()),
        ("fuse.mergerfs", "rw", {Weight.ADVICE}),
        ("xfs", "rw,ro", {Weight.WARNING}),
        ("xfs", "rw,prjquota", {Weight.ADVICE}),
        ("xfs", "rw,noquota", set()),
    ],
)
def test_other_mounts(kind: str, options: str, expected: set[Weight]) -> None:
    found = judge_mount(Mount(b"/mnt", kind, b"/dev/x", tuple(options.split(","))))
    assert {f.level for f in found} - {Weight.OK} == expected


@pytest.mark.parametrize(
    ("numbers", "is_safe", "mode"),
    [
        ((3, 40, 1), False, "DELETE"),
        ((3, 51, 2), False, "DELETE"),
        ((3, 51, 3), True, "WAL"),
        ((3, 53, 0), True, "WAL"),
    ],
)
def test_the_sqlite_that_can_corrupt(numbers: tuple[int, ...], is_safe: bool, mode: str) -> None:
    judged = judge_sqlite(numbers)
    assert (judged.is_safe, judged.journal_mode) == (is_safe, mode)
    warned = [f for f in versions("1", judged) if f.level is Weight.WARNING]
    assert [mode in f.message and "pysqlite3" in f.advice for f in warned] == [True] * (not is_safe)


@pytest.mark.parametrize(
    ("release", "numbers"),
    [("6.18.44-fc", (6, 18)), ("5.8", (5, 8)), ("4.19.0+", (4, 19)), ("odd", (0, 0))],
)
def test_kernel_releases(release: str, numbers: tuple[int, int]) -> None:
    assert kernel_numbers(release) == numbers


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({"rename_exchange": False}, Weight.ERROR, "write protocol"),
        ({"rename_noreplace": False}, Weight.ERROR, "write protocol"),
        ({"syncfs": False}, Weight.ERROR, "flushed as a whole"),
        ({"folds_case": True}, Weight.WARNING, "differ only in case"),
        ({"normalises": True}, Weight.WARNING, "composition"),
        ({"hard_links": False, "reflink": False}, Weight.ADVICE, "every object is a copy"),
        ({"unnamed_files": False}, Weight.ADVICE, "without a name"),
        ({"user_xattrs": False}, Weight.ADVICE, "extended attributes"),
        ({"time_step_ns": 10**9}, Weight.ADVICE, "1,000,000,000 ns"),
        ({"time_max": 2**31 - 1}, Weight.ADVICE, "2038-01-19"),
    ],
)
def test_what_a_file_system_lacks(changed: dict[str, Any], level: Weight, words: str) -> None:
    found = [f for f in judge_abilities(ABLE._replace(**changed)) if f.level is not Weight.OK]
    assert [(f.level, words in f.message, bool(f.advice)) for f in found] == [(level, True, True)]


def test_an_able_file_system_needs_no_advice() -> None:
    [found] = judge_abilities(ABLE)
    assert found.level is Weight.OK
    assert found.figures == ABLE._asdict()


def test_a_trial_that_fails_is_an_inability(tmp_path: Path) -> None:
    """Where the directory is gone, nothing can be made, and nothing is claimed to work."""
    place = tmp_path / "gone"
    place.mkdir()
    fd = os.open(place, os.O_RDONLY)
    place.rmdir()
    with pytest.raises(FileNotFoundError):
        probe(fd)
    os.close(fd)


def test_sums_tell_sets_apart() -> None:
    one, two, three = (blake3(bytes([n])).digest() for n in (1, 2, 3))
    assert owner_sum([one, two]) == owner_sum([two], owner_sum([one]))
    assert owner_sum([one, three]) != owner_sum([one, two])
    assert owner_sum([one]) != owner_sum([one, two])


def test_defaults_are_no_finding() -> None:
    assert [f.level for f in configuration(Source("", ()))] == [Weight.OK]


def test_where_settings_come_from(tmp_path: Path) -> None:
    env = {"REGRAIN_CONFIG": "/there", "REGRAIN_STORE__PATH": "/s", "REGRAIN_TEST_SEED": "1"}
    assert source_of(None, env) == Source("/there", ("REGRAIN_STORE__PATH",))
    assert source_of("/here", env).file == "/here"


@pytest.mark.parametrize(
    ("level", "corrupt", "code"),
    [
        (Weight.OK, False, 0),
        (Weight.ADVICE, False, 0),
        (Weight.WARNING, False, 1),
        (Weight.ERROR, False, 1),
        (Weight.ERROR, True, 4),
    ],
)
def test_exit_codes(level: Weight, corrupt: bool, code: int) -> None:
    found = Finding("check", level, "message", "advice", corrupt=corrupt)
    assert exit_code([Finding("check", Weight.OK, "fine"), found]) == code


def test_a_sentence_names_a_few() -> None:
    assert some(["a", "b"]) == "'a', 'b'"
    assert some(list("abcde")) == "'a', 'b', 'c' and 2 more"
