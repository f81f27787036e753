"""Reading packages: bytes are compared with their digest before they count as read."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from regrain import PackageStore
from regrain.app.store import Package
from regrain.errors import (
    CorruptionError,
    MalformedHashError,
    NotAStoreError,
    RegrainError,
    UnknownFormatError,
    UnknownPackageError,
)
from regrain.model.entry import Kind
from regrain.model.phase import Layout, Phase
from tests.conftest import remove
from tests.faults.inline import Way, initialise, migrate
from tests.faults.small import quick_place
from tests.trees import Tree, describe, package_hash

NAME, OLD = package_hash(1, "read"), package_hash(1, "old", 32)
BIG = Random(7).randbytes(300_000)
SMALL = b"a small file\n"
COPIED = Way(ingest="copy")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with one package in both layouts, copied, and one that is legacy only."""
    with quick_place(tmp_path_factory.mktemp("package")) as place:
        with Tree(place / "store" / NAME, Random(1)) as tree:
            describe(tree, "jq", "1.7")
            tree.file(b"bin/big", BIG, 0o755)
            tree.file(b"bin/small", SMALL, 0o640)
            tree.file(b"empty")
            tree.symlink(b"link", b"bin/small")
            tree.file(b"raw\xff", b"raw\n")
        initialise(place / "store")
        migrate(place / "store", COPIED)
        with Tree(place / "store" / OLD, Random(1)) as tree:
            describe(tree, "old", "0.1", sbom=())
            tree.file(b"bin/small", SMALL)
        yield place / "store"
        remove(place / "store")


@pytest.fixture
def path(template: Path) -> Iterator[Path]:
    """A copy that may be damaged."""
    copy = template.parent / "copy"
    subprocess.run(["cp", "-a", template, copy], check=True)
    yield copy
    remove(copy)


@pytest.fixture
def alone(path: Path) -> Path:
    """The same without the legacy directory: nothing else can serve."""
    (path / NAME).rename(path / "trash" / NAME)
    return path


@pytest.fixture
def package(path: Path) -> Package:
    return PackageStore.open(path).get_package(NAME)


def carrier(store: Path, content: bytes) -> Path:
    """The object that holds some bytes, found by looking at all of them."""
    files = (p for p in (store / "objects").glob("*/*") if p.is_file())
    (found,) = [p for p in files if p.read_bytes() == content]
    return found


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)
        stream.seek(at)
        stream.write(bytes([byte[0] ^ 1]))


def test_bytes_come_back(package: Package) -> None:
    assert package.layout is Layout.FILE_LEVEL
    assert package.read("bin/big") == BIG
    assert package.read(b"bin/small") == SMALL
    assert package.read("/link") == SMALL
    assert package.read("empty") == b""
    assert package.read(b"raw\xff") == b"raw\n"
    assert (package.name, package.version, package.hash) == ("jq", "1.7", NAME)
    assert [entry.path for entry in package.files()][:3] == [b"", b"bin", b"bin/big"]


def test_a_legacy_package_reads_the_same(template: Path) -> None:
    package = PackageStore.open(template).get_package(OLD)
    assert package.layout is Layout.LEGACY
    assert package.read("bin/small") == SMALL
    assert (package.name, package.version) == ("old", "0.1")
    (entry,) = [entry for entry in package.files() if entry.path == b"bin/small"]
    assert entry.kind is Kind.FILE
    assert (entry.size, len(entry.digest)) == (len(SMALL), 64)


@pytest.mark.parametrize("piece", [1, 13, 4096, 300_000, 400_000, -1])
def test_pieces_of_any_size(package: Package, piece: int) -> None:
    with package.open("bin/big" if piece > 100 or piece < 0 else "bin/small") as stream:
        pieces = list(iter(lambda: stream.read(piece), b""))
    assert b"".join(pieces) in {BIG, SMALL}


def test_a_stream_seeks_and_tells(package: Package) -> None:
    with package.open("bin/big") as stream:
        assert stream.seek(100_000) == 100_000
        assert stream.read(10) == BIG[100_000:100_010]
        assert stream.tell() == 100_010
        assert stream.seek(-5, os.SEEK_END) == len(BIG) - 5
        assert stream.read() == BIG[-5:]
        stream.seek(0)
        assert stream.read() == BIG
        assert stream.readable()
        assert not stream.writable()
    assert stream.closed


