"""How fast the command starts, and what it does not load."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import regrain
from tests.conftest import remove
from tests.verbs import PACKAGE, Model, make_model

MARGIN_SECONDS = 0.150
ROUNDS_MIN, ROUNDS_MAX = 5, 60
HEAVY = ("sqlalchemy", "alembic", "sqlite3", "pysqlite3", "rich", "asyncio", "multiprocessing")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("startup")
    yield make_model(place)
    remove(place)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One in which bytecode is kept, as it is where regrain is installed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("REGRAIN_", "PYTHON"))}
    cache = tmp_path_factory.mktemp("bytecode")
    return {
        **clean,
        "PYTHONPYCACHEPREFIX": str(cache),
        "PYTHONPATH": str(Path(regrain.__file__).parent.parent),
    }


def seconds(words: list[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True)
    return time.perf_counter() - begin


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_start_is_quick(environment: dict[str, str], option: str) -> None:
    """The best of several, in turns, and of more where the machine is busy."""
    command = ["-m", "regrain", option]
    seconds(command, environment)  # writes the bytecode
    bare = ours = float("inf")
    for number in range(ROUNDS_MAX):
        bare = min(bare, seconds(["-c", "pass"], environment))
        ours = min(ours, seconds(command, environment))
        if number >= ROUNDS_MIN and ours - bare < MARGIN_SECONDS:
            break
    assert ours - bare < MARGIN_SECONDS, f"{1000 * ours:.0f} ms, bare Python {1000 * bare:.0f} ms"


CALLS = {
    "--version": ["--version"],
    "--help": ["--help"],
    "cat": ["cat", PACKAGE, "manifest.toml"],
    "files": ["files", PACKAGE],
    "files --json": ["files", PACKAGE, "--json"],
    "list": ["list"],
    "show": ["show", PACKAGE],
    "checkout": ["checkout", PACKAGE, "{out}"],
    "checkout shared": ["checkout", PACKAGE, "{out}", "--mode", "shared"],
}
PROGRAM = """
import sys
from regrain.cli import run
code = run(sys.argv[1:])
heavy = [name for name in {heavy!r} if name in sys.modules]
sys.exit(f"{{code}} {{heavy}}" if code or heavy else 0)
"""


@pytest.mark.parametrize("words", CALLS.values(), ids=CALLS)
def test_reading_loads_nothing_heavy(model: Model, workplace: Path, words: list[str]) -> None:
    arguments = [word.format(out=workplace / "out") for word in words]
    if words[0][0] != "-":
        arguments = ["--store", str(model.path), *arguments]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout


WORKERS = (
    "regrain.maintain.audit",
    "regrain.maintain.remake",
    "regrain.migrate.foreground",
    "regrain.migrate.parting",
    "regrain.migrate.pool",
    "regrain.migrate.replica_objects",
)
"""What the processes of ``spawn_executor`` import."""
NOT_FOR_WORKERS = ("sqlalchemy", "alembic", "rich", "click", "asyncio")


def test_all_workers_are_known() -> None:
    source = Path(regrain.__file__).parent
    users = [
        ".".join(("regrain", *path.relative_to(source).with_suffix("").parts))
        for path in sorted(source.rglob("*.py"))
        if " spawn_executor(" in path.read_text()
    ]
    assert set(users) == {*WORKERS, "regrain.store.workers"}


@pytest.mark.parametrize("module", WORKERS)
def test_a_worker_loads_nothing_that_it_does_not_need(module: str) -> None:
    """Each worker of each command pays for it: SQLAlchemy alone takes 0.2 s of a processor."""
    program = f"import sys, {module}; print([m for m in {NOT_FOR_WORKERS!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


NOT_FOR_A_STORE_OF_ONE_HOST = (
    "alembic",
    "distributed",
    "mpi4py",
    "obstore",
    "psycopg",
    "regrain.remote",
    "sqlalchemy.dialects.postgresql",
)


@pytest.mark.parametrize(
    "module", ["keeping", "lifecycle", "migration", "repacking", "standing", "verification"]
)
def test_what_most_stores_do_not_have_is_not_loaded(module: str) -> None:
    """SQLAlchemy loads all it has for a database as soon as one of its options is named."""
    program = (
        f"import sys, regrain.app.{module}, regrain.ledger;"
        f" print([m for m in {NOT_FOR_A_STORE_OF_ONE_HOST!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
