"""What goes wrong is named, and nothing else suffers from it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import awkward
from tests.command import Regrain, Result
from tests.compare import snapshot
from tests.stores import assert_complete, assert_sound, migrate_all, record, statuses, text_of
from tests.trees import LegacyPackage

Packages = dict[str, LegacyPackage]
SPECIAL_PATH = "opt/pm/live/run/the-special-file"
BLOCK_DEVICE, CHARACTER_DEVICE = os.makedev(7, 0), os.makedev(1, 3)


def assert_failed_alone(store: Path, packages: Packages, failed: LegacyPackage) -> None:
    found = statuses(store)
    assert found.pop(failed.hash) == "failed"
    assert set(found.values()) == {"completed"}
    assert found.keys() == packages.keys() - {failed.hash}


def assert_named(result: Result, package: LegacyPackage, path: str) -> None:
    assert package.hash in text_of(result), result
    assert path in text_of(result), result


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
@pytest.mark.parametrize("json", [True, False])
def test_a_special_file_fails_its_package(
    regrain: Regrain, plain_store: Packages, seed: int, kind: int, json: bool
) -> None:
    if kind in {stat.S_IFCHR, stat.S_IFBLK} and os.geteuid() != 0:
        pytest.skip("needs root, to make a device")
    device = {stat.S_IFCHR: CHARACTER_DEVICE, stat.S_IFBLK: BLOCK_DEVICE}.get(kind, 0)
    bad = awkward.add_special(regrain.store, seed, kind, device)
    packages = {**plain_store, bad.hash: bad}
    before = record(packages)
    regrain("init")
    result = regrain("migrate", *(["--json"] if json else []), code=3)
    assert_named(result, bad, SPECIAL_PATH)
    assert_failed_alone(regrain.store, packages, bad)
    store = assert_sound(regrain.store, packages, before, orphans=True)
    assert store.packages.keys() == plain_store.keys()
    said = regrain("status", "--failed", "--json")
    assert_named(said, bad, SPECIAL_PATH)


def test_a_failed_package_is_tried_again_when_told(
    regrain: Regrain, plain_store: Packages, seed: int
) -> None:
    bad = awkward.add_special(regrain.store, seed, stat.S_IFIFO)
    packages = {**plain_store, bad.hash: bad}
    regrain("init")
    regrain("migrate", code=3)
    (bad.path / SPECIAL_PATH).unlink()
    regrain("migrate", code=None)
    assert_failed_alone(regrain.store, packages, bad)
    before = record(packages)
    regrain("migrate", "--retry-failed")
    assert_complete(regrain.store, packages, before, orphans=True)


def test_an_unreadable_file_fails_its_package(
    regrain: Regrain, plain_store: Packages, seed: int
) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, to drop root's right to read everything")
    bad = awkward.add_ordinary(regrain.store, "secret", "1", seed)
    (bad.path / "opt/pm/live/bin/secret").chmod(0)
    packages = {**plain_store, bad.hash: bad}
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    humble = Regrain(regrain.store, prefix=drop if os.geteuid() == 0 else ())
    humble("init")
    result = humble("migrate", "--json", code=3)
    assert_named(result, bad, "opt/pm/live/bin/secret")
    assert_failed_alone(regrain.store, packages, bad)
    (bad.path / "opt/pm/live/bin/secret").chmod(0o755)
    before = record(packages)
    humble("migrate", "--retry-failed")
    assert_complete(regrain.store, packages, before, orphans=True)


def test_an_unreadable_directory_fails_its_package(
    regrain: Regrain, plain_store: Packages, seed: int
) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, to drop root's right to read everything")
    bad = awkward.add_ordinary(regrain.store, "secret", "1", seed)
    (bad.path / "opt/pm/live/share/data").chmod(0)
    packages = {**plain_store, bad.hash: bad}
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    humble = Regrain(regrain.store, prefix=drop if os.geteuid() == 0 else ())
    humble("init")
    result = humble("migrate", "--json", code=3)
    assert_named(result, bad, "opt/pm/live/share/data")
    assert_failed_alone(regrain.store, packages, bad)


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Let a file grow without a pause."""
    done = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as stream:
            while not done.is_set():
                stream.write(b"x")

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("ingest", ["auto", "copy"])
def test_a_package_that_changes_while_it_is_read_fails(
    regrain: Regrain, plain_store: Packages, seed: int, ingest: str
) -> None:
    env = {"REGRAIN_STORE__INGEST": ingest}
    bad = awkward.add_large(regrain.store, seed, 32 << 20)
    packages = {**plain_store, bad.hash: bad}
    regrain("init", env=env)
    big = bad.path / "opt/pm/live/share/big.bin"
    with growing(big):
        result = regrain("migrate", "--json", code=3, env=env)
    assert_named(result, bad, "opt/pm/live/share/big.bin")
    assert_failed_alone(regrain.store, packages, bad)
    before = record(packages)
    regrain("migrate", "--retry-failed", env=env)
    assert_complete(regrain.store, packages, before, orphans=True)


