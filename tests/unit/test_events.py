"""docs/events.md has every event and every field there is, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import get_args

from regrain.cli import log
from regrain.maintain.cleanup import Cleaned, Staying
from regrain.maintain.restore import Failure, Restored
from regrain.migrate import course
from regrain.model.events import Event, Progress

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
DOCS = (ROOT / "docs" / "events.md").read_text()
NAME = re.compile(r"`(\w+)`")


def section(title: str) -> str:
    """What stands below a heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def rows(title: str) -> dict[str, str]:
    """The rows of the last table below a heading: event, and what is said of it."""
    found: dict[str, str] = {}
    for line in section(title).splitlines():
        if line.startswith("|") and not line.startswith(("| event", "|---")):
            names, told = line.strip("|").split(" | ", 1)
            found.update(dict.fromkeys(NAME.findall(names), told))
    return found


def test_events_of_a_migration() -> None:
    wanted = {kind.__name__: {one.name for one in fields(kind)} for kind in get_args(Event)}
    wanted[course.NAME] = set(course.line(Progress(0, 0, 0, 0, 0, 0, None, None)))
    assert {kind.__name__ for kind in get_args(Event)} == rows("A migration").keys()
    for name, told in rows("A migration").items():
        known = wanted[name]
        assert known <= set(NAME.findall(told)), name
        first = told.split(". ")[0]
        assert set(NAME.findall(first)) == known, name


def test_events_of_cleanup_and_rollback() -> None:
    kinds = (Cleaned, Staying, Restored, Failure)
    wanted = {kind.__name__: {one.name for one in fields(kind)} - {"path"} for kind in kinds}
    found = rows("Cleanup and rollback")
    assert {name: set(NAME.findall(told)) for name, told in found.items()} == wanted


def test_what_only_commands_tell() -> None:
    told = {log.NOTE, log.ERROR, log.STOPPING, log.WAITING}
    for path in (SRC / "regrain" / "cli").glob("*.py"):
        told.update(re.findall(r'(?:\bevent=|"info", )"(\w+)"', path.read_text()))
    assert told == rows("Standard error").keys()


def test_the_history() -> None:
    kept = set(remembered())
    assert len(kept) > 20
    assert kept == rows("The history").keys()


def remembered() -> Iterator[str]:
    """The names under which the code adds lines to the history."""
    for path in SRC.rglob("*.py"):
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                function = node.func
                if isinstance(function, ast.Attribute) and function.attr == "remember":
                    yield from values(node.args[0], tree, path)
                elif isinstance(function, ast.Name) and function.id == "remember":
                    yield from values(node.args[1], tree, path)


def values(node: ast.expr, tree: ast.Module, path: Path) -> Iterator[str]:
    """What an expression may be: a text, a constant of the module, or what was assigned to it."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, str)
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from values(node.body, tree, path)
        yield from values(node.orelse, tree, path)
    else:
        assert isinstance(node, ast.Name), ast.dump(node)
        module = import_module(".".join(path.relative_to(SRC).with_suffix("").parts))
        if hasattr(module, node.id):
            yield getattr(module, node.id)
            return
        for other in ast.walk(tree):
            if isinstance(other, ast.Assign) and [ast.dump(t) for t in other.targets] == [
                ast.dump(ast.Name(node.id, ast.Store()))
            ]:
                yield from values(other.value, tree, path)
