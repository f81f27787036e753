"""The library reads every package from either layout, also while it moves."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from regrain import PackageStore
from regrain.errors import RegrainError
from tests import awkward
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.stores import Migrated, assert_complete, record
from tests.trees import Abilities, LegacyPackage

Packages = dict[str, LegacyPackage]
ROOT = Path(__file__).parent.parent.parent
UNKNOWN = "0123456789abcdef" * 4


@pytest.fixture
def unmigrated(regrain: Regrain, legacy_store: Packages) -> tuple[Path, Packages]:
    regrain("init")
    return regrain.store, legacy_store


def read_differences(store: Path, before: dict[str, Snapshot], layout: str) -> list[str]:
    """How what the library reads differs from the trees that were recorded."""
    said = []
    opened = PackageStore.open(store)
    for name, tree in before.items():
        package = opened.get_package(name)
        assert str(package.layout) == layout
        assert package.hash == name
        found = {bytes(entry.path): entry for entry in package.files()}
        said += [f"{name}: {path!r}" for path in found.keys() ^ tree.keys()]
        for path, entry in tree.items():
            if entry.kind != "file":
                continue
            with (
                open(os.fsencode(store) + b"/" + name.encode() + b"/" + path, "rb")
                if len(path) < 3000
                else package.open(path)
            ) as stream:
                expected = stream.read()
            if package.read(path) != expected:
                said.append(f"{name}: {path!r} differs")
    return said


def test_reads_the_legacy_layout(unmigrated: tuple[Path, Packages]) -> None:
    store, packages = unmigrated
    assert read_differences(store, record(packages), "legacy") == []


def test_reads_the_file_level_layout(migrated: Migrated) -> None:
    assert read_differences(migrated.path, dict(migrated.before), "file_level") == []


def test_entries_tell_all_that_is_known(migrated: Migrated) -> None:
    """Both layouts describe a package by the same entries."""
    opened = PackageStore.open(migrated.path)
    for name, tree in migrated.before.items():
        for entry in opened.get_package(name).files():
            mine = tree[bytes(entry.path)]
            assert (entry.mode, entry.uid, entry.gid) == (mine.mode, mine.uid, mine.gid)
            assert entry.mtime_ns == mine.mtime_ns


def test_packages_and_their_manifests(migrated: Migrated) -> None:
    opened = PackageStore.open(str(migrated.path))
    found = {package.hash: package for package in opened.packages()}
    assert found.keys() == migrated.packages.keys()
    for name, package in found.items():
        legacy = migrated.packages[name]
        assert (package.name, package.version) == (legacy.name, legacy.version)
        assert package.manifest["package"]["arch"] == "arm64"
    assert opened.has_package(next(iter(found)))
    assert not opened.has_package(UNKNOWN)


def test_open_reads_in_pieces(migrated: Migrated) -> None:
    package = migrated.named("a large file")
    path = "opt/pm/live/share/big.bin"
    expected = (package.path / path).read_bytes()
    with PackageStore.open(migrated.path).get_package(package.hash).open(path) as stream:
        assert stream.read(1000) == expected[:1000]
        assert stream.read() == expected[1000:]


def test_paths_are_text_or_bytes(migrated: Migrated) -> None:
    package = PackageStore.open(migrated.path).get_package(migrated.named("names").hash)
    assert package.read("opt/pm/live/files/%s%n") == package.read(b"opt/pm/live/files/%s%n")
    assert package.read(b"opt/pm/live/files/\xff\xfe") == b"content of \xff\xfe"


def test_what_is_not_there_is_an_error_of_the_tree(migrated: Migrated) -> None:
    opened = PackageStore.open(migrated.path)
    with pytest.raises(RegrainError) as unknown:
        opened.get_package(UNKNOWN)
    assert unknown.value.exit_code == 1
    assert UNKNOWN in str(unknown.value)
    for malformed in ("../etc", "A" * 64, "", "a" * 63):
        with pytest.raises(RegrainError) as refused:
            opened.get_package(malformed)
        assert refused.value.exit_code == 2
    package = opened.get_package(migrated.named("symlinks").hash)
    for path in ("no/such", "opt/pm/live", "../x", "/etc/passwd", ""):
        with pytest.raises(RegrainError) as missing:
            package.read(path)
        assert missing.value.exit_code in {1, 2}
    with pytest.raises(RegrainError) as no_store:
        PackageStore.open(migrated.path / "no-such-store")
    assert no_store.value.exit_code == 10


@pytest.mark.parametrize("layout", ["legacy", "file_level"])
def test_checkout_exact_from_either_layout(
    regrain: Regrain, store_path: Path, workplace: Path, seed: int, able: Abilities, layout: str
) -> None:
    subjects = ("link-groups", "xattrs", "names", "times", "deep", "sparse", "modes", "symlinks")
    packages = [awkward.add_awkward(store_path, subject, seed, able) for subject in subjects]
    regrain("init")
    if layout == "file_level":
        regrain("migrate")
    opened = PackageStore.open(store_path)
    for package in packages:
        place = workplace / "out" / package.what
        place.parent.mkdir(exist_ok=True)
        opened.get_package(package.hash).checkout(place, mode="exact")
        said = differences(snapshot(package.path), snapshot(place), holes=True)
        assert said == [], package.what


def test_reading_needs_no_database(migrated: Migrated, workplace: Path) -> None:
    """Without a ledger reading works, and imports nothing that could open one."""
    store = workplace / "store"
    subprocess.run(["cp", "-a", migrated.path, store], capture_output=True, check=False)
    for path in store.glob("state.sqlite*"):
        path.unlink()
    package = migrated.named("order")
    program = f"""
