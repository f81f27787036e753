"""The table of faults: what fired counts only if the test that made it happen passed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import tally
from tests.faults.table import BEGIN, END, replaced, table

TESTS = """
from tests.faults import tally
import pytest

@pytest.fixture
def cracked():
    yield
    assert False

@pytest.mark.parametrize("name", ["with a space"])
def test_good(name): tally.count("migrate", "EIO", "S", 3)
def test_bad():
    tally.count("migrate", "EIO", "S", 5)
    assert False
def test_bad_at_its_end(cracked): tally.count("gc", "SIGKILL", "killed", 7)
def test_that_counts_nothing(): tally.count("gc", "SIGKILL", "killed", 0)
"""


@pytest.mark.parametrize("options", [["-p", "no:xdist"], ["-n", "2"]], ids=["alone", "xdist"])
def test_faults_of_tests_that_failed_do_not_count(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_logreport\n")
    root = os.fspath(Path(__file__).parents[2])
    found = tmp_path / "tally.jsonl"
    path = os.pathsep.join([root, os.path.join(root, "src")])
    environment = os.environ | {tally.VARIABLE: os.fspath(found), "PYTHONPATH": path}
    environment.pop("PYTEST_XDIST_WORKER", None)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "."]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1, done.stdout
    made = table(found.read_text().splitlines())
    assert made.startswith("3 faults fired in tests that passed, 12 in others; ")
    assert "| migrate | 3 | pending again 3 |" in made
    assert "gc" not in made


def test_only_the_table_of_a_page_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new") == f"before\n{BEGIN}\n\nnew\n{END}\nafter\n"
