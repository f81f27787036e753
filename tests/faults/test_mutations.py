"""The protocol is broken on purpose, in one place at a time: a test that is named must see it.

Each breakage is made in a private copy of the program, and the test runs against that. That it
passes without the breakage, the suite says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import tally
from tests.faults.sweeping import VARIABLE

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Breakage:
    """A place where the protocol is broken.

    Attributes:
        file: Below ``src/regrain``.
        old: What stands there, once.
        new: What stands there instead.
        test: What must fail then.
    """

    file: str
    old: str
    new: str
    test: str


ORDER = "test_order.py::test_the_order_of_a_commit"
SWAPS = "../attacks/test_swaps.py::test_no_open_is_led_out_at_all"
BREAKAGES = {
    "staged data are not flushed": Breakage(
        "migrate/publish.py",
        '            self._sync("the staged files")\n',
        "            return\n",
        ORDER,
    ),
    "names of objects are not flushed": Breakage(
        "migrate/publish.py",
        '            self._sync("the names of objects")\n',
        "",
        ORDER,
    ),
    "the commit point is not flushed": Breakage(
        "migrate/publish.py",
        '        self._fsync(self._root.packages, "packages")\n',
        "",
        ORDER,
    ),
    "recorded before it is published": Breakage(
        "migrate/commit.py",
        "            self._publisher.publish_packages(o.claim.package_hash for o in outcomes)\n"
        "            self._record(outcomes, batch.carriers)\n",
        "            self._record(outcomes, batch.carriers)\n"
        "            self._publisher.publish_packages(o.claim.package_hash for o in outcomes)\n",
        ORDER,
    ),
    "a flush that failed is passed over": Breakage(
        "migrate/publish.py",
        "            disk.syncfs(self._root.fd)\n"
        "        except OSError as error:\n"
        "            raise flush_error(what, error) from error\n",
        "            disk.syncfs(self._root.fd)\n        except OSError:\n            return\n",
        "test_nth_failure.py::test_a_failure_at_work[syncfs]",
    ),
    "published before it is verified": Breakage(
        "migrate/seal.py",
        "        if self._options.verify:\n",
        "        if not self._options:\n",
        "test_verification.py::test_a_tree_that_changed_since_it_was_read_fails",
    ),
    "recovery believes what a name says": Breakage(
        "migrate/recover.py",
        "        return hash_carrier(root.objects, carrier)[0] == carrier.digest\n",
        "        return bool(carrier.digest)\n",
        "test_after_crash.py::test_a_damaged_orphan_goes_to_quarantine",
    ),
    "recovery records what may not be on the disk": Breakage(
        "migrate/recover.py",
        "        disk.syncfs(root.fd)\n",
        "        pass\n",
        "test_order.py::test_what_a_killed_run_left_is_flushed_before_it_is_recorded",
    ),
    "a legacy directory goes without a last look": Breakage(
        "maintain/withdraw.py",
        "            if doubt is not None:\n                return doubt, 0\n",
        "",
        "test_undoing_failure.py::test_a_tree_that_changes_after_it_was_compared_is_put_back",
    ),
    "commits of the ledger are not flushed": Breakage(
        "ledger/connection.py",
        "PRAGMA synchronous = {'FULL' if _is_safe() else 'EXTRA'}",
        "PRAGMA synchronous = OFF",
        "test_power_cuts.py::test_cut_at_every_flush[migrate-ext4]",
    ),
    "a file that is replaced is not flushed": Breakage(
        "disk.py",
        "        if durable:\n            fsync(fd)\n",
        "",
        "test_power_cuts.py::test_cut_at_every_flush[cutover-xfs]",
    ),
    "what repack makes is not flushed": Breakage(
        "maintain/represent.py",
        "            disk.syncfs(self._root.fd)\n",
        "            return\n",
        "test_repack_faults.py::test_nothing_goes_before_what_replaces_it_is_on_the_disk",
    ),
    "directories are opened through links": Breakage(
        "disk_bytes.py",
        "_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        f"{SWAPS}[cleanup]",
    ),
    "directories to be emptied are made readable through links": Breakage(
        "disk.py",
        "_PINNED_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "_PINNED_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC",
        f"{SWAPS}[emptying-denied]",
    ),
    "files are opened through links": Breakage(
        "disk_bytes.py",
        "_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC",
        "_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC",
        f"{SWAPS}[checkout]",
    ),
    "gc believes a ledger that does not know all packages": Breakage(
        "maintain/collect.py",
        "            _check_known(root, ledger)\n",
        "",
        "../system/test_collect.py::test_refused_while_a_package_is_unknown",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_protocol_is_caught(name: str, tmp_path: Path) -> None:
    breakage = BREAKAGES[name]
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "src/regrain" / breakage.file
    assert file.read_text().count(breakage.old) == 1, "what is to be broken is not there, or twice"
    file.write_text(file.read_text().replace(breakage.old, breakage.new))
    assert run(tmp_path, breakage.test) == 1, "nobody saw that the protocol is broken"


def run(copy: Path, test: str) -> int:
    """Run one test against a copy of the program; its exit code: 0 passed, 1 failed."""
    ours = {tally.VARIABLE, VARIABLE}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    used = [sys.executable, "-c", "import regrain; print(regrain.__file__)"]
    found = subprocess.run(used, env=environment, cwd=ROOT, capture_output=True, check=True)
    assert found.stdout.startswith(os.fsencode(copy)), found
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    words.append(os.path.normpath(ROOT / "tests/faults" / test))
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, check=False)
    said = done.stdout.decode()
    print(said[-3000:])  # noqa: T201 -- for whoever reads why it was not seen
    if done.returncode == 0 and " skipped" in said and " passed" not in said:
        pytest.skip(f"{test} cannot run here")
    return done.returncode
