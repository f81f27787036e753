"""A package's own manifest: only name and version are of interest here."""

from __future__ import annotations

import tomllib

import msgspec

BYTES_MAX = 1 << 20
"""A longer file is read by nobody: it names a package, and is written by hand."""


class Manifest(msgspec.Struct, frozen=True):
    """What a ``manifest.toml`` says.

    Attributes:
        name: ``[package] name``, empty where the manifest does not say.
        version: ``[package] version``, empty where the manifest does not say.
        table: The whole document.
    """

    name: str = ""
    version: str = ""
    table: dict[str, object] = {}


def parse_manifest(raw: bytes) -> Manifest:
    """Return the manifest in ``raw``; a broken one gives a nameless Manifest.

    A package whose manifest cannot be read is still a package, whose files must be kept.
    """
    try:
        table = tomllib.loads(raw.decode())
    except (ValueError, RecursionError):  # not TOML, not UTF-8, a number without end
        return Manifest()
    package = table.get("package")
    if not isinstance(package, dict):
        return Manifest(table=table)
    name, version = package.get("name", ""), package.get("version", "")
    return Manifest(
        name=name if isinstance(name, str) else "",
        version=version if isinstance(version, str) else "",
        table=table,
    )


def check_manifest(raw: bytes) -> str:
    """Say what is wrong with a new package's manifest; empty if nothing is."""
    try:
        table = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        return f"it is not TOML ({error})"
    package = table.get("package")
    if not isinstance(package, dict):
        return "it has no [package]"
    for key in ("name", "version"):
        if not isinstance(package.get(key), str) or not package[key]:
            return f"[package] has no {key}"
    return ""
