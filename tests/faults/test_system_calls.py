"""Every system call of every command is its last, or fails: nothing is lost, nothing is left.

What is seen here and not in the sweeps over ``regrain.disk``: the ledger's own calls, those of C
libraries, and short writes. Each day some calls of each command; ``slow`` tries every single one,
or with ``REGRAIN_SWEEP=sample`` those that the seed chooses.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from tests.conftest import remove
from tests.faults import tally
from tests.faults.commands import COMMANDS, Arena, arena, outcome_of
from tests.faults.small import Scene
from tests.faults.sweeping import chosen
from tests.faults.tracing import READS, SYNCS, Fault, SystemCall, Traced, possible, traced
from tests.faults.undoing import overseen

EVERY_DAY = 3
"""Calls of each command and sort of fault that are tried every day."""

ONE_IN = 24
"""Of a sample: there are some forty thousand cases."""

CALLS_MIN = 10
MISSED_OF = 20
"""At most one fault in so many may miss: what threads do differs a little from run to run."""

LETTERS = ("ok", "F", "P", "H", "E", "Q", "K", "T")
MISSED = "missed"
ANYTHING = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EPERM", "EINTR")
FURTHER = {
    "link": ("EMLINK", "EXDEV"),
    "linkat": ("EMLINK", "EXDEV"),
    "openat": ("EMFILE",),
    "copy_file_range": ("EXDEV",),
    **dict.fromkeys(SYNCS.values(), ()),
}
TRIED_AGAIN = {"openat", "read", "write", "pwrite64"}
"""Calls that a signal may interrupt, by their manual, and that are made again."""
SPARE = re.compile(r"(\w+)(/migration|/state\.sqlite)?")
"""Where a flush may fail and nobody need know: logs and what is derived; the directory, which only
SQLite flushes, without a look at what comes of it; the ledger itself when it is closed, and its log
right before, since all that it holds still lies there, and stays."""

LEDGER = "/state.sqlite"
SYNC_ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR")
READ_ERRORS = ("EIO", "EMFILE", "EINTR")


@pytest.fixture(params=COMMANDS)
def at(request: pytest.FixtureRequest, place: Path, seed: int) -> Iterator[Arena]:
    possible()
    folder = place / "commands"
    remove(folder)
    folder.mkdir()
    yield arena(request.param, folder, seed)
    remove(folder)


def run(at: Arena, scene: Scene, fault: Fault | None = None, *, reads: bool = False) -> Traced:
    """Run the command in a child; its exit code is the number of its letter."""

    def work() -> int:
        return LETTERS.index(outcome_of(at.command, scene)[0])

    return traced(work, at.place, fault, reads=reads)


def survey(at: Arena, *, short: bool = False, reads: bool = False) -> list[SystemCall]:
    """Every call of a command in which nothing fails."""
    never = Fault(0, "short write" if short else "")
    done = run(at, at.fresh(), never, reads=reads)
    assert (done.signal, done.code, done.said) == (0, 0, ""), done
    assert len(done.calls) >= (1 if short else CALLS_MIN)
    return done.calls


def try_one(at: Arena, fault: Fault, *, reads: bool = False, is_told: bool = False) -> list[str]:
    """Let one call be the last, or fail; say what is wrong then, and after the next run."""
    scene = at.fresh()
    done = run(at, scene, fault, reads=reads)
    if done.fired is None:
        return [MISSED]
    letter, said = verdict(fault, done)
    if is_told and letter == "ok":
        said.append("it was passed over")
    said += [f"then {line}" for line in at.command.any_time(scene)]
    try:
        if reads and at.name != "repair":  # what could not be read is in doubt until it is
            said += [f"looked over {line}" for line in overseen(scene)]
        said += [f"at last {line}" for line in at.command.at_last(scene)]
    except Exception as error:  # noqa: BLE001 -- it must not raise, whatever it is
        said.append(f"the next run: {error!r}")
    tally.count(at.name, fault.kind, letter)
    return [f"{at.name}: {fault.kind} at {done.fired}: {line}" for line in said]


def verdict(fault: Fault, done: Traced) -> tuple[str, list[str]]:
    """Tell the letter of an outcome, and what is wrong with it."""
    assert done.fired is not None
    if fault.kind == "SIGKILL":
        return "killed", [] if done.signal == signal.SIGKILL else [f"it did not die: {done}"]
    if done.signal or done.said:
        return "", [f"no error of ours: signal {done.signal}: {done.said[-2000:]}"]
    letter = LETTERS[done.code]
    goes_on = fault.kind == "short write" or (
        fault.kind == "EINTR" and done.fired.name in TRIED_AGAIN
    )
    if goes_on and letter != "ok":
        return letter, [f"ended with {letter}"]
    return letter, []


def sweep(at: Arena, cases: Sequence[Fault], *, reads: bool = False) -> list[str]:
    """Try each; a few may miss."""
    found = [line for fault in cases for line in try_one(at, fault, reads=reads)]
    wrong = [line for line in found if line != MISSED]
    missed = len(found) - len(wrong)
    assert missed * MISSED_OF <= len(cases), f"{missed} of {len(cases)} did not fire"
    return wrong


def failures(calls: Sequence[SystemCall]) -> list[Fault]:
    """Every call with every error that it can end with."""
    return [Fault(call.number, kind) for call in calls for kind in errors_of(call)]


def errors_of(call: SystemCall) -> tuple[str, ...]:
    """What a call can end with."""
    if call.name in SYNCS.values():
        return SYNC_ERRORS
    return (*ANYTHING, *FURTHER.get(call.name, ()))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_or_failing_at_some_calls(at: Arena, seed: int) -> None:
    random = Random(f"{seed}:{at.name}")
    calls = survey(at)
    kills = [Fault(call.number) for call in random.sample(calls, EVERY_DAY)]
    fails = random.sample(failures(calls), EVERY_DAY)
    short = [Fault(random.choice(survey(at, short=True)).number, "short write")]
    assert sweep(at, kills + fails + short) == []


@pytest.mark.slow
@pytest.mark.timeout(10_800)
def test_killed_before_every_call(at: Arena, seed: int) -> None:
    cases = [Fault(call.number) for call in survey(at)]
    assert sweep(at, chosen(cases, seed, f"system calls, {at.name}", ONE_IN)) == []


@pytest.mark.slow
@pytest.mark.timeout(10_800)
def test_every_call_fails(at: Arena, seed: int) -> None:
    cases = failures(survey(at))
    assert sweep(at, chosen(cases, seed, f"failing system calls, {at.name}", ONE_IN)) == []


@pytest.mark.slow
@pytest.mark.timeout(10_800)
def test_every_flush_fails(at: Arena, seed: int) -> None:
    """A flush that fails once would succeed the next time, and the data be lost: it is told."""
    flushes = [call for call in survey(at) if call.name in SYNCS.values()]
    closing = set()
    for ledger in {call.place.removesuffix("-wal") for call in flushes if LEDGER in call.place}:
        its = [call for call in flushes if call.place in {ledger, f"{ledger}-wal"}]
        closing |= {one.number for one, then in pairwise(its) if then.place == ledger}
        closing |= {its[-1].number}
    said = []
    for call in flushes:
        is_spare = call.number in closing or bool(SPARE.fullmatch(call.place))
        # What a look found is noted if it can be; the repair goes on, and the next look finds it.
        is_spare = is_spare or (at.name == "repair" and LEDGER in call.place)
        said += try_one(at, Fault(call.number, "EIO"), is_told=not is_spare)
    assert flushes
    assert said == []


@pytest.mark.slow
@pytest.mark.timeout(10_800)
def test_every_write_is_short(at: Arena, seed: int) -> None:
    cases = [Fault(call.number, "short write") for call in survey(at, short=True)]
    assert sweep(at, chosen(cases, seed, f"short writes, {at.name}")) == []


@pytest.mark.slow
@pytest.mark.timeout(10_800)
def test_every_read_fails(at: Arena, seed: int) -> None:
    calls = [call for call in survey(at, reads=True) if call.name in READS.values()]
    cases = [Fault(call.number, kind) for call in calls for kind in READ_ERRORS]
    assert sweep(at, chosen(cases, seed, f"failing reads, {at.name}", ONE_IN), reads=True) == []
