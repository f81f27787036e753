"""The command line: exit codes, documents, what names a package."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.command import Regrain
from tests.reader import path_of
from tests.stores import Migrated, statuses, text_of
from tests.trees import LIVE, LegacyPackage, Tree, describe

Packages = dict[str, LegacyPackage]
COMMANDS = (
    "plan",
    "init",
    "migrate",
    "status",
    "verify",
    "list",
    "show",
    "files",
    "cat",
    "checkout",
)
UNKNOWN = "0123456789abcdef" * 4
MALFORMED = (
    "xyz",
    "",
    "..",
    "../" + "a" * 61,
    "A" * 64,
    "a" * 65,
    "a" * 63 + "\n",
    "g" * 32,
    "a" * 7,
    "/etc",
    "a" * 31 + "/",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(regrain: Regrain, command: str) -> None:
    said = regrain(command, "--help")
    assert said.text.startswith("Usage:")


def test_a_wrong_use_is_2(regrain: Regrain) -> None:
    regrain("no-such-command", code=2)
    regrain("migrate", "--no-such-option", code=2)
    regrain("migrate", "--jobs", "none", code=2)
    regrain("verify", "--level", "thorough", code=2)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in {"plan", "init"}])
@pytest.mark.parametrize("there", ["nothing", "empty", "legacy"])
def test_no_store_is_10(
    regrain: Regrain, workplace: Path, seed: int, command: str, there: str
) -> None:
    if there == "empty":
        regrain.store.mkdir()
    if there == "legacy":
        shutil.copytree(legacy_of_one(workplace / "one"), regrain.store)
    names = {"show": [UNKNOWN], "files": [UNKNOWN], "cat": [UNKNOWN, "x"]}
    names["checkout"] = [UNKNOWN, str(workplace / "out")]
    result = regrain(command, *names.get(command, []), code=10)
    assert str(regrain.store) in result.stderr
    assert not (workplace / "out").exists()


def legacy_of_one(path: Path, name: str = "a" * 64) -> Path:
    with Tree(path / name, Random(1)) as tree:
        describe(tree, "one", "1")
        tree.file(LIVE + b"/bin/one", b"one\n", 0o755)
    return path


def test_plan_of_nothing_is_10(regrain: Regrain) -> None:
    regrain("plan", code=10)


@pytest.mark.parametrize("command", ["show", "files", "cat", "checkout", "verify"])
def test_an_unknown_package_is_1(migrated: Migrated, workplace: Path, command: str) -> None:
    more: dict[str, list[str | Path]] = {"cat": ["x"], "checkout": [workplace / "out"]}
    result = migrated.regrain(command, UNKNOWN, *more.get(command, []), code=1)
    assert UNKNOWN in result.stderr
    assert not (workplace / "out").exists()


@pytest.mark.parametrize("command", ["show", "cat", "checkout"])
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_hash_is_2(
    migrated: Migrated, workplace: Path, command: str, name: str
) -> None:
    more: dict[str, list[str | Path]] = {"cat": ["x"], "checkout": [workplace / "out"]}
    migrated.regrain(command, name, *more.get(command, []), code=2)
    assert not (workplace / "out").exists()


def test_a_prefix_names_a_package(regrain: Regrain, store_path: Path) -> None:
    names = ["0123456789" + "a" * 54, "0123456789" + "b" * 54, "c" * 32, "c" * 64]
    for name in names:
        legacy_of_one(store_path, name)
    regrain("init")
    regrain("migrate")
    assert names[0] in regrain("show", names[0][:11]).text
    assert names[1] in regrain("show", names[1][:40]).text
    ambiguous = regrain("show", "0123456789", code=None)
    assert ambiguous.code in {1, 2}, ambiguous
    exact = regrain("show", "c" * 32, "--json").document
    assert "c" * 32 in exact.values(), exact
    assert "c" * 64 in regrain("show", "c" * 33, "--json").document.values()
    regrain("show", "c" * 8, code=ambiguous.code)
    regrain("show", "0123456", code=2)
    regrain("show", "d" * 8, code=1)


def test_list_names_every_package(migrated: Migrated) -> None:
    lines = migrated.regrain("list").text.splitlines()
    for name, package in migrated.packages.items():
        [line] = [line for line in lines if re.search(rf"\b{name}\b", line)]
        assert package.name in line
        assert package.version in line
    assert all(name in text_of(migrated.regrain("list", "--json")) for name in migrated.packages)


def test_show_tells_of_one_package(migrated: Migrated) -> None:
    package = next(p for p in migrated.packages.values() if p.version == "1.7")
    values = migrated.regrain("show", package.hash, "--json").document.values()
    assert {package.hash, "jq", "1.7", "file_level"} <= {v for v in values if isinstance(v, str)}
    text = migrated.regrain("show", package.hash).text
    assert all(word in text for word in (package.hash, "jq", "1.7"))


def entries(value: Any) -> list[dict[str, Any]]:
    """Every object with a path, wherever it stands in the documents."""
    if isinstance(value, list):
        return [found for item in value for found in entries(item)]
    if isinstance(value, dict):
        if "path" in value or "path_b64" in value:
            return [value]
        return [found for item in value.values() for found in entries(item)]
    return []


def test_files_lists_every_entry(migrated: Migrated) -> None:
    for what in ("names", "order", "symlinks", "link-groups"):
        package = migrated.named(what)
        found = entries(migrated.regrain("files", package.hash, "--json").documents)
        paths = [path_of(entry) for entry in found]
        expected = migrated.before[package.hash]
        assert set(paths) - {b""} == expected.keys() - {b""}
        assert len(paths) == len(set(paths))
        assert migrated.regrain("files", package.hash).stdout


def test_cat_gives_the_bytes(migrated: Migrated) -> None:
    chosen = []
    for what in ("order", "empties", "sparse", "a large file", "link-groups"):
        package = migrated.named(what)
        tree = migrated.before[package.hash]
        files = sorted(path for path, entry in tree.items() if entry.kind == "file")
        chosen += [(package, path) for path in files[-3:]]
    names = migrated.named("names")
    raw = [b"\xff\xfe", b"new\nline", b'double"quote', b"--help", b"a" * 255]
    chosen += [(names, LIVE + b"/files/" + name) for name in raw]
    for package, path in chosen:
        said = migrated.regrain("cat", package.hash, path)
        with open(os.fsencode(package.path) + b"/" + path, "rb") as stream:
            assert said.stdout == stream.read(), path


def test_cat_of_no_file_is_1(migrated: Migrated) -> None:
    package = migrated.named("symlinks")
    for path in ("no/such/file", "opt/pm/live", "opt/pm/live/dangling", "../x", "/etc/passwd"):
        result = migrated.regrain("cat", package.hash, path, code=None)
        assert result.code in {1, 2}, result
        assert result.stdout == b""


def test_settings_that_are_no_settings_are_2(regrain: Regrain, store_path: Path) -> None:
    legacy_of_one(store_path)
    regrain("init")
    for key, value in (("NONSENSE", "1"), ("INGEST", "teleport"), ("MIGRATION_BATCH_SIZE", "many")):
        result = regrain("migrate", env={f"REGRAIN_STORE__{key}": value}, code=2)
        assert key.lower() in result.stderr.lower()
    assert set(statuses(store_path).values()) == {"pending"}


def test_a_configuration_file_is_read_and_the_environment_wins(
    regrain: Regrain, store_path: Path, workplace: Path
) -> None:
    legacy_of_one(store_path)
    regrain("init")
    config = workplace / "regrain.toml"
    config.write_text("[store]\nmigration_enabled = false\n")
    environment = {"REGRAIN_CONFIG": str(config)}
    regrain("migrate", env=environment, code=5)
    assert set(statuses(store_path).values()) == {"pending"}
    regrain("migrate", env={**environment, "REGRAIN_STORE__MIGRATION_ENABLED": "true"})
    assert set(statuses(store_path).values()) == {"completed"}
    config.write_text("[store]\nmigration_enable = false\n")
    assert "migration_enable" in regrain("status", env=environment, code=2).stderr


def test_a_store_of_another_format_is_2(regrain: Regrain, store_path: Path) -> None:
    legacy_of_one(store_path)
    regrain("init")
    path = store_path / "store.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 2"))
    for command in ("status", "migrate", "list"):
        regrain(command, code=2)


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_broken_ledger_is_4_and_reading_goes_on(
    regrain: Regrain, store_path: Path, damage: str
) -> None:
    legacy_of_one(store_path)
    regrain("init")
    regrain("migrate")
    for path in store_path.glob("state.sqlite*"):
        path.unlink()
    if damage == "garbage":
        (store_path / "state.sqlite").write_bytes(b"no database at all\n" * 500)
    regrain("status", code=4)
    regrain("migrate", code=4)
    assert regrain("cat", "a" * 64, "opt/pm/live/bin/one").stdout == b"one\n"
    assert "a" * 64 in regrain("list").text


def test_an_error_is_a_document_too(migrated: Migrated) -> None:
    result = migrated.regrain("show", UNKNOWN, "--json", code=1)
    [document] = result.of_type("exit_error")
    assert UNKNOWN in text_of(result)
    assert document["schema"] == 1


def test_what_is_missing_is_told_in_one_line(regrain: Regrain, store_path: Path) -> None:
    legacy_of_one(store_path)
    regrain("init")
    said = regrain("repack", code=2).stderr
    assert "Choose from: all, cold, none." in said
    assert "\\x" not in said


def test_every_status_ends_with_the_next_command(regrain: Regrain, store_path: Path) -> None:
    legacy_of_one(store_path)
    regrain("init")
    for _ in range(2):
        last = regrain("status").text.rstrip().splitlines()[-1]
        assert regrain("status", "--json").document["next_command"] in last
        regrain("migrate")
