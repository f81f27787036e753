"""Build a corpus: ``python -m bench.corpus wheels DEST`` or ``… synthetic DEST``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench.corpus import synthetic, wheels
from bench.trees import usage


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What to use instead of the process's own arguments.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        names = options.build(options)
    except (wheels.WheelError, OSError) as error:
        _say(f"bench.corpus: {error}")
        return 1
    total = usage(*(options.destination / name for name in names))
    sys.stdout.write(
        f"{len(names)} packages, {total.files:,} files, {total.directories:,} directories, "
        f"{total.allocated / 1e6:,.1f} MB allocated, {time.monotonic() - started:.1f} s\n"
    )
    return 0


def _build_wheels(options: argparse.Namespace) -> list[str]:
    files = wheels.fetch(wheels.read_list(options.list), options.cache, _say)
    return wheels.build(files, options.destination, _say)


def _build_synthetic(options: argparse.Namespace) -> list[str]:
    shape = synthetic.Shape(
        packages=options.packages,
        files=options.files,
        duplicates=options.duplicates,
        sizes=options.sizes,
        awkward=options.awkward,
        seed=options.seed,
    )
    return synthetic.build(shape, options.destination, _say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.corpus", description=__doc__)
    commands = parser.add_subparsers(required=True)

    real = commands.add_parser("wheels", help="a legacy store of real packages")
    real.add_argument("destination", type=Path)
    real.add_argument("--list", type=Path, default=wheels.DEFAULT_LIST, help="name==version lines")
    real.add_argument("--cache", type=Path, default=wheels.cache_root() / "wheels")
    real.set_defaults(build=_build_wheels)

    made = commands.add_parser("synthetic", help="a legacy store of a stated shape")
    made.add_argument("destination", type=Path)
    made.add_argument("--packages", type=int, default=10)
    made.add_argument("--files", type=int, default=100, help="ordinary files in each package")
    made.add_argument("--duplicates", type=_share, default=0.6, help="share of them, 0 to 1")
    made.add_argument("--sizes", choices=sorted(synthetic.SIZES), default="mixed")
    made.add_argument("--awkward", action="store_true", help="add all that is easy to lose")
    made.add_argument("--seed", type=int, default=0)
    made.set_defaults(build=_build_synthetic)
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        message = "must be at least 0 and below 1"
        raise argparse.ArgumentTypeError(message)
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
