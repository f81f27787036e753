"""The command ``add``: exit codes, documents, what a dry run tells."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from regrain.app.store import PackageStore
from tests import archives
from tests.command import Regrain
from tests.system.test_add import (
    NAME,
    assert_unchanged,
    everything,
    make_tree,
    without_manifest,
)


def test_exit_codes_and_documents(regrain: Regrain, workplace: Path) -> None:
    regrain.store.mkdir()
    regrain("init")
    good, other = make_tree(workplace / "good", 4), make_tree(workplace / "other", 5)
    bad = without_manifest(workplace)
    before = everything(regrain.store)
    assert "would add" in regrain("add", "-n", good).text
    assert_unchanged(regrain.store, before)
    for name in ("x" * 64, "A" * 64, "0" * 63, "", "../" + "0" * 61):
        regrain("add", good, "--hash", name, code=2)
    regrain("add", good, other, "--hash", NAME, code=2)
    assert_unchanged(regrain.store, before)
    assert regrain("add", bad, "--json", code=1).of_type("exit_error")
    regrain("add", bad, workplace / "missing", code=1)
    said = regrain("add", bad, good, good, "--json", code=3)
    assert [d.get("already_present") for d in said.of_type("package")] == [None, False, True]
    again = regrain("add", good, "--json").document
    assert (again["already_present"], again["status"]) == (True, "already_present")
    short = "ab" * 16
    assert regrain("add", good, "--hash", short, "--json").document["package_hash"] == short
    regrain("add", other, "--hash", short, code=1)
    env = {"REGRAIN_STORE__USE_FILE_LEVEL_STORAGE": "false"}
    toml = regrain.store / "store.toml"
    toml.write_text(toml.read_text().replace('"dual"', '"file_level"'))
    regrain("add", other, env=env, code=2)
    regrain("add", "-n", other, env=env, code=2)
    regrain("verify", "--level", "deep")


def test_every_failure_says_which_and_the_last_word_is_the_exit_code(
    regrain: Regrain, workplace: Path
) -> None:
    regrain.store.mkdir()
    regrain("init")
    good, bad, short, missing = (workplace / name for name in ("good", "bad", "short", "missing"))
    make_tree(good, 4)
    without_manifest(workplace)
    short.write_bytes(archives.archive(archives.file(b"manifest.toml"))[:-900])
    [alone] = regrain("add", short, "--json", code=1).documents
    assert (alone["message_type"], alone["exit_code"]) == ("exit_error", 1)
    assert str(short) in alone["message"]
    assert alone["advice"]
    some = (bad, good, missing, short)
    for words, paths, code in (
        (("-n", "--json"), some, 3),
        (("--json",), some, 3),
        (("--json",), (bad, missing, short), 1),
    ):
        result = regrain("add", *words, *paths, code=code)
        *told, end = result.documents
        assert [d["path"] for d in told] == [str(path) for path in paths]
        failed = [d for d in told if d.get("status") == "failed"]
        assert [d["path"] for d in failed] == [str(path) for path in paths if path != good]
        for said in failed:
            assert said["path"] in said["message"]
            assert said["message"] in result.stderr
            assert said["advice"]
        assert (end["message_type"], end["exit_code"]) == ("exit_error", code)
        assert result.stderr.count("regrain: ") == 4
    assert os.listdir(regrain.store / "temp") == []


def test_a_dry_run_reads_through_and_names(regrain: Regrain, workplace: Path) -> None:
    regrain.store.mkdir()
    regrain("init")
    good = make_tree(workplace / "good", 4)
    whole, cut = workplace / "good.sp", workplace / "cut.sp"
    with tarfile.open(whole, "w") as archive:
        archive.add(good, ".")
    cut.write_bytes(whole.read_bytes()[:-2000])
    before = everything(regrain.store)
    foreseen = [regrain("add", "-n", path, "--json").document for path in (good, whole)]
    assert [d["is_taken"] for d in foreseen] == [False, False]
    regrain("add", "-n", cut, code=1)
    assert_unchanged(regrain.store, before)
    for path, document in zip((good, whole), foreseen, strict=True):
        added = regrain("add", path, "--json").document
        assert added["package_hash"] == document["package_hash"]
        assert regrain("add", "-n", path, "--json").document["is_taken"]


def test_an_unreadable_source(regrain: Regrain, workplace: Path) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, to drop root's right to read everything")
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    humble = Regrain(regrain.store, prefix=drop if os.geteuid() == 0 else ())
    humble.store.mkdir()
    humble("init")
    for name, part in (("file", "opt/pm/live/bin/new"), ("tree", "opt/pm/live"), ("root", "")):
        tree = make_tree(workplace / name)
        (tree / part).chmod(0)
        said = humble("add", tree, code=1)
        assert "Permission denied" in said.stderr
        (tree / part).chmod(stat.S_IRWXU)
    assert os.listdir(humble.store / "temp") == []
    assert list(PackageStore.open(humble.store).packages()) == []
