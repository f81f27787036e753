"""JSON documents for programs: one form, on standard output and over HTTP."""

from __future__ import annotations

import msgspec

from regrain.errors import encodable

SCHEMA = 1


def encode(message_type: str, fields: dict[str, object]) -> bytes:
    """Return one JSON document on one line, without the end of the line."""
    return line({"schema": SCHEMA, "message_type": message_type, **fields})


def line(content: dict[str, object]) -> bytes:
    """Return what a line of JSON holds."""
    try:
        return msgspec.json.encode(content, enc_hook=str)
    except UnicodeEncodeError:  # a path that is not UTF-8, as Python hands it over
        return msgspec.json.encode(_escaped(content), enc_hook=str)


def _escaped(value: object) -> object:
    """Return ``value`` with everything escaped in its texts that is not Unicode."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value
