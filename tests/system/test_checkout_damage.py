"""A checkout hands on no bytes that are not the ones that were stored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from regrain import PackageStore
from regrain.errors import CorruptionError
from tests.checkouts import (
    BIG,
    NAME,
    TEXT,
    TOOL,
    carrier,
    linked,
    make_store,
    overwrite,
    shared_differences,
)
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.sampling import each_with_one
from tests.trees import SECOND

HOLES = b"share/holes"
FIRST = b"group/first"


@pytest.fixture
def place(workplace: Path) -> Path:
    return workplace / "store"


@pytest.fixture
def before(place: Path) -> Snapshot:
    """A store with one package in both layouts, whose carriers can be damaged alone."""
    return make_store(place)


def only_published(store: Path) -> None:
    """Take the legacy directory away: nothing else can serve."""
    shutil.move(store / NAME, store / "trash" / NAME)


def published_ns(store: Path) -> int:
    return (store / "packages" / NAME / "files.json").stat().st_mtime_ns


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def put_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "written in place": overwrite,
    "shorter": shorten,
    "gone": Path.unlink,
    "a directory": put_a_directory,
}


WHAT = {"tool": TOOL, "big": BIG, "holes": HOLES, "first": FIRST}


def refused(store: Path, out: Path, mode: str) -> CorruptionError:
    """The error of a checkout that must fail, and leaves nothing."""
    package = PackageStore.open(store).get_package(NAME)
    with pytest.raises(CorruptionError) as caught:
        package.checkout(out, mode=mode)
    assert not out.exists()
    return caught.value


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("what", "mode"), each_with_one(WHAT, ["exact", "shared"]))
def test_damage_is_not_handed_on(
    place: Path, before: Snapshot, workplace: Path, what: str, mode: str, damage: str
) -> None:
    only_published(place)
    path = WHAT[what]
    DAMAGES[damage](carrier(place, before[path]))
    error = refused(place, workplace / "out", mode)
    assert before[path].digest in f"{error.path} {error.why}"
    assert os.fsdecode(path) in f"{error.path} {error.why}"
    assert error.package == NAME
    assert "regrain verify" in error.advice


@pytest.mark.parametrize(("damage", "mode"), each_with_one(DAMAGES, ["exact", "shared"]))
def test_the_legacy_directory_serves_meanwhile(
    place: Path, before: Snapshot, workplace: Path, mode: str, damage: str
) -> None:
    """All of it or nothing: what was taken from the store before the damage showed is gone."""
    DAMAGES[damage](carrier(place, before[TOOL]))
    entries = []
    package = PackageStore.open(place).get_package(NAME)
    package.checkout(workplace / "out", mode=mode, on_entry=lambda e: entries.append(e.path))
    assert package.layout.value == "legacy"
    assert entries.count(b"") == 3  # twice as published, then from the legacy directory
    assert differences(before, snapshot(workplace / "out"), holes=True) == []
    assert linked(workplace / "out", place) == set()


@pytest.mark.parametrize(
    "later_ns", [-800_000_000 * SECOND, -86_400 * SECOND, 0, 1, 86_400 * SECOND]
)
def test_a_time_that_was_set_back_deceives_nobody(
    place: Path, before: Snapshot, workplace: Path, later_ns: int
) -> None:
    """A link is handed out unread only if its time is the one that the file list has."""
    only_published(place)
    overwrite(carrier(place, before[TOOL]), published_ns(place) + later_ns)
    refused(place, workplace / "out", "shared")


@pytest.mark.parametrize("mode", ["exact", "shared"])
def test_a_wrong_size_shows_whatever_the_time_is(
    place: Path, before: Snapshot, workplace: Path, mode: str
) -> None:
    only_published(place)
    tool, time_ns = carrier(place, before[TOOL]), before[TOOL].mtime_ns
    shorten(tool)
    os.utime(tool, ns=(time_ns, time_ns))
    refused(place, workplace / "out", mode)


def test_an_exact_checkout_trusts_no_time_at_all(
    place: Path, before: Snapshot, workplace: Path
) -> None:
    only_published(place)
    overwrite(carrier(place, before[TEXT]), before[TEXT].mtime_ns)
    refused(place, workplace / "out", "exact")


def test_a_carrier_that_was_only_touched_is_handed_on(
    place: Path, before: Snapshot, workplace: Path
) -> None:
    only_published(place)
    os.utime(carrier(place, before[TOOL]))
    PackageStore.open(place).get_package(NAME).checkout(workplace / "out", mode="shared")
    assert TOOL in linked(workplace / "out", place)
    assert shared_differences(before, workplace / "out", place) == []


def test_a_trusted_carrier_is_not_read(place: Path, before: Snapshot, workplace: Path) -> None:
    """That is what makes a shared checkout quick; a suspect one is, as the trace shows."""
    os.utime(carrier(place, before[TOOL]))
    trace = workplace / "trace"
    program = (
        "import sys; from regrain import PackageStore; "
        "PackageStore.open(sys.argv[1]).get_package(sys.argv[2]).checkout(sys.argv[3], 'shared')"
    )
    command: list[str | Path] = [
        "strace",
        "-f",
        "-o",
        trace,
        "-e",
        "trace=openat",
        sys.executable,
        "-c",
        program,
    ]
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    subprocess.run([*command, place, NAME, workplace / "out"], check=True)
    said = trace.read_text()
    assert before[TOOL].digest in said
    assert before[FIRST].digest not in said
    assert FIRST in linked(workplace / "out", place)


@pytest.mark.parametrize("mode", ["exact", "shared"])
def test_reflinked_bytes_are_read(xfs: Path, mode: str) -> None:
    store = xfs / "store"
    victim = make_store(store)[b"share/wide"]  # private in both modes
    only_published(store)
    overwrite(carrier(store, victim), victim.mtime_ns)
    said = Regrain(store)("checkout", NAME, xfs / "out", "--mode", mode, code=4)
    assert "share/wide" in said.stderr
    assert not (xfs / "out").exists()


@pytest.mark.parametrize("mode", ["exact", "shared"])
def test_the_command_ends_with_4(place: Path, before: Snapshot, workplace: Path, mode: str) -> None:
    only_published(place)
    overwrite(carrier(place, before[TOOL]))
    arguments: list[str | bytes | Path] = ["checkout", NAME, workplace / "out", "--mode", mode]
    said = Regrain(place)(*arguments, code=4).stderr
    assert before[TOOL].digest in said
    assert "bin/tool" in said
    assert "regrain verify" in said
    [document] = Regrain(place)(*arguments, "--json", code=4).of_type("exit_error")
    assert document["package"] == NAME
    assert not (workplace / "out").exists()
