"""The page about the Python API: its code runs, and it names all there is."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random
from textwrap import dedent

import pytest

import regrain
from regrain.errors import RegrainError
from tests.command import Regrain
from tests.stores import statuses
from tests.trees import Tree, describe
from tests.verbs import make_package

PAGE = Path(__file__).parent.parent.parent / "docs" / "api.md"
SOURCE = Path(regrain.__file__).parent


DRIVER = """
if __name__ == "__main__":  # worker processes import this again
    names = {{"__name__": "__main__"}}
    for block in {blocks!r}:
        exec(block, names)
"""


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(workplace: Path) -> Path:
    """What the page says is there."""
    make_package(workplace / "store" / ("ab" * 32), "legacy")
    Regrain(workplace / "store")("init")
    with Tree(workplace / "hello-1.0", Random(1)) as tree:
        describe(tree, "hello", "1.0")
        tree.file(b"bin/hello", b"#!/bin/sh\necho hello\n", 0o755)
        tree.file(b"share/text", b"hello, world\n")
    return workplace


def test_the_code_runs(place: Path) -> None:
    found = blocks()
    assert len(found) > 8
    program = place / "program.py"
    program.write_text(DRIVER.format(blocks=[dedent(block) for block in found]))
    done = subprocess.run(
        [sys.executable, program], cwd=place, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "1 0 False" in done.stdout, done.stdout
    assert set(statuses(place / "store").values()) == {"completed"}
    assert {path.name for path in place.iterdir()} >= {"exact", "shared", "part"}
    assert not (place / "nowhere").exists()


def test_every_public_name_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [name for name in regrain.__all__ if not re.search(rf"\b{name}\b", text)] == []
    for kind in (regrain.PackageStore, regrain.Package, regrain.Migration):
        names = [name for name in dir(kind) if not name.startswith("_")]
        internal = {"root", "state", "rows", "pending"}  # for the rooms of this house
        unnamed = [n for n in names if n not in internal and not re.search(rf"\b{n}\b", text)]
        assert unnamed == [], kind


def test_the_table_of_errors_is_the_tree() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    public = {n: getattr(regrain, n) for n in regrain.__all__ if n.endswith("Error")}
    assert all(issubclass(kind, RegrainError) for kind in public.values())
    assert {name: int(code) for name, code in rows} == {n: k.exit_code for n, k in public.items()}


PROGRAM = """\
from pathlib import Path

from regrain import Entry, Migration, PackageStore, Progress, RegrainError


def sizes(place: Path, package_hash: str) -> dict[bytes, int]:
    store = PackageStore.open(place)
    package = store.get_package(package_hash)
    entries: list[Entry] = list(package.files())
    data: bytes = package.read(b"manifest.toml")
    count: int = package.checkout("/tmp/x", mode="shared", subtree=b"opt")
    with package.open("x") as stream:
        data += stream.read(1)
    added = store.add_package(place / "new")
    text: str = added.package_hash
    store.remove_package(text).object_bytes.bit_length()
    freed: int = store.collect().allocated
    migration: Migration = store.migration()
    migration.run(on_event=print)
    so_far: Progress = migration.progress()
    issues: list[str] = migration.health().issues
    print(data, count, freed, so_far.seconds_left, issues)
    return {entry.path: entry.size for entry in entries}


try:
    sizes(Path("store"), "a" * 64)
except RegrainError as error:
    code: int = error.exit_code
"""
WRONG = "from regrain import PackageStore\n\nPackageStore.open(1).get_package(b'x').read(2)\n"


@pytest.mark.parametrize(("program", "faults"), [(PROGRAM, 0), (WRONG, 3)], ids=["right", "wrong"])
def test_a_users_program_is_checked(tmp_path: Path, program: str, faults: int) -> None:
    if find_spec("mypy") is None:
        pytest.skip("needs mypy")
    assert (SOURCE / "py.typed").exists()
    (tmp_path / "user.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "user.py"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "MYPYPATH": str(SOURCE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    mine = [line for line in done.stdout.splitlines() if line.startswith("user.py:")]
    errors = [line for line in mine if ": error:" in line]
    assert len(errors) == faults, done.stdout + done.stderr
