"""What is decided about damaged objects, one by one; no disk is needed for that."""

from __future__ import annotations

import pytest

from regrain.maintain.patients import (
    Action,
    Condition,
    Need,
    Patient,
    Recorded,
    Treatment,
    treatments,
)

DIGEST = "cd" * 32
FURTHER = f"{DIGEST}.m0755"
WRONG = "its bytes hash to something else"


def condition(name: str = DIGEST, mode: int = 0o644, **changes: object) -> Condition:
    in_name = int(name[-4:], 8) if ".m" in name else None
    plain = Condition(name, in_name, mode, (1, 2), 1, is_regular=True, is_owned=True, flaw="")
    return plain._replace(**changes)  # type: ignore[arg-type]


def need(mode: int = 0o644) -> Need:
    return Need("ab" * 32, b"file", mode, 5, 7)


def patient(
    *conditions: Condition, recorded: dict[int, bool] | None = None, modes: tuple[int, ...] = ()
) -> Patient:
    rows = {mode: Recorded(is_bare, 7) for mode, is_bare in (recorded or {}).items()}
    return Patient(DIGEST, conditions, rows, tuple(map(need, modes)))


def decided(one: Patient) -> list[tuple[str, Action, int]]:
    return [(t.name, t.action, t.mode) for t in treatments(one)]


def test_what_is_well_is_left_alone() -> None:
    one = patient(condition(), condition(FURTHER, 0o755), modes=(0o644, 0o755))
    assert treatments(one) == []


def test_wrong_bytes_are_renewed_in_the_recorded_mode() -> None:
    bad = condition(mode=0o600, flaw=WRONG)
    one = patient(bad, recorded={0o644: True}, modes=(0o644,))
    assert treatments(one) == [Treatment(DIGEST, 0o644, Action.RENEW, WRONG)]


@pytest.mark.parametrize("links", [1, 2])
def test_metadata_alone_is_put_right_in_place_unless_the_inode_is_shared(links: int) -> None:
    one = patient(condition(mode=0o666, links=links), modes=(0o644,))
    wanted = Action.DRESS if links == 1 else Action.RENEW
    assert decided(one) == [(DIGEST, wanted, 0o644)]


def test_another_owner() -> None:
    assert decided(patient(condition(is_owned=False), modes=(0o644,))) == [
        (DIGEST, Action.DRESS, 0o644)
    ]


def test_what_is_no_file_is_renewed() -> None:
    one = patient(condition(is_regular=False, mode=0o777, flaw="x"), modes=(0o600,))
    assert decided(one) == [(DIGEST, Action.RENEW, 0o600)]


def test_what_is_missing_is_made_in_every_mode_that_is_needed() -> None:
    assert decided(patient(modes=(0o755, 0o644))) == [
        (DIGEST, Action.MAKE, 0o644),
        (FURTHER, Action.MAKE, 0o755),
    ]
    assert decided(patient(condition(), recorded={0o644: True, 0o755: False}, modes=(0o644,))) == [
        (FURTHER, Action.MAKE, 0o755)
    ]


def test_a_further_carrier_alone_is_enough_for_its_mode() -> None:
    assert decided(patient(condition(FURTHER, 0o755), modes=(0o755,))) == []


def test_no_carrier_is_more_permissive_than_the_files_that_need_it() -> None:
    one = patient(condition(mode=0o666, flaw=WRONG), modes=(0o664, 0o6711))
    assert {mode for _, _, mode in decided(one)} == {0o644, 0o711}


def test_what_nobody_needs_goes_aside_and_nothing_is_made() -> None:
    assert decided(patient(condition(flaw=WRONG), recorded={0o644: True})) == [
        (DIGEST, Action.ASIDE, 0)
    ]
    assert decided(patient(recorded={0o644: True})) == []


def test_the_ledger_alone_may_know_that_it_is_needed() -> None:
    """Where the file list is lost, too."""
    rows = {0o644: Recorded(is_bare=True, mtime_ns=7)}
    one = Patient(DIGEST, [], rows, (), is_owned=True)
    assert decided(one) == [(DIGEST, Action.MAKE, 0o644)]


def test_beside_a_good_frame_no_plain_carrier_is_missed() -> None:
    frame = condition(f"{DIGEST}.zst", is_compressed=True)
    assert decided(patient(frame, modes=(0o644, 0o755))) == []
    bad = frame._replace(flaw=WRONG)
    assert decided(patient(bad, modes=(0o644,))) == [
        (DIGEST, Action.MAKE, 0o644),
        (f"{DIGEST}.zst", Action.UNPACK, 0o644),
    ]
    assert decided(patient(bad)) == [(f"{DIGEST}.zst", Action.ASIDE, 0o644)]
