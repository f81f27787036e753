"""Measure regrain beside its neighbours: ``make bench``.

Several parts, each of which can be asked for alone: `peers` (all peers, in turn, warm, on the
file system of the work directory), `cold` (some of them with dropped caches; takes root), `images`
(xfs and btrfs in image files; takes root), `micro` (start-up and single calls) and `scaling`
(synthetic stores of growing size). What was measured is saved after every turn, so an
interrupted run leaves tables of what it had. No round begins that would end after the time of
`--minutes`.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import micro, peers, plot, rounds, scaling, table
from bench.corpus import wheels
from bench.corpus.chosen import LISTS
from bench.images import MAKE
from bench.job import BenchError
from bench.results import Results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

PARTS = ("peers", "micro", "images", "scaling", "cold")
IMAGES = ("xfs", "btrfs")
DEFAULT_OUTPUT = Path(__file__).parents[1] / "build" / "bench"
SHARE_OF_FULL = {"sample": 0.016, "quarter": 0.28, "full": 1.0}
MICRO_MINUTES = 3.0
NICE = 10


def main() -> int:
    """Run the benchmark; the tables go to stdout, progress to stderr.

    Returns:
        The exit code: 0 if it came to its end, whatever the tables say was left out.
    """
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    if options.nice:
        os.nice(NICE)
    results = Results.begin(options.output, shlex.join(sys.argv[1:]))
    code = 0
    try:
        _check_machine()
        _measure(options, results)
        results.document["complete"] = True
    except KeyboardInterrupt:
        _say("interrupted; what was measured is kept")
        code = 130
    except (BenchError, wheels.WheelError, OSError, subprocess.CalledProcessError) as error:
        _say(f"bench: {error}")
        results.problem(str(error))
        code = 1
    finally:
        results.save()
    path = table.write(results)
    print(path.read_text(encoding="utf-8"))
    for drawn in plot.draw(results, _say):
        _say(f"written to {drawn}")
    _say(f"written to {path}")
    return code


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--parts", type=_several(PARTS), default=PARTS, help=_named(PARTS, PARTS))
    parser.add_argument("--corpus", choices=sorted(LISTS), default="quarter")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peers",
        type=_several(tuple(peers.BY_NAME)),
        default=tuple(peers.BY_NAME),
        help=_named(peers.BY_NAME, peers.BY_NAME),
    )
    parser.add_argument(
        "--filesystems", type=_several(tuple(MAKE)), default=IMAGES, help=_named(MAKE, IMAGES)
    )
    parser.add_argument(
        "--scales",
        type=_several(tuple(scaling.SCALES)),
        default=scaling.DEFAULT_SCALES,
        help=_named(scaling.SCALES, scaling.DEFAULT_SCALES),
    )
    parser.add_argument(
        "--minutes", type=float, default=43.0, help="no round begins that would end later"
    )
    parser.add_argument("--no-install", action="store_true", help="leave missing peers out")
    parser.add_argument("--nice", action="store_true", help="let others on this machine go first")
    parser.add_argument(
        "--directory", type=Path, default=wheels.cache_root() / "run", help="works here"
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    return parser


def _named(known: Iterable[str], default: Iterable[str]) -> str:
    """Say what may be asked for, divided by commas."""
    names, chosen = ", ".join(known), ", ".join(default)
    return f"of {names}; default: {'all' if names == chosen else chosen}"


def _several(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := set(names) - set(known):
            wrong = ", ".join(sorted(unknown))
            message = f"unknown: {wrong}; known: {', '.join(known)}"
            raise argparse.ArgumentTypeError(message)
        return names

    return parse


def _check_machine() -> None:
    """Refuse before the long preparations what cannot end well."""
    module = importlib.util.find_spec("regrain")
    if module is None or not module.submodule_search_locations:
        raise BenchError("regrain is not installed in this Python")
    for place in module.submodule_search_locations:
        compileall.compile_dir(place, quiet=1)  # else the first run would be timed compiling


def _measure(options: argparse.Namespace, results: Results) -> None:
    found = peers.find(options.peers, results, _say, install=not options.no_install)
    options.directory.mkdir(parents=True, exist_ok=True)
    _foretell(options, found)
    turns = rounds.Turns(
        results=results,
        say=_say,
        deadline=time.monotonic() + options.minutes * 60,
        corpus=options.corpus,
        rounds=options.rounds,
    )
    for name, work in _work(options, found, turns):
        if time.monotonic() > turns.deadline:
            results.problem(f"{name}: not begun, for want of time")
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=options.directory, prefix="run-") as place:
            try:
                work(Path(place))
            except (BenchError, OSError, subprocess.CalledProcessError) as error:
                _say(f"{name}: {error}")
                results.problem(f"{name}: {error}")
        _say(f"{name} took {(time.monotonic() - began) / 60:.1f} minutes")


def _work(
    options: argparse.Namespace, found: list[peers.Peer], turns: rounds.Turns
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield what is to be done, in the order of its weight, each with its name."""
    parts = options.parts
    if "peers" in parts:
        yield "peers", partial(rounds.measure_here, turns, found, cold=False)
    if "micro" in parts:
        yield "micro", partial(micro.measure_calls, turns)
    if "images" in parts:
        for kind in options.filesystems:
            yield kind, partial(rounds.measure_on_image, turns, found, kind)
    if "scaling" in parts:
        yield "scaling", partial(scaling.measure_growth, turns, options.scales)
    if "cold" in parts and os.geteuid() == 0:
        yield "cold", partial(rounds.measure_here, turns, found, cold=True)
    elif "cold" in parts:
        turns.results.problem("cold: needs root, to drop caches")


def _foretell(options: argparse.Namespace, found: list[peers.Peer]) -> None:
    """Say what it will take, from what it took on two cores."""
    share = SHARE_OF_FULL[options.corpus] * options.rounds / 60
    cold = [peer for peer in found if peer.cold and peer.reflinks != "only"]
    minutes = {
        "peers": sum(peer.seconds for peer in found if peer.reflinks != "only") * share,
        "micro": MICRO_MINUTES,
        "images": len(options.filesystems)
        * sum(peer.seconds for peer in found if peer.reflinks != "no")
        * share,
        "scaling": sum(scaling.SCALES[name].minutes for name in options.scales),
        "cold": sum(peer.seconds for peer in cold) * share * 1.5,
    }
    asked = {name: minutes[name] for name in PARTS if name in options.parts}
    each = ", ".join(f"{name} {time:.0f}" for name, time in asked.items())
    _say(
        f"this will take about {sum(asked.values()):.0f} minutes on two cores ({each}); "
        f"no round begins that would end after {options.minutes:.0f}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
