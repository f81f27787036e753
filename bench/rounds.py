"""Run the peers in turn, A B C A B C …, so that what slows the machine slows them all."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.corpus.chosen import prepare, sources
from bench.images import REFLINKS, mounted
from bench.job import BenchError, Job
from bench.trees import usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.corpus.chosen import Corpus
    from bench.peers import Peer
    from bench.results import Results

ROOM = 5
"""Times the corpus: itself, a copy, what a peer adds, and what the file system needs."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What is the same for all parts of a run.

    Attributes:
        results: Takes every figure, at once.
        say: Called with lines of progress.
        deadline: The monotonic time after which no round begins.
        corpus: A name from `bench.corpus.chosen.LISTS`.
        rounds: How many.
    """

    results: Results
    say: Callable[[str], None]
    deadline: float
    corpus: str
    rounds: int


def measure_here(turns: Turns, peers: Sequence[Peer], place: Path, *, cold: bool) -> None:
    """Measure on the file system that the work directory lies on."""
    chosen = [peer for peer in peers if peer.reflinks != "only" and (peer.cold or not cold)]
    corpus = prepare(turns.corpus, place / "corpus", turns.say)
    part = f"here, {'cold' if cold else 'warm'}"
    take_turns(turns, part, chosen, corpus, place, cold=cold)


def measure_on_image(turns: Turns, peers: Sequence[Peer], kind: str, place: Path) -> None:
    """Measure on a file system of another kind, in an image, warm.

    Where files can share blocks, the peers are those to whom that matters.
    """
    wanted = {"only", "too"} if kind in REFLINKS else {"too", "no"}
    chosen = [peer for peer in peers if peer.reflinks in wanted]
    size = usage(*sources(turns.corpus, turns.say)).allocated
    with mounted(kind, place, ROOM * size) as point:
        corpus = prepare(turns.corpus, point / "corpus", turns.say)
        take_turns(turns, f"{kind}, warm", chosen, corpus, point, cold=False)


def take_turns(
    turns: Turns, part: str, peers: Sequence[Peer], corpus: Corpus, place: Path, *, cold: bool
) -> None:
    rounds: list[dict[str, Any]] = []
    turns.results.document["parts"][part] = {
        "corpus": {
            "name": corpus.name,
            "packages": len(corpus.packages),
            **asdict(corpus.facts),
            **asdict(corpus.usage),
        },
        "rounds": rounds,
    }
    out: set[str] = set()
    longest = 0.0
    for number in range(1, turns.rounds + 1):
        began = time.monotonic()
        if began + longest > turns.deadline:
            turns.results.problem(f"{part}: ended after {number - 1} rounds, for want of time")
            return
        turns.say(f"{part}: round {number} of {turns.rounds}")
        steps: dict[str, Any] = {}
        rounds.append(steps)
        for peer in peers:
            if peer.name in out:
                continue
            job = Job(
                peer=peer.name,
                corpus=corpus,
                place=place / peer.name,
                cold=cold,
                own_filesystem=not part.startswith("here"),
                on_step=lambda name, step: turns.say(f"  {name}: {step['wall']:.2f} s"),
                steps=steps,
            )
            if not _take_turn(turns, part, peer, job):
                out.add(peer.name)
        longest = max(longest, time.monotonic() - began)


def _take_turn(turns: Turns, part: str, peer: Peer, job: Job) -> bool:
    """Let one peer do its work once.

    Returns:
        Whether it did it; one that did not is out, and its figures of this round with it.
    """
    job.place.mkdir()
    try:
        peer.run(job)
    except (BenchError, OSError, ValueError, KeyError) as error:
        turns.say(f"  {peer.name} is out: {error}")
        turns.results.problem(f"{part}: {peer.name}: {error}")
        for name in [name for name, step in job.steps.items() if step["peer"] == peer.name]:
            del job.steps[name]
        return False
    finally:
        job.remove()
        turns.results.save()
    return True
