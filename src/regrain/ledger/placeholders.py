"""Statements as they are written for SQLite, made into what PostgreSQL's driver takes."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_MARK = re.compile(r"\?(\d*)")


def translate(statement: str, parameters: Any) -> tuple[str, Any]:  # noqa: ANN401 -- the driver's own
    """Return a statement with ``%s`` for ``?``, and its parameters.

    A value whose mark has a number, ``?2``, goes over once by name, however often it is used. A
    NUL, which text in PostgreSQL cannot hold, becomes the replacement character.
    """
    if isinstance(parameters, list):
        return _rewritten(statement)[0], [_values(statement, row) for row in parameters]
    return _rewritten(statement)[0], _values(statement, parameters)


@lru_cache(maxsize=512)
def _rewritten(statement: str) -> tuple[str, bool]:
    marks = _MARK.findall(statement)
    if not marks:
        return statement, False
    safe = statement.replace("%", "%%")
    if any(marks):
        return _MARK.sub(r"%(p\1)s", safe), True
    return _MARK.sub("%s", safe), False


def _values(statement: str, row: Any) -> Any:  # noqa: ANN401 -- as above
    if isinstance(row, dict):
        return {name: _clean(value) for name, value in row.items()}
    values = [_clean(value) for value in row or ()]
    if _rewritten(statement)[1]:
        return {f"p{number}": value for number, value in enumerate(values, start=1)}
    return tuple(values)


def _clean(value: object) -> object:
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
