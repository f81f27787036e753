"""Settings: TOML file and environment, checked once, then a frozen value."""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from regrain.errors import ConfigurationError, reason

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_FILE = "/etc/regrain.toml"

_Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
_Jobs = Annotated[int, msgspec.Meta(ge=1, le=256)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_Whole = Annotated[int, msgspec.Meta(ge=0)]
_LogBytes = Annotated[int, msgspec.Meta(ge=4096)]
_Path = Annotated[str, msgspec.Meta(pattern=r"\A[^\0]*\Z")]
_Server = Annotated[str, msgspec.Meta(pattern=r"\A(postgresql\+psycopg://[^\0]*)?\Z")]
_Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[store]``: see ``docs/configuration.md``."""

    path: _Path | None = None
    database: _Server = ""
    migration_enabled: bool = True
    migration_batch_size: _Count = 10
    migration_parallel_files: _Jobs = 4
    verify_after_migration: bool = True
    keep_old_packages: bool = True
    use_file_level_storage: bool = True
    ingest: Literal["auto", "reflink", "hardlink", "copy"] = "auto"
    link_outside: bool = False
    compression: Literal["none", "zstd"] = "none"
    compression_level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 3
    compression_min_saving: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    sync: Literal["syncfs", "fsync"] = "syncfs"


class Migration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[migration]``: see ``docs/configuration.md``."""

    pause_ms: _Whole = 0
    niceness: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10
    cpu_priority: Literal["idle", "normal"] = "idle"
    io_priority: Literal["low", "idle", "normal"] = "low"
    max_read: _NotNegative = 0.0
    max_files: _NotNegative = 0.0
    settle: _NotNegative = 10.0
    free_bytes_min: _Whole = 1 << 30
    free_inodes_min: _Whole = 1000
    io_pressure_max: _NotNegative = 0.0
    latency_slowdown_max: Annotated[float, msgspec.Meta(gt=1)] | None = None
    error_rate_max: _Share = 0.05
    space_wait: _NotNegative = 600.0
    on_trigger: Literal["pause", "rollback", "continue"] = "pause"
    cleanup_on_rollback: bool = False
    log_file_bytes: _LogBytes = 16 << 20
    log_total_bytes: _LogBytes = 256 << 20


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings."""

    store: Store = Store()
    migration: Migration = Migration()


_ADVICE = "docs/configuration.md lists every key with its values."
_SECTIONS = {"STORE": "store", "MIGRATION": "migration"}


def load(path: str | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Args:
        path: The file named by ``--config``; else ``$REGRAIN_CONFIG``, else the default
            file if it is there.
        environment: ``REGRAIN_STORE__KEY`` and ``REGRAIN_MIGRATION__KEY`` win over the file.

    Raises:
        ConfigurationError: An unknown key or a bad value; the message names it.
    """
    chosen = chosen_file(path, environment)
    source = DEFAULT_FILE if chosen is None else chosen
    table = _read(source, must_exist=chosen is not None)
    settings = _convert(table, source, strict=True)
    for name, value in environment.items():
        if name.startswith("REGRAIN_") and "__" in name:
            section, _, key = name.removeprefix("REGRAIN_").partition("__")
            if section not in _SECTIONS:
                raise ConfigurationError(
                    f"unknown setting {name} in the environment", advice=_ADVICE
                )
            table.setdefault(_SECTIONS[section], {})[key.lower()] = value
            settings = _convert(table, name, strict=False)
    return settings


def chosen_file(path: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the file that somebody named; a variable that is empty names none."""
    return (environment.get("REGRAIN_CONFIG") or None) if path is None else path


def _read(path: str, *, must_exist: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigurationError(
                "no such configuration file",
                path=path,
                advice="Name one that is there, with --config or $REGRAIN_CONFIG.",
            ) from error
        return {}
    except OSError as error:
        raise ConfigurationError(
            "cannot read the configuration",
            path=path,
            why=reason(error),
            advice="Let this user read it, or name another with --config.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            "the configuration is not TOML", path=path, why=str(error), advice=_ADVICE
        ) from error


def _convert(table: dict[str, Any], source: str, *, strict: bool) -> Settings:
    try:
        return msgspec.convert(table, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            "a bad setting",
            path=source if os.sep in source else None,
            why=f"{error}" if os.sep in source else f"{source}: {error}",
            advice=_ADVICE,
        ) from error
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            "a bad setting", why=f"{source} is not UTF-8", advice=_ADVICE
        ) from error
