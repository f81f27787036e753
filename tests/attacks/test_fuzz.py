"""Whatever a file says: an error of ours or an answer, no hang, no growth, nothing outside."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest

from regrain.errors import RegrainError
from regrain.ledger import open_ledger
from regrain.ledger.rebuilding import Inspection
from regrain.migrate.control import change_control, read_control
from regrain.migrate.journal import read_snapshot
from regrain.settings import load
from regrain.store import frames
from regrain.store.checkout import checkout
from regrain.store.packages import FileLevelPackage
from regrain.store.root import StoreRoot
from regrain.store.unpack import LIMITS, unpack
from tests.attacks.mutations import inputs
from tests.attacks.rows import ROWS, write
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.verbs import PACKAGE, Model, make_model

CASES = int(os.environ.get("REGRAIN_FUZZ_CASES", "150"))
CASES_SLOW = 5000
SECONDS_MAX = 5.0
"""No input of this size takes longer; most take a thousandth of it."""
GROWTH_MAX = 256 << 20
SMALL = LIMITS._replace(bytes_max=8 << 20, entries_max=1000)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("fuzz")
    yield make_model(place)
    remove(place)


def configuration(place: Path, model: Model, content: bytes) -> None:
    (place / "input").write_bytes(content)
    load(str(place / "input"), {})


def environment(place: Path, model: Model, content: bytes) -> None:
    (place / "empty").touch()
    for line in content.split(b"\n")[:50]:
        key, _, value = line.partition(b"=")
        name = f"REGRAIN_STORE__{os.fsdecode(key.strip()).upper()}"
        with suppress(RegrainError):
            load(str(place / "empty"), {name: os.fsdecode(value.strip())})


def store_file(place: Path, model: Model, content: bytes) -> None:
    (place / "store" / "store.toml").write_bytes(content)
    StoreRoot(str(place / "store")).phase()


def control(place: Path, model: Model, content: bytes) -> None:
    (place / "store" / "migration" / "control.json").write_bytes(content)
    root = StoreRoot(str(model.path))
    root.fd = os.open(place / "store", os.O_RDONLY)
    try:
        read_control(root)
        change_control(root, lambda found: found)
        read_control(root)
    finally:
        os.close(root.fd)


def state(place: Path, model: Model, content: bytes) -> None:
    (place / "store" / "migration" / "state.json").write_bytes(content)
    root = StoreRoot(str(model.path))
    root.fd = os.open(place / "store", os.O_RDONLY)
    try:
        assert isinstance(read_snapshot(root), dict)
    finally:
        os.close(root.fd)


def file_list(place: Path, model: Model, content: bytes) -> None:
    folder = place / "store" / "packages" / PACKAGE
    folder.mkdir(exist_ok=True)
    (folder / "files.json").write_bytes(content)
    packages = os.open(folder.parent, os.O_RDONLY)
    objects = os.open(model.path / "objects", os.O_RDONLY)
    try:
        package = FileLevelPackage(packages, objects, PACKAGE)
        for path in (b"", b"manifest.toml", b"../victim", b"opt/pm/live/bin/run", b"\xff"):
            with suppress(RegrainError):
                package.lookup(path)
        with suppress(RegrainError):
            package.manifest()
        package.contents()
        checkout(package, str(place / "out"))
    finally:
        os.close(packages)
        os.close(objects)
        remove(place / "out")


def package_archive(place: Path, model: Model, content: bytes) -> None:
    (place / "input").write_bytes(content)
    (place / "out").mkdir()
    source, target = (os.open(place / name, os.O_RDONLY) for name in ("input", "out"))
    try:
        unpack(source, target, keep_owner=True, limits=SMALL)
    finally:
        os.close(source)
        os.close(target)
        remove(place / "out")


def frame(place: Path, model: Model, content: bytes) -> None:
    (place / "input").write_bytes(content)
    fd = os.open(place / "input", os.O_RDONLY)
    try:
        with suppress(frames.FrameError):
            assert sum(map(len, frames.pieces(fd))) == frames.content_size(fd)
    finally:
        os.close(fd)


TARGETS: dict[str, Callable[[Path, Model, bytes], None]] = {
    "configuration": configuration,
    "environment": environment,
    "store.toml": store_file,
    "control.json": control,
    "state.json": state,
    "files.json": file_list,
    "sp": package_archive,
    "frames": frame,
}


def fuzz(kind: str, place: Path, model: Model, seed: int, number: int) -> None:
    (place / "store" / "migration").mkdir(parents=True)
    (place / "store" / "packages").mkdir()
    (place / "victim").mkdir()
    (place / "victim" / "kept").write_text("as it was\n")
    before, store = snapshot(place / "victim"), snapshot(model.path)
    slowest = 0.0
    sentences: list[str] = []
    names, memory = set(os.listdir(place)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    descriptors = len(os.listdir("/proc/self/fd"))
    for name, content in inputs(kind, seed, number):
        begun = time.monotonic()
        try:
            TARGETS[kind](place, model, content)
        except RegrainError as error:
            sentences.append(str(error))
        except BaseException as error:
            error.add_note(f"{name}: {content[:2000]!r}")
            raise
        slowest = max(slowest, time.monotonic() - begun)
        assert slowest < SECONDS_MAX, name
        assert set(os.listdir(place)) <= {*names, "input", "out", "empty"}, name
    assert "\n" not in "".join(sentences).encode().decode()
    assert sentences or kind in {"environment", "frames", "state.json"}
    assert differences(before, snapshot(place / "victim"), identity=True) == []
    assert differences(store, snapshot(model.path), identity=True) == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < GROWTH_MAX >> 10


@pytest.mark.parametrize("kind", TARGETS)
def test_inputs(model: Model, workplace: Path, seed: int, kind: str) -> None:
    fuzz(kind, workplace, model, seed, CASES)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", TARGETS)
def test_many_inputs(model: Model, workplace: Path, seed: int, kind: str) -> None:
    fuzz(kind, workplace, model, seed + 1, CASES_SLOW)


def read_ledger(store: Path) -> None:
    """Ask all that the commands ask."""
    with closing(open_ledger(str(store))) as ledger:
        asked: list[Callable[[], object]] = [
            ledger.totals,
            ledger.standings,
            ledger.intents,
            ledger.in_progress,
            ledger.recorded_packages,
            ledger.recorded_lists,
            ledger.legacy_sizes,
            ledger.excluded,
            ledger.last_completed,
            lambda: list(ledger.package_rows()),
            lambda: list(ledger.object_sizes()),
            lambda: ledger.unreferenced(2**40),
            lambda: [ledger.carriers_in(f"{shard:02x}") for shard in range(256)],
            lambda: ledger.history_of(PACKAGE),
            lambda: ledger.claim(5),
        ]
        for ask in asked:
            with suppress(RegrainError):
                ask()


def look_into(store: Path) -> None:
    with Inspection(str(store / "state.sqlite")) as found:
        asked = (found.problems, found.revision, found.owner_sums)
        listed = (found.history, found.excluded, found.intents, found.integrity)
        for ask in (*asked, *(lambda each=each: list(each()) for each in listed)):
            with suppress(RegrainError):
                ask()


def ledgers(place: Path, model: Model, seed: int, number: int) -> None:
    """Bytes of the file, and rows, are changed at random; readers and writers then ask."""
    good = (model.path / "state.sqlite").read_bytes()
    store = place / "store"
    (store / "migration").mkdir(parents=True)
    path = store / "state.sqlite"
    for case in range(number):
        rng = Random(f"{seed} ledger {case}")
        for other in store.glob("state.sqlite*"):
            other.unlink()
        path.write_bytes(good)
        rows = rng.sample(sorted(ROWS), rng.randrange(4))
        with suppress(Exception):  # some rows stand in each other's way
            for name in rows:
                write(store, ROWS[name], place / "victim")
        content = bytearray(path.read_bytes())
        for _ in range(rng.choice((0, 1, 4, 64)) if rows else rng.choice((1, 4, 64))):
            content[rng.randrange(len(content))] = rng.choice((0, 255, rng.randrange(256)))
        path.write_bytes(content[: rng.choice((len(content),) * 9 + (rng.randrange(9999),))])
        for ask in (read_ledger, look_into):
            try:
                with suppress(RegrainError):
                    ask(store)
            except BaseException as error:
                error.add_note(f"ledger {seed} {case}: {rows}")
                raise
        assert os.listdir(place) == ["store"], case


def test_ledgers(model: Model, workplace: Path, seed: int) -> None:
    ledgers(workplace, model, seed, CASES // 10)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_ledgers(model: Model, workplace: Path, seed: int) -> None:
    ledgers(workplace, model, seed + 1, CASES_SLOW // 20)
