"""Settings: a file, the environment, and what is refused."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

import pytest

from regrain import settings
from regrain.errors import ConfigurationError
from regrain.settings import Settings, load

STORE: dict[str, tuple[str, Any]] = {
    "path": ('"/opt/pm/store"', "/opt/pm/store"),
    "migration_enabled": ("false", False),
    "migration_batch_size": ("3", 3),
    "migration_parallel_files": ("2", 2),
    "verify_after_migration": ("false", False),
    "keep_old_packages": ("false", False),
    "use_file_level_storage": ("false", False),
    "ingest": ('"copy"', "copy"),
    "link_outside": ("true", True),
    "compression": ('"zstd"', "zstd"),
    "compression_level": ("19", 19),
    "compression_min_saving": ("0.25", 0.25),
    "sync": ('"fsync"', "fsync"),
}
MIGRATION: dict[str, tuple[str, Any]] = {
    "settle": ("2.5", 2.5),
    "space_wait": ("60", 60.0),
    "on_trigger": ('"rollback"', "rollback"),
    "cleanup_on_rollback": ("true", True),
    "latency_slowdown_max": ("1.5", 1.5),
    "niceness": ("19", 19),
    "io_priority": ('"normal"', "normal"),
    "log_file_bytes": ("4096", 4096),
    "log_total_bytes": ("99999", 99999),
}
DEFAULTS = {
    "migration_enabled": True,
    "migration_batch_size": 10,
    "migration_parallel_files": 4,
    "verify_after_migration": True,
    "keep_old_packages": True,
    "use_file_level_storage": True,
    "ingest": "auto",
    "link_outside": False,
    "compression": "none",
    "compression_level": 3,
    "compression_min_saving": 0.05,
    "sync": "syncfs",
}
KEYS = [("store", key, *pair) for key, pair in STORE.items()]
KEYS += [("migration", key, *pair) for key, pair in MIGRATION.items()]


@pytest.fixture(autouse=True)
def no_file_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DEFAULT_FILE", str(tmp_path / "default.toml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "regrain.toml"


def found(value: Settings, section: str, key: str) -> Any:
    return getattr(getattr(value, section), key)


def test_the_defaults_are_those_of_the_contract() -> None:
    value = load(None, {})
    assert {key: found(value, "store", key) for key in DEFAULTS} == DEFAULTS
    assert (value.migration.settle, value.migration.space_wait) == (10, 600)
    assert value.migration.latency_slowdown_max is None
    assert value.migration.on_trigger == "pause"
    assert value.migration.cleanup_on_rollback is False
    assert value.migration.free_bytes_min == 1 << 30
    assert value.migration.error_rate_max == pytest.approx(0.05)
    assert value == Settings()


@pytest.mark.parametrize(("section", "key", "text", "value"), KEYS, ids=[row[1] for row in KEYS])
def test_each_key_of_the_contract_is_taken_from_a_file(
    file: Path, section: str, key: str, text: str, value: Any
) -> None:
    file.write_text(f"[{section}]\n{key} = {text}\n")
    assert found(load(str(file), {}), section, key) == value


@pytest.mark.parametrize(("section", "key", "text", "value"), KEYS, ids=[row[1] for row in KEYS])
def test_the_environment_wins(file: Path, section: str, key: str, text: str, value: Any) -> None:
    file.write_text(f"[{section}]\n# nothing but other keys\n")
    name = f"REGRAIN_{section.upper()}__{key.upper()}"
    read = load(str(file), {name: text.strip('"')})
    assert found(read, section, key) == value
    file.write_text('[store]\npath = "/file"\nmigration_batch_size = 99\nsync = "fsync"\n')
    both = load(str(file), {"REGRAIN_STORE__MIGRATION_BATCH_SIZE": "7"})
    assert both.store.migration_batch_size == 7
    assert (both.store.path, both.store.sync) == ("/file", "fsync")


def test_which_file_is_read(tmp_path: Path) -> None:
    for name, size in (("default", 1), ("variable", 2), ("option", 3)):
        (tmp_path / f"{name}.toml").write_text(f"[store]\nmigration_batch_size = {size}\n")
    option, variable = (
        str(tmp_path / "option.toml"),
        {"REGRAIN_CONFIG": f"{tmp_path}/variable.toml"},
    )
    assert load(option, variable).store.migration_batch_size == 3
    assert load(None, variable).store.migration_batch_size == 2
    assert load(None, {}).store.migration_batch_size == 1


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    for option, environment in ((missing, {}), (None, {"REGRAIN_CONFIG": missing})):
        with pytest.raises(ConfigurationError, match=r"missing\.toml"):
            load(option, environment)


BAD = {
    "an unknown key": ("[store]\nmigration_batchsize = 1\n", "migration_batchsize"),
    "an unknown section": ("[stor]\n", "stor"),
    "a key outside of its section": ("sync = 'fsync'\n", "sync"),
    "a word that is none": ("[store]\nsync = 'sometimes'\n", "sync"),
    "zero packages": ("[store]\nmigration_batch_size = 0\n", "migration_batch_size"),
    "zero readers": ("[store]\nmigration_parallel_files = 0\n", "migration_parallel_files"),
    "a number in quotes": ("[store]\nmigration_batch_size = '5'\n", "migration_batch_size"),
    "a fraction of a package": ("[store]\nmigration_batch_size = 1.5\n", "migration_batch_size"),
    "a word for a switch": ("[store]\nlink_outside = 'yes'\n", "link_outside"),
    "a section that is no table": ("store = 1\n", "store"),
    "negative time": ("[migration]\nsettle = -1\n", "settle"),
    "no slowdown at all": ("[migration]\nlatency_slowdown_max = 0.5\n", "latency_slowdown_max"),
    "all may fail twice": ("[migration]\nerror_rate_max = 2\n", "error_rate_max"),
    "another trigger": ("[migration]\non_trigger = 'stop'\n", "on_trigger"),
    "a log of no length": ("[migration]\nlog_file_bytes = 0\n", "log_file_bytes"),
    "no TOML": ("[store\n", "regrain.toml"),
    "not UTF-8": ("\xff", "regrain.toml"),
    "a number without end": ("[store]\nmigration_batch_size = " + "9" * 5000, "regrain.toml"),
}


@pytest.mark.parametrize(("text", "named"), [*BAD.values()], ids=[*BAD])
def test_a_bad_file_is_refused_by_name(file: Path, text: str, named: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError) as caught:
        load(str(file), {})
    assert named in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REGRAIN_STORE__SYNC", "sometimes"),
        ("REGRAIN_STORE__MIGRATION_BATCH_SIZE", "many"),
        ("REGRAIN_STORE__MIGRATION_BATCH_SIZE", ""),
        ("REGRAIN_STORE__MIGRATION_ENABLED", "perhaps"),
        ("REGRAIN_STORE__NO_SUCH_KEY", "1"),
        ("REGRAIN_MIGRATION__SETTLE", "-1"),
        ("REGRAIN_MIGRATION__SETTLE", "nan"),
        ("REGRAIN_MIGRATON__SETTLE", "1"),
    ],
)
def test_a_bad_variable_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(None, {name: value})
    text = str(caught.value)
    assert name in text or name.rpartition("__")[2].lower() in text


def test_variables_of_others_are_left_alone() -> None:
    assert load(None, {"REGRAIN_TEST_SEED": "1", "PATH": "/bin", "STORE__PATH": "x"}) == Settings()


@pytest.mark.parametrize("word", ["true", "True", "TRUE"])
def test_switches_in_the_environment(word: str) -> None:
    assert load(None, {"REGRAIN_STORE__LINK_OUTSIDE": word}).store.link_outside is True
    assert (
        load(None, {"REGRAIN_STORE__MIGRATION_ENABLED": "false"}).store.migration_enabled is False
    )


def test_a_store_may_be_called_anything() -> None:
    for path in ("true", "123", "/tmp/a b", "1.5"):
        assert load(None, {"REGRAIN_STORE__PATH": path}).store.path == path


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=os.path.basename(tmp_path)):
        load(str(tmp_path), {})


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        load(None, {}).store.sync = "fsync"  # type: ignore[misc]


def _keys() -> list[tuple[str, str]]:
    value = Settings()
    return [
        (section, key)
        for section in value.__struct_fields__
        for key in getattr(value, section).__struct_fields__
    ]


@pytest.mark.parametrize(("section", "key"), _keys(), ids=[".".join(key) for key in _keys()])
def test_each_setting_is_used_and_tested(section: str, key: str) -> None:
    """It is read somewhere, a test of more than settings sets it, and the docs explain it."""
    root = Path(__file__).parents[2]
    documented = (root / "docs" / "configuration.md").read_text()
    (row,) = re.findall(rf"^\| `{key}` \|.*$", documented, re.MULTILINE)
    readers = [
        path
        for path in (root / "src").rglob("*.py")
        if any(
            isinstance(node, ast.Attribute) and node.attr == key
            for node in ast.walk(ast.parse(path.read_bytes()))
        )
    ]
    assert readers, f"[{section}] {key} is read nowhere"
    setting = re.compile(rf"\b{key}=|REGRAIN_{section}__{key}\b", re.IGNORECASE)
    tests = [
        path
        for path in (root / "tests").rglob("*.py")
        if path.name not in {"test_settings.py", "test_doctor.py"}
        and setting.search(path.read_text())
    ]
    assert tests or "is refused:" in row, f"no test sets [{section}] {key}"
