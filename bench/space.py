"""Measure what a corpus takes on disk: ``python -m bench.space LEGACY PLACE``.

Copies the legacy store LEGACY to PLACE (unless it is there already), migrates it, switches over,
cleans up, compresses all objects, and prints what each part takes; ``du`` has the last word.
Beside it: what reading costs plain and compressed, what file lists would take in other forms,
what packing small objects together would bring, and what restic and borg make of the corpus.
Nothing of the packing is built: its figures are computed from the objects, and its reads timed
on files made for it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from regrain.app.store import PackageStore
from regrain.model.entry import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BLOCK = 4096
READS = 3000
ROUNDS = 5
LEVEL = 3
SMALL = (4 << 10, 16 << 10, 64 << 10)
SOLID = 64 << 10
SEED = 20_261_122


def main() -> int:
    """Run it; everything is printed as it comes."""
    legacy, place = Path(sys.argv[1]), Path(sys.argv[2])
    store = place / "store"
    place.mkdir(exist_ok=True)
    if not store.exists():
        _run("cp", "-a", "--", legacy, store)
    before = _du(store)
    print(f"legacy: {before} bytes by du")
    for words in (["init"], ["migrate"]):
        _regrain(store, *words)
    _show("migrated, legacy directories still there", store, before)
    _cutover(store)
    _regrain(store, "cleanup", "--execute")
    _show("plain, after cleanup", store, before)
    print(_regrain(store, "show", min(path.name for path in store.glob("packages/*"))))
    _show_lists(store)
    _show_ledger(store, place)
    _show_packing(store, place)
    picked = _pick(store)
    plain = _read_times(store, picked)
    _regrain(store, "repack", "--compress", "all", "--execute")
    _show("zstd", store, before)
    packed = _read_times(store, picked)
    for label in plain:
        print(f"read, {label}: plain {plain[label]:.1f} µs, zstd {packed[label]:.1f} µs")
    _show_peers(legacy, place)
    return 0


def _show_peers(legacy: Path, place: Path) -> None:
    """Tell what two well-known programs make of the same corpus, compressed."""
    for name, commands in {
        "restic backup": [
            ("restic", "-r", place / "restic", "init"),
            ("restic", "-r", place / "restic", "--no-cache", "backup", legacy),
        ],
        "borg create -C zstd,3": [
            ("borg", "init", "-e", "none", place / "borg"),
            ("borg", "create", "-C", "zstd,3", f"{place / 'borg'}::corpus", legacy),
        ],
    }.items():
        if shutil.which(commands[0][0]) is None:
            print(f"{name}: not installed")
            continue
        for command in commands:
            begin = time.perf_counter()
            subprocess.run(
                command,
                check=True,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "RESTIC_PASSWORD": "none", "BORG_BASE_DIR": str(place / "base")},
            )
            seconds = time.perf_counter() - begin
        print(f"{name}: {seconds:.1f} s, {_du(place / name.split()[0])} bytes by du", flush=True)


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def _regrain(store: Path, *words: str) -> str:
    begin = time.perf_counter()
    said = _run(sys.executable, "-m", "regrain", "--store", store, *words)
    print(f"regrain {' '.join(words)}: {time.perf_counter() - begin:.1f} s", flush=True)
    return said


def _cutover(store: Path) -> None:
    """Switch over; on a busy machine the shadow comparison may take another try."""
    for left in (2, 1, 0):
        try:
            _regrain(store, "cutover", "--no-backup")
        except subprocess.CalledProcessError as error:
            if not left:
                raise
            print(error.stderr, flush=True)
        else:
            return


def _du(path: Path) -> int:
    os.sync()
    return int(_run("du", "-s", "--block-size=1", path).split()[0])


def _show(what: str, store: Path, before: int) -> None:
    space: dict[str, Any] = json.loads(_regrain(store, "status", "--space", "--json"))["space"]
    taken = _du(store)
    print(f"## {what}: {taken} bytes by du, {1 - taken / before:.2%} saved")
    print(json.dumps(space, indent=1), flush=True)


def _show_lists(store: Path) -> None:
    """Tell what file lists take, and what they would compressed."""
    pack = zstandard.ZstdCompressor(level=LEVEL).compress
    raw = [path.read_bytes() for path in store.glob("packages/*/files.json")]
    packed = [len(pack(content)) for content in raw]
    copies = [path.stat().st_blocks * 512 for path in store.glob("packages/*/*")]
    print(
        f"file lists: {len(raw)}, {sum(map(len, raw))} bytes; zstd {sum(packed)}; in blocks "
        f"{_blocks(map(len, raw))} and {_blocks(packed)}; with copies for people {sum(copies)}"
    )


def _show_ledger(store: Path, place: Path) -> None:
    """Tell how much of the ledger is free pages, and what it takes written anew."""
    ledger = store / "state.sqlite"
    copy = place / "vacuumed.sqlite"
    copy.unlink(missing_ok=True)
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute("VACUUM INTO ?", (str(copy),))
    try:
        found = connection.execute(
            "SELECT name, SUM(pgsize), SUM(unused) FROM dbstat GROUP BY name ORDER BY 2 DESC"
        ).fetchmany(8)
    except sqlite3.OperationalError as error:  # built without it
        found = [(str(error),)]
    connection.close()
    print(
        f"ledger: {ledger.stat().st_size} bytes, {free * size} in free pages; "
        f"vacuumed {copy.stat().st_size}; {found}"
    )
    copy.unlink()


def _blocks(sizes: Iterable[int]) -> int:
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


def _show_packing(store: Path, place: Path) -> None:
    """Tell what objects up to some sizes would take in files that hold many."""
    objects = [path.read_bytes() for path in sorted((store / "objects").glob("*/*"))]
    pack = zstandard.ZstdCompressor(level=LEVEL).compress
    for limit in SMALL:
        small = [content for content in objects if len(content) <= limit]
        frames = [min(pack(content), content, key=len) for content in small]
        solid = [pack(piece) for piece in _together(small)]
        print(
            f"objects up to {limit >> 10} KiB: {len(small)} of {len(objects)}, "
            f"{sum(map(len, small))} bytes, in blocks {_blocks(map(len, small))}; "
            f"as frames in blocks {_blocks(map(len, frames))}, end to end "
            f"{sum(map(len, frames))}, in blocks of {SOLID >> 10} KiB {sum(map(len, solid))}; "
            f"inodes {len(small)}"
        )
    _time_packing([content for content in objects if 0 < len(content) <= SMALL[1]], place)


def _together(contents: list[bytes]) -> list[bytes]:
    """Lay contents end to end, parted where a piece has grown to its size."""
    pieces: list[bytes] = []
    piece = bytearray()
    for content in contents:
        piece += content
        if len(piece) >= SOLID:
            pieces.append(bytes(piece))
            piece.clear()
    return [*pieces, bytes(piece)]


def _time_packing(contents: list[bytes], place: Path) -> None:
    """Time reads of small objects: a file each, frames end to end, and pieces of many."""
    pack = zstandard.ZstdCompressor(level=LEVEL).compress
    unpack = zstandard.ZstdDecompressor().decompress
    chosen = random.Random(SEED).sample(contents, min(READS, len(contents)))
    folder = place / "packing"
    folder.mkdir(exist_ok=True)
    frames = [pack(content) for content in chosen]
    for number, frame in enumerate(frames):
        (folder / f"{number}.zst").write_bytes(frame)
        (folder / str(number)).write_bytes(chosen[number])
    spans, position = [], 0
    for frame in frames:
        spans.append((position, len(frame)))
        position += len(frame)
    (folder / "frames").write_bytes(b"".join(frames))
    solid = pack(max(_together(chosen), key=len))
    (folder / "solid").write_bytes(solid)
    fd, other = (os.open(folder / name, os.O_RDONLY) for name in ("frames", "solid"))
    ways: dict[str, Callable[[int], object]] = {
        "a plain file each": lambda number: (folder / str(number)).read_bytes(),
        "a frame each": lambda number: unpack((folder / f"{number}.zst").read_bytes()),
        "frames end to end": lambda number: unpack(
            os.pread(fd, spans[number][1], spans[number][0])
        ),
        "a piece of many": lambda _: unpack(os.pread(other, len(solid), 0)),
    }
    for label, read in ways.items():
        print(f"reading small objects, {label}: {_median(read, range(len(chosen))):.1f} µs")
    os.close(fd)
    os.close(other)
    _run("rm", "-rf", "--", folder)


def _median(call: Callable[[Any], object], each: Iterable[Any]) -> float:
    """Return microseconds of CPU a call, the median of rounds; the first one warms up.

    Warm reads wait for nothing, and what others do on the machine does not count as CPU.
    """
    times = []
    listed = list(each)
    for _ in range(ROUNDS + 1):
        begin = time.process_time()
        for one in listed:
            call(one)
        times.append((time.process_time() - begin) / max(1, len(listed)) * 1e6)
    return statistics.median(times[1:])


SIZES = {
    "up to 4 KiB": (1, 4096),
    "4 to 64 KiB": (4097, 65_536),
    "64 KiB to 1 MiB": (65_537, 1 << 20),
}


def _pick(store: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Choose files of several sizes, from all packages."""
    found: dict[str, list[tuple[str, bytes]]] = {label: [] for label in SIZES}
    for package in PackageStore.open(str(store)).packages():
        for entry in package.files():
            if entry.kind is Kind.FILE:
                for label, (low, high) in SIZES.items():
                    if low <= entry.size <= high:
                        found[label].append((package.hash, entry.path))
    chance = random.Random(SEED)
    return {label: chance.sample(all_, min(len(all_), READS // 3)) for label, all_ in found.items()}


def _read_times(store: Path, picked: dict[str, list[tuple[str, bytes]]]) -> dict[str, float]:
    opened = PackageStore.open(str(store))
    packages = {name: opened.get_package(name) for pairs in picked.values() for name, _ in pairs}

    def read(name: str, path: bytes) -> bytes:
        return packages[name].read(path)

    return {
        label: _median(lambda pair: list(starmap(read, [pair])), pairs)
        for label, pairs in picked.items()
    }


if __name__ == "__main__":
    sys.exit(main())
