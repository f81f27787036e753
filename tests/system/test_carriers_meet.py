"""Two who bring the same bytes, one compressed and one plain, leave one carrier of a mode."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from regrain import disk
from regrain.migrate.jobs import Ingest, Options, Wanted
from regrain.migrate.objects import ObjectPublisher, Places
from regrain.migrate.staging import Stager
from regrain.model.entry import Entry, Kind
from regrain.store.frames import Compression
from regrain.store.locks import RunDirectory
from regrain.store.root import StoreRoot
from tests.command import Regrain
from tests.packed import TEXT
from tests.reader import check_store
from tests.trees import LIVE, Tree, describe, package_hash

SIZE = 262_144
BYTES = TEXT + bytes(SIZE - len(TEXT))


class Worker:
    """Brings files in as a worker process does, with a memory of its own."""

    def __init__(self, root: StoreRoot, pool: int, place: Path, options: Options) -> None:
        self.stager = Stager(root.objects, pool, root.owner, options)
        places = Places(root.fd, root.objects, pool)
        self.publisher = ObjectPublisher(places, root.owner, options, self.stager)
        self.place = place
        self.wanted: list[Wanted] = []

    def take(self, name: str) -> None:
        """Look at a file."""
        with disk.Closing(os.open(self.place / name, os.O_RDONLY)) as fd:
            status = os.fstat(fd)
            entry = Entry(
                name.encode(),
                Kind.FILE,
                status.st_mode & 0o7777,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                digest=blake3((self.place / name).read_bytes()).hexdigest(),
                size=status.st_size,
            )
            self.stager.ensure(entry, fd, status, None)
        self.wanted = list(self.stager.wanted.values())

    def publish(self) -> int:
        """Publish it; return how many carriers that brought."""
        with disk.Closing(disk.open_directory(os.fspath(self.place))) as source:
            return len(list(self.publisher.publish(source, self.wanted)))


def files(place: Path) -> None:
    """Write the same bytes twice, once with a hole, which no frame would keep."""
    place.mkdir()
    (place / "dense").write_bytes(BYTES)
    with (place / "sparse").open("wb") as stream:
        stream.write(TEXT)
        stream.truncate(SIZE)
    for name in ("dense", "sparse"):
        (place / name).chmod(0o644)


@pytest.fixture
def root(store_path: Path) -> StoreRoot:
    store_path.mkdir()
    Regrain(store_path)("init", "--no-predict")
    return StoreRoot(os.fspath(store_path))


@pytest.fixture
def pool(root: StoreRoot) -> Iterator[int]:
    with ExitStack() as stack:
        yield stack.enter_context(RunDirectory(root)).pool


def options(ingest: Ingest, *, compressed: bool) -> Options:
    return Options(
        ingest=ingest,
        can_reflink=False,
        can_link=True,
        link_outside=False,
        fsync_each=False,
        verify=True,
        compression=Compression(level=3, min_saving=0.05) if compressed else None,
    )


@pytest.mark.parametrize("ingest", [Ingest.AUTO, Ingest.COPY])
@pytest.mark.parametrize(
    ("plain", "is_compressing", "is_reversed"),
    [("sparse", True, False), ("sparse", True, True), ("dense", False, True)],
    ids=["a hole", "a hole first", "another setting first"],
)
def test_who_publishes_second_takes_what_came_first(  # noqa: PLR0917
    root: StoreRoot,
    pool: int,
    workplace: Path,
    plain: str,
    is_compressing: bool,
    ingest: Ingest,
    is_reversed: bool,
) -> None:
    files(workplace / "files")
    packing = Worker(root, pool, workplace / "files", options(ingest, compressed=True))
    other = Worker(root, pool, workplace / "files", options(ingest, compressed=is_compressing))
    packing.take("dense")
    other.take(plain)
    assert [bool(one.unpacked_size) for one in packing.wanted + other.wanted] == [True, False]
    both = [packing, other][:: -1 if is_reversed else 1]
    assert [worker.publish() for worker in both] == [1, 0]
    (carrier,) = (Path(root.path) / "objects").glob("*/*")
    assert carrier.name.endswith(".zst") is not is_reversed
    assert not [name for _, _, names in os.walk(f"/proc/self/fd/{pool}") for name in names]


def test_a_run_leaves_one_carrier_of_a_mode(store_path: Path, seed: int) -> None:
    """The same with real workers, interrupted once."""
    rng = Random(seed)
    names = [package_hash(seed, f"p{number}") for number in range(24)]
    for number, name in enumerate(names):
        with Tree(store_path / name, rng) as tree:
            describe(tree, f"p{number}", "1.0", sbom=())
            if rng.random() < 0.5:
                tree.file(LIVE + b"/data", BYTES, rng.choice((0o644, 0o755, 0o600)))
            else:
                tree.sparse(LIVE + b"/data", [(0, TEXT)], SIZE)
            tree.file(LIVE + b"/text", TEXT, rng.choice((0o644, 0o664, 0o755)))
    regrain = Regrain(store_path, {"REGRAIN_STORE__COMPRESSION": "zstd"})
    regrain("init", "--no-predict")
    regrain("migrate", "--jobs", "4", "--batch", "2", "--limit", "9")
    regrain("migrate", "--jobs", "4", "--batch", "1")
    assert check_store(store_path, legacy=names).problems == []
    found = Counter(
        (path.name[:64], path.stat().st_mode) for path in (store_path / "objects").glob("*/*")
    )
    assert max(found.values()) == 1, found
