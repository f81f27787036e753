"""A checkout where two names of a package are one: refused with the name, nothing is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from regrain import Entry, PackageStore
from regrain.errors import RegrainError
from tests.checkouts import BIG, NAME, make_store
from tests.compare import Snapshot, differences, snapshot
from tests.faults.inline import Way, initialise, migrate
from tests.mounts import mounted
from tests.trees import Tree, describe

MODES = pytest.mark.parametrize("mode", ["exact", "shared"])


@MODES
@pytest.mark.parametrize(
    "path", [BIG, b"group", b"group/second", b"link"], ids=["file", "directory", "link", "symlink"]
)
def test_a_name_that_is_taken_when_its_turn_comes(workplace: Path, mode: str, path: bytes) -> None:
    """Where names are folded that is what happens; here the other name is made by hand."""
    before: Snapshot = make_store(workplace / "store")
    paths = sorted(before)
    last, out = paths[paths.index(path) - 1], workplace / "out"

    def take(entry: Entry) -> None:
        if entry.path == last:
            (out / os.fsdecode(path)).write_bytes(b"another's")

    package = PackageStore.open(workplace / "store").get_package(NAME)
    with pytest.raises(RegrainError, match="a name of the package is taken") as caught:
        package.checkout(out, mode=mode, on_entry=take)
    assert caught.value.path == os.fsdecode(path)
    assert (caught.value.exit_code, bool(caught.value.advice)) == (1, True)
    assert not out.exists()
    assert package.checkout(out, mode=mode) == len(before)


@MODES
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_a_file_system_that_folds_case(workplace: Path, mode: str, kind: str) -> None:
    store = workplace / "store"
    with Tree(store / NAME, Random(1)) as tree:
        describe(tree, "folding", "1.0")
        for name in (b"share/README", b"share/readme"):
            if kind == "file":
                tree.file(name, name)
            elif kind == "directory":
                tree.directory(name)
            else:
                tree.symlink(name, b"target")
    before = snapshot(store / NAME)
    initialise(store)
    assert migrate(store, Way()).completed == 1
    package = PackageStore.open(store).get_package(NAME)
    with mounted("ext4", workplace, "-O", "casefold", "-E", "encoding=utf8") as point:
        (point / "folding").mkdir()
        subprocess.run(["chattr", "+F", point / "folding"], check=True)
        out = point / "folding" / "out"
        with pytest.raises(RegrainError, match="a name of the package is taken") as caught:
            package.checkout(out, mode=mode)
        assert caught.value.path == "share/readme"
        assert not out.exists()
        package.checkout(point / "plain", mode=mode)
        assert differences(before, snapshot(point / "plain")) == []