@pytest.mark.parametrize("content", [BIG, SMALL], ids=["big", "small"])
@pytest.mark.parametrize("where", ["first", "last"])
def test_a_flipped_bit_is_not_handed_out_as_read(alone: Path, content: bytes, where: str) -> None:
    flip(carrier(alone, content), 0 if where == "first" else len(content) - 1)
    package = PackageStore.open(alone).get_package(NAME)
    name = "bin/big" if content is BIG else "bin/small"
    with pytest.raises(CorruptionError) as caught:
        package.read(name)
    assert (caught.value.package, caught.value.path) == (NAME, name)
    with package.open(name) as stream, pytest.raises(CorruptionError):
        list(iter(lambda: stream.read(1000), b""))


def test_a_flipped_bit_is_seen_before_the_end_is(alone: Path) -> None:
    """Who reads exactly as many bytes as there are has read to the end."""
    flip(carrier(alone, BIG), 5)
    package = PackageStore.open(alone).get_package(NAME)
    with package.open("bin/big") as stream, pytest.raises(CorruptionError):
        [stream.read(100_000) for _ in range(len(BIG) // 100_000)]


def damage(store: Path, change: str) -> None:
    """Give an object another size or kind."""
    found = carrier(store, BIG)
    if change == "shorter":
        os.truncate(found, len(BIG) - 1)
    elif change == "longer":
        os.truncate(found, len(BIG) + 1)
    elif change == "no shard":
        shutil.rmtree(found.parent)
    else:
        found.rename(store / "quarantine" / "moved")
        if change == "a directory":
            found.mkdir()
        elif change == "a link":
            found.symlink_to(store / "quarantine" / "moved")


DAMAGES = ["shorter", "longer", "gone", "a directory", "a link", "no shard"]


@pytest.mark.parametrize("change", DAMAGES)
def test_an_object_of_another_size_or_kind_is_damage(alone: Path, change: str) -> None:
    damage(alone, change)
    with pytest.raises(CorruptionError) as caught:
        PackageStore.open(alone).get_package(NAME).read("bin/big")
    assert caught.value.exit_code == 4
    assert NAME in str(caught.value)


@pytest.mark.parametrize("change", DAMAGES)
def test_the_legacy_directory_serves_where_an_object_is_damaged(path: Path, change: str) -> None:
    """Every package is readable from at least one layout, at every instant."""
    damage(path, change)
    package = PackageStore.open(path).get_package(NAME)
    assert package.read("bin/small") == SMALL
    assert package.read("bin/big") == BIG


def test_the_legacy_directory_serves_where_a_bit_is_flipped(path: Path) -> None:
    flip(carrier(path, SMALL), 0)
    assert PackageStore.open(path).get_package(NAME).read("bin/small") == SMALL


def test_another_carrier_serves_where_the_first_is_lost(alone: Path) -> None:
    found = carrier(alone, BIG)
    found.rename(found.with_name(found.name + ".m0700"))
    assert PackageStore.open(alone).get_package(NAME).read("bin/big") == BIG


def test_a_file_that_grows_while_it_is_read_is_damage(alone: Path) -> None:
    found = carrier(alone, BIG)
    package = PackageStore.open(alone).get_package(NAME)
    with package.open("bin/big") as stream:
        assert stream.read(1) == BIG[:1]
        with found.open("ab") as other:
            other.write(b"more")
        with pytest.raises(CorruptionError):
            stream.read()


def test_what_cannot_be_read(package: Package) -> None:
    for wanted in ("bin", "", "nothing", "bin/small/x", "../" + OLD):
        with pytest.raises(UnknownPackageError) as caught:
            package.read(wanted)
        assert caught.value.exit_code == 1


@pytest.mark.parametrize("cut", ["half", "end"])
def test_a_damaged_list_is_no_shorter_package(alone: Path, cut: str) -> None:
    listed = alone / "packages" / NAME / "files.json"
    size = listed.stat().st_size
    os.truncate(listed, size // 2 if cut == "half" else size - 4)
    with pytest.raises(CorruptionError):
        list(PackageStore.open(alone).get_package(NAME).files())
    with pytest.raises(CorruptionError):
        PackageStore.open(alone).get_package(NAME).read(b"raw\xff")


def test_wrong_bytes_are_not_checked_out(path: Path, tmp_path: Path) -> None:
    """A link group of the list decides whose bytes a path gets: it must be the same file."""
    listed = path / "packages" / NAME / "files.json"
    raw = listed.read_bytes()
    line = next(row for row in raw.split(b"\n") if b'"bin/small"' in row)
    changed = line.replace(b'"hash"', b'"hardlink":"bin/big","hash"')
    assert changed != line
    listed.write_bytes(raw.replace(line, changed))
    package = PackageStore.open(path).get_package(NAME)
    try:
        package.checkout(tmp_path / "out")
    except CorruptionError:
        return
    assert (tmp_path / "out/bin/small").read_bytes() == SMALL


def test_a_reader_follows_its_package_to_the_other_layout(path: Path) -> None:
    package = PackageStore.open(path).get_package(OLD)
    assert package.layout is Layout.LEGACY
    initialise(path)
    assert migrate(path, COPIED).completed == 1
    shutil.rmtree(path / OLD)
    assert package.read("bin/small") == SMALL
    assert PackageStore.open(path).get_package(OLD).layout is Layout.FILE_LEVEL


def test_a_reader_goes_back_with_its_package(path: Path) -> None:
    store = PackageStore.open(path)
    package = store.get_package(NAME)
    (path / "packages" / NAME).rename(path / "trash" / NAME)
    shutil.rmtree(path / "objects")
    (path / "objects").mkdir()
    assert package.read("bin/big") == BIG
    assert package.layout is Layout.LEGACY


def test_a_package_that_was_removed_is_unknown(path: Path) -> None:
    store = PackageStore.open(path)
    package = store.get_package(OLD)
    shutil.rmtree(path / OLD)
    assert not store.has_package(OLD)
    with pytest.raises(UnknownPackageError):
        package.read("bin/small")


def test_threads_share_a_package(package: Package) -> None:
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(20):
                assert package.read("bin/big") == BIG
                assert package.read("link") == SMALL
        except BaseException as error:  # noqa: BLE001 -- a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_descriptors_are_given_back(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        store = PackageStore.open(path)
        package = store.get_package(NAME)
        package.read("bin/small")
        with package.open("bin/big") as stream:
            stream.read(1)
        with pytest.raises(RegrainError):
            package.read("nothing")
        del stream, package, store
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_store(tmp_path: Path, path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing", Path(__file__)):
        with pytest.raises(NotAStoreError) as caught:
            PackageStore.open(folder)
        assert caught.value.exit_code == 10
    toml = path / "store.toml"
    good = toml.read_text()
    for text in (good.replace("format = 1", "format = 2"), good.replace("blake3", "md5"), "", "="):
        toml.write_text(text)
        with pytest.raises(UnknownFormatError) as unknown:
            PackageStore.open(path)
        assert unknown.value.exit_code == 2


def test_the_phase_decides_and_is_noticed_at_once(path: Path) -> None:
    store = PackageStore.open(path)
    package = store.get_package(NAME)
    toml = path / "store.toml"
    assert (store.phase, package.layout) == (Phase.DUAL, Layout.FILE_LEVEL)
    new = toml.with_name("new")
    new.write_text(toml.read_text().replace('"dual"', '"rolled_back"'))
    new.rename(toml)
    assert store.phase is Phase.ROLLED_BACK
    assert store.get_package(NAME).layout is Layout.LEGACY


@pytest.mark.parametrize("name", ["", "..", "A" * 64, "a" * 63, NAME + "/..", NAME.upper()])
def test_a_malformed_name_is_refused_before_it_is_looked_for(path: Path, name: str) -> None:
    store = PackageStore.open(path)
    for call in (store.get_package, store.has_package):
        with pytest.raises(MalformedHashError):
            call(name)


def test_an_unknown_name(path: Path) -> None:
    store = PackageStore.open(path)
    assert not store.has_package("0" * 64)
    with pytest.raises(UnknownPackageError):
        store.get_package("0" * 64)
