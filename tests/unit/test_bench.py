"""The benchmarks judge: who did not do the work has no figures, and what was measured is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.corpus.chosen import Corpus, measured
from bench.corpus.synthetic import Shape, build
from bench.job import BenchError, Job
from bench.measure import measure
from bench.peers import PEERS, Peer, find
from bench.results import Results, ratios, spread
from bench.rounds import Turns, take_turns
from bench.table import markdown

REGRAIN = PEERS[0]


def idle(job: Job) -> None:
    """Claims to have linked everything."""
    tree = job.copy()
    job.step("idle", ["true"], reads=tree)
    job.prove("inodes", sum(1 for _ in tree.rglob("*")), 0)


def copying(job: Job) -> None:
    tree = job.copy()
    job.step("copying", ["cp", "-a", tree, job.place / "again"], reads=tree)
    job.leaves("copying", job.place / "again")
    job.steps["regrain init + migrate"] = job.steps["copying"]


PEER = Peer("copying", "copies", copying, "cp", "coreutils", 1)
IDLER = Peer("idle", "nothing", idle, "true", "coreutils", 1)


@pytest.fixture
def corpus(workplace: Path) -> Corpus:
    build(Shape(2, 8, 0.5, "tiny"), workplace / "corpus", lambda _: None)
    return measured("synthetic", workplace / "corpus")


@pytest.fixture
def turns(workplace: Path) -> Turns:
    results = Results.begin(workplace / "results", "test")
    return Turns(results, lambda _: None, time.monotonic() + 600, "sample", 2)


def test_facts(corpus: Corpus) -> None:
    facts = corpus.facts
    assert facts.files == 2 * (8 + 1)
    # Two manifests, and of sixteen ordinary files every second repeats another.
    assert facts.contents == 2 + 8
    assert facts.contents <= facts.carriers <= facts.files


def test_who_did_not_do_the_work_is_out(turns: Turns, corpus: Corpus, workplace: Path) -> None:
    take_turns(turns, "here, warm", [PEER, IDLER], corpus, workplace, cold=False)
    rounds = turns.results.document["parts"]["here, warm"]["rounds"]
    assert [set(steps) for steps in rounds] == [{"copying", "regrain init + migrate"}] * 2
    (problem,) = turns.results.document["problems"]
    assert problem.startswith("here, warm: idle: idle, inodes: found")
    assert rounds[0]["copying"]["inodes"] == corpus.usage.inodes
    assert not (workplace / "copying").exists()


def test_no_round_begins_too_late(turns: Turns, corpus: Corpus, workplace: Path) -> None:
    late = replace(turns, deadline=time.monotonic() - 1)
    take_turns(late, "here, warm", [PEER], corpus, workplace, cold=False)
    assert turns.results.document["parts"]["here, warm"]["rounds"] == []
    assert "want of time" in turns.results.document["problems"][0]


def test_who_is_missing_is_left_out_and_named(turns: Turns) -> None:
    ghost = Peer("ghost", "haunts", idle, "no-such-program", "no-such-package", 1)
    said: list[str] = []
    found = find(["ghost"], turns.results, said.append, install=False, known=(REGRAIN, ghost))
    assert found == [REGRAIN]
    assert turns.results.document["tools"]["ghost"] == "missing: not installed"
    assert said == ["ghost is missing and is left out: not installed"]


def test_what_was_measured_is_kept(turns: Turns, corpus: Corpus, workplace: Path) -> None:
    def interrupted(job: Job) -> None:
        raise KeyboardInterrupt

    stopper = Peer("stopper", "nothing", interrupted, "true", "coreutils", 1)
    with pytest.raises(KeyboardInterrupt):
        take_turns(turns, "here, warm", [PEER, stopper], corpus, workplace, cold=False)
    kept = Results.load(turns.results.directory).document
    (steps,) = kept["parts"]["here, warm"]["rounds"]
    assert steps["copying"]["wall"] > 0
    assert not (workplace / "stopper").exists()
    text = markdown(kept)
    assert "The run did not come to its end." in text
    assert "| copying |" in text


def test_ratios_are_of_the_same_round() -> None:
    rounds = [
        {"us": {"wall": 2.0}, "them": {"wall": 1.0}},
        {"us": {"wall": 8.0}, "them": {"wall": 2.0}},
        {"us": {"wall": 3.0}},
    ]
    assert ratios(rounds, "them", "us", "wall") == [0.5, 0.25]
    assert spread([0.5, 0.25, 0.4]) == "0.40 (0.25 to 0.50)"
    assert spread([0.5]) == "0.50"


def test_a_failed_step_says_why(turns: Turns, corpus: Corpus, workplace: Path) -> None:
    job = Job("sh", corpus, workplace, False, False, lambda *_: None)
    with pytest.raises(BenchError, match="try ended with 3: no luck"):
        job.step("try", ["sh", "-c", "echo no luck >&2; exit 3"], reads=corpus.path)


def test_an_interrupted_measurement_ends_what_it_started(workplace: Path) -> None:
    program = (
        "import signal, sys\n"
        "from bench.measure import measure\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "measure(['sh', '-c', 'echo $$ > child; sleep 100 & echo $! > grandchild; wait'], 1)\n"
    )
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=workplace,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    written = workplace / "grandchild"
    threads = Path(f"/proc/{process.pid}/task")
    while not (written.exists() and written.read_text() and len(list(threads.iterdir())) > 1):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    for name in ("child", "grandchild"):
        number = (workplace / name).read_text().strip()
        status = Path(f"/proc/{number}/status")
        assert not status.exists() or "zombie" in status.read_text()


def test_measure(workplace: Path) -> None:
    program = "data = bytearray(64 << 20); sum(range(20_000_000))"
    with (workplace / "out").open("wb") as output:
        result = measure([sys.executable, "-c", program], output)
    assert result.exit_code == 0
    assert result.cpu > 0
    assert result.wall > 0
    assert result.peak_tree >= result.peak_process > 64 << 20