def test_limit_and_only_choose(regrain: Regrain, plain_store: Packages) -> None:
    before = record(plain_store)
    regrain("init")
    regrain("migrate", "--limit", "1")
    assert sorted(statuses(regrain.store).values()) == ["completed", "pending", "pending"]
    curl = next(p for p in plain_store.values() if p.name == "curl")
    jqs = [p for p in plain_store.values() if p.name == "jq"]
    regrain("migrate", "--only", "jq*")
    assert {statuses(regrain.store)[p.hash] for p in jqs} == {"completed"}
    regrain("migrate", "--only", curl.hash[:12] + "*")
    assert_complete(regrain.store, plain_store, before)


def test_only_leaves_the_rest_pending(regrain: Regrain, plain_store: Packages) -> None:
    regrain("init")
    regrain("migrate", "--only", "no-such-name")
    assert set(statuses(regrain.store).values()) == {"pending"}
    regrain("migrate", "--only", "curl")
    done = {name for name, status in statuses(regrain.store).items() if status == "completed"}
    assert {plain_store[name].name for name in done} == {"curl"}


@pytest.fixture
def copied(regrain: Regrain, plain_store: Packages) -> Regrain:
    """A migrated store whose objects are copies, so that they can be damaged alone."""
    own = Regrain(regrain.store, {"REGRAIN_STORE__INGEST": "copy"})
    migrate_all(own, plain_store)
    return own


def victim(store: Path, packages: Packages) -> tuple[LegacyPackage, Path, str]:
    """A file that only one package has, and its object."""
    package = next(p for p in packages.values() if p.name == "curl")
    path = "opt/pm/live/bin/curl"
    digest = snapshot(package.path)[path.encode()].digest
    return package, store / "objects" / digest[:2] / digest, path


def flip(path: Path) -> None:
    """Change one bit; size, mode and time stay."""
    status = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as stream:
        byte = stream.read(1)
        stream.seek(0)
        stream.write(bytes([byte[0] ^ 1]))
    path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("level", ["full", "deep"])
@pytest.mark.parametrize("json", [True, False])
def test_verify_names_a_damaged_object(
    copied: Regrain, plain_store: Packages, level: str, json: bool
) -> None:
    package, carrier, path = victim(copied.store, plain_store)
    flip(carrier)
    arguments = ["verify", "--level", level, *(["--json"] if json else [])]
    result = copied(*arguments, code=4)
    assert_named(result, package, path)
    assert carrier.name in text_of(result)
    others = [name for name in plain_store if name != package.hash]
    copied("verify", *others, "--level", level)
    copied("verify", package.hash, "--level", level, code=4)


@pytest.mark.parametrize("damage", ["missing", "short", "long"])
@pytest.mark.parametrize("level", ["quick", "full", "deep"])
def test_verify_finds_a_missing_object_and_a_wrong_size(
    copied: Regrain, plain_store: Packages, damage: str, level: str
) -> None:
    package, carrier, path = victim(copied.store, plain_store)
    if damage == "missing":
        carrier.unlink()
    else:
        carrier.chmod(0o755)
        os.truncate(carrier, carrier.stat().st_size + (1 if damage == "long" else -1))
    result = copied("verify", "--level", level, code=4)
    assert_named(result, package, path)
    assert carrier.name in text_of(result)


def test_verify_deep_finds_a_damaged_file_list(copied: Regrain, plain_store: Packages) -> None:
    name = next(iter(plain_store))
    path = copied.store / "packages" / name / "files.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"mode":"0755"', b'"mode":"0711"', 1))
    assert name in text_of(copied("verify", "--level", "deep", code=4))


def test_verify_deep_says_that_a_legacy_tree_changed(
    copied: Regrain, plain_store: Packages
) -> None:
    package = next(iter(plain_store.values()))
    (package.path / "opt/pm/live/share/doc/LICENSE").chmod(0o600)
    result = copied("verify", "--level", "deep", code=3)
    assert_named(result, package, "opt/pm/live/share/doc/LICENSE")


def test_leftovers_are_no_failure(copied: Regrain) -> None:
    (copied.store / "temp" / "gone").mkdir(mode=0o700)
    (copied.store / "temp" / "gone" / "half").write_text("half a file")
    digest = "0" * 64
    (copied.store / "objects" / "00").mkdir(exist_ok=True)
    (copied.store / "objects" / "00" / digest).write_text("not what the name says")
    (copied.store / "objects" / "00" / digest).chmod(0o644)
    copied("verify", "--level", "quick")


def test_cat_of_a_damaged_object_hands_nothing_wrong_on(
    copied: Regrain, plain_store: Packages
) -> None:
    package, carrier, path = victim(copied.store, plain_store)
    carrier.unlink()
    result = copied("cat", package.hash, path, code=None)
    good = (package.path / path).read_bytes()
    assert (result.code, result.stdout) == (0, good) or result.code == 4, result


def test_a_run_that_is_under_way_refuses_a_second(
    regrain: Regrain, store_path: Path, seed: int
) -> None:
    awkward.make_plain_store(store_path, seed, 12, 400)
    regrain("init")
    with regrain.running("migrate", "--jobs", "1", "--batch", "1") as first:
        while not any((store_path / "temp").iterdir()):
            assert first.poll() is None, "the first run ended before it could be stopped"
        os.killpg(first.pid, signal.SIGSTOP)  # it holds its lock and does not get on
        second = regrain("migrate", code=11)
        assert str(first.pid) in second.stderr
        os.killpg(first.pid, signal.SIGCONT)
        assert first.wait(100) == 0
    assert set(statuses(store_path).values()) == {"completed"}
