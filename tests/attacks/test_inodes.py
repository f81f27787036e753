"""What an inode can carry: rights, a FIFO's wait, a mode that the umask decides, names."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from tests.attacks import naive
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.stores import Packages, record
from tests.trees import CAPABILITY, LIVE, Abilities, Tree, capability, describe

NAME = "5e" * 32
TOOL = "opt/pm/live/bin/tool"
AT_ONCE = {
    "REGRAIN_MIGRATION__SETTLE": "0",
    "REGRAIN_MIGRATION__FREE_BYTES_MIN": "1000000",
    "REGRAIN_MIGRATION__FREE_INODES_MIN": "10",
}
POWERS = ("set-id", "capability")
CIRCLE = (
    ("init",),
    ("migrate",),
    ("verify", "--level", "deep"),
    ("add", "{new}"),
    ("repack", "--compress", "all", "--execute"),
    ("backup", "create", "{backup}"),
    ("pause",),
    ("resume",),
    ("cutover",),
    ("cleanup", "--execute"),
    ("rollback",),
)


def powerful(path: Path, power: str, able: Abilities) -> None:
    """A package whose program lends power to who runs it."""
    if power == "capability" and not able.capabilities:
        pytest.skip("needs to give capabilities")
    mode = 0o6755 if power == "set-id" else 0o755
    xattrs = {CAPABILITY: capability()} if power == "capability" else None
    with Tree(path, Random(power)) as tree:
        describe(tree, "powerful", "1.0")
        tree.file(TOOL.encode(), b"runs as another\n", mode, xattrs=xattrs)


def lends(path: Path) -> bool:
    """Whether who runs it gets rights by it."""
    mode = path.stat().st_mode
    if mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    return bool(mode & 0o111) and CAPABILITY in os.listxattr(path)


@pytest.mark.root
@pytest.mark.parametrize("power", POWERS)
def test_power_does_not_outlive_its_package(workplace: Path, able: Abilities, power: str) -> None:
    """Somebody keeps a hard link, to run an old program after its hole was mended."""
    for how in ("naively", "by remove", "by cleanup"):
        store = workplace / how
        powerful(store / NAME, power, able)
        kept = workplace / f"kept {how}"
        os.link(store / NAME / TOOL, kept)
        regrain = Regrain(store, AT_ONCE)
        if how == "naively":
            shutil.rmtree(store / NAME)
        elif how == "by remove":
            regrain("init")
            regrain("remove", NAME, "--execute")
        else:
            for words in (["init"], ["migrate"], ["cutover", "--no-backup"]):
                regrain(*words)
            regrain("cleanup", "--execute")
        assert not (store / NAME).exists()
        assert lends(kept) == (how == "naively"), how


@pytest.mark.root
@pytest.mark.parametrize("power", POWERS)
def test_power_does_not_enter_the_store(workplace: Path, able: Abilities, power: str) -> None:
    powerful(workplace / "store" / NAME, power, able)
    before = snapshot(workplace / "store" / NAME)
    (workplace / "objects").mkdir()
    left = naive.store_object(workplace / "store" / NAME / TOOL, workplace / "objects")
    assert lends(left)
    regrain = Regrain(workplace / "store", AT_ONCE)
    regrain("init")
    regrain("migrate")
    inodes = [path for path in (workplace / "store" / "objects").rglob("*") if path.is_file()]
    assert inodes
    assert not any(map(lends, inodes))
    assert not any(os.listxattr(path) for path in inodes)
    regrain("checkout", NAME, workplace / "out")
    assert differences(before, snapshot(workplace / "out")) == []


def test_a_reader_that_opens_a_fifo_hangs(workplace: Path) -> None:
    """That regrain does not is shown in ``tests/system/test_failures.py``, for every kind."""
    os.mkfifo(workplace / "fifo")
    reader = threading.Thread(target=(workplace / "fifo").read_bytes)
    reader.start()
    reader.join(0.2)
    assert reader.is_alive()
    (workplace / "fifo").write_bytes(b"")  # sets it free
    reader.join()


def loose(place: Path) -> list[str]:
    """What others than the owner may write to, and private places that they may enter."""
    found = []
    for path in (place, *place.rglob("*")):
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022:
            found.append(str(path))
    private = (place / name for name in ("temp", "trash", "quarantine"))
    return found + [str(path) for path in private if path.stat().st_mode & 0o077]


@pytest.mark.parametrize("umask", [0, pytest.param(0o777, marks=pytest.mark.slow)], ids=oct)
def test_the_umask_opens_nothing_on_the_whole_circle(
    workplace: Path, store_path: Path, plain_store: Packages, umask: int
) -> None:
    (workplace / "objects").mkdir()
    was = os.umask(0)
    naive.write_object(workplace / "objects", "f")
    os.umask(was)
    assert loose_file(workplace / "objects" / "f")
    with Tree(workplace / "new", Random(1)) as tree:
        describe(tree, "new", "1.0")
        tree.file(LIVE + b"/bin/new", b"new\n", 0o755)
    before = record(plain_store)
    regrain = Regrain(store_path, AT_ONCE)
    for words in CIRCLE:
        named = [word.format(backup=workplace / "backup", new=workplace / "new") for word in words]
        regrain(*named, umask=umask)
        assert loose(store_path) == [], words
    assert loose(workplace / "backup") == []
    after = {name: snapshot(store_path / name) for name in before}
    assert [differences(before[name], after[name]) for name in before] == [[]] * len(before)


def loose_file(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o022)


NO_FLOORS = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0", "REGRAIN_MIGRATION__FREE_INODES_MIN": "0"}
XATTR_CALLS = ",".join(
    f"{kind}{verb}xattr" for verb in ("get", "set", "list", "remove") for kind in ("", "l", "f")
)
WITHOUT_ATTRIBUTES = (
    *("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={XATTR_CALLS}"),
    *("-e", f"inject={XATTR_CALLS}:error=EOPNOTSUPP"),
)


@pytest.fixture
def packages(workplace: Path) -> tuple[Path, Path]:
    """A package without attributes and one with."""
    with Tree(workplace / "plain", Random(1)) as tree:
        describe(tree, "plain", "1.0")
        tree.file(LIVE + b"/bin/run", b"run\n", 0o755)
        tree.symlink(LIVE + b"/bin/link", b"run")
    with Tree(workplace / "rich", Random(1)) as tree:
        describe(tree, "rich", "1.0")
        tree.file(LIVE + b"/f", b"f\n", xattrs={"user.kept": b"value"})
    return workplace / "plain", workplace / "rich"


@pytest.mark.root
def test_a_file_system_without_attributes(workplace: Path, packages: tuple[Path, Path]) -> None:
    """What has none comes in, is served and checked; what has some is not handed out without."""
    plain, rich = packages
    store = workplace / "store"
    store.mkdir()
    Regrain(store)("init")
    Regrain(store)("add", rich, "--hash", NAME)
    (workplace / "ram").mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", workplace / "ram"], check=True)
    try:
        with pytest.raises(OSError, match="not supported"):
            os.setxattr(workplace / "ram", "user.probe", b"1")
        said = Regrain(store)("checkout", NAME, workplace / "ram" / "out", code=1)
        assert "user.kept" in said.stderr, said
        assert not (workplace / "ram" / "out").exists()
        (workplace / "ram" / "store").mkdir()
        regrain = Regrain(workplace / "ram" / "store", NO_FLOORS)
        regrain("init")
        regrain("add", plain, "--hash", NAME)
        regrain("verify", "--level", "deep")
        regrain("checkout", NAME, workplace / "ram" / "out")
        assert differences(snapshot(plain), snapshot(workplace / "ram" / "out")) == []
    finally:
        subprocess.run(["umount", workplace / "ram"], check=True)


@pytest.mark.slow
def test_the_circle_without_attributes(
    workplace: Path, store_path: Path, packages: tuple[Path, Path]
) -> None:
    """As the kernel answers for a file system that keeps none."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace, to answer for the kernel")
    plain, rich = packages
    store_path.mkdir()
    plain.rename(store_path / NAME)
    before = snapshot(store_path / NAME)
    regrain = Regrain(store_path, AT_ONCE, WITHOUT_ATTRIBUTES)
    for words in CIRCLE:
        regrain(*(word.format(backup=workplace / "backup", new=rich) for word in words))
    assert differences(before, snapshot(store_path / NAME)) == []


def test_names_are_values_to_the_database(workplace: Path, store_path: Path) -> None:
    """A manifest's name closes the statement that a careless program puts it into."""
    name = "x'); DROP TABLE packages; --"
    with closing(sqlite3.connect(workplace / "naive.sqlite")) as connection:
        connection.execute("CREATE TABLE packages (name TEXT)")
        connection.commit()
    naive.queue(workplace / "naive.sqlite", name)
    with closing(sqlite3.connect(workplace / "naive.sqlite")) as connection:
        assert connection.execute("SELECT * FROM sqlite_master").fetchall() == []
    with Tree(store_path / NAME, Random(1)) as tree:
        describe(tree, name, "1'0")
        tree.file(LIVE + b"/" + name.encode(), b"f\n")
    regrain = Regrain(store_path, AT_ONCE)
    regrain("init")
    regrain("migrate", "--only", name)
    assert name in regrain("list", "--json").text
    regrain("verify", "--level", "deep")
    assert regrain("status", "--json").document["migrated_packages"] == 1