import sys
from regrain import PackageStore
store = PackageStore.open({str(store)!r})
package = store.get_package({package.hash!r})
assert package.read("manifest.toml").startswith(b"[package]")
assert store.has_package({package.hash!r}) and len(list(store.packages())) > 20
package.checkout({str(workplace / "out")!r}, mode="exact")
print(sorted({{"sqlalchemy", "alembic", "sqlite3", "pysqlite3"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=workplace
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert not list(store.glob("state.sqlite*"))
    shutil.rmtree(workplace / "out")


def test_several_threads_read_one_store(migrated: Migrated) -> None:
    opened = PackageStore.open(migrated.path)
    wrong: list[str] = []
    read: list[int] = []

    def work() -> None:
        for name, tree in migrated.before.items():
            package = opened.get_package(name)
            for path, entry in tree.items():
                if entry.kind == "file":
                    data = package.read(path)
                    read.append(len(data))
                    if len(data) != entry.size:
                        wrong.append(f"{name} {path!r}")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(read) == 4 * len(migrated.files())


def test_nothing_is_missing_or_mixed_while_packages_move(
    regrain: Regrain, store_path: Path, workplace: Path, seed: int
) -> None:
    packages = awkward.make_plain_store(store_path, seed, 40, 40)
    before = record(packages)
    (workplace / "expected").write_bytes(pickle.dumps(before))
    regrain("init")
    command = [sys.executable, "-m", "tests.system.reading_loop"]
    places = [store_path, workplace / "expected", workplace / "stop"]
    with subprocess.Popen(
        [*command, *places], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as reader:
        while not (workplace / "reading").exists():  # a first pass, all legacy
            assert reader.poll() is None, reader.communicate()
        for _ in range(10):
            regrain("migrate", "--limit", "4", "--batch", "1")
        (workplace / "stop").touch()
        out, err = reader.communicate(timeout=100)
    assert err == b""
    said = json.loads(out)
    assert said["wrong"] == []
    assert said["layouts"].keys() == {"legacy", "file_level"}, said
    assert min(said["layouts"].values()) >= len(packages), said
    assert said["during"] > 0, said
    assert_complete(store_path, packages, before)
