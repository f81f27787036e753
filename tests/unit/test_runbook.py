"""The docs: every command they name is one that regrain understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from regrain.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
AT_A_PROMPT = re.compile(r"^\$ (?:[A-Z_]+=\S* )*regrain (.+)$", re.MULTILINE)
IN_A_LINE = re.compile(r"`(?:[A-Z_]+=\S* )*regrain ((?:[^`…]|\n(?!\n))+)`")
ENDS_OF_A_CALL = re.compile(r"(?:^|\s+)(?:#|>|<|\||&&|;)(?:\s.*|$)", re.DOTALL)


def calls(page: Path) -> list[str]:
    text = page.read_text()
    found = [*AT_A_PROMPT.findall(text), *IN_A_LINE.findall(text)]
    bare = (ENDS_OF_A_CALL.sub("", " ".join(each.split())) for each in found)
    return [each for each in bare if each]


def parse(words: list[str]) -> None:
    """Let click parse a call as it would, down to the last command; nothing is run."""
    command: click.Command = main
    context = main.make_context("regrain", words)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        below = command.get_command(context, rest[0])
        assert below is not None, f"no command '{rest[0]}'"
        command = below
        # "`regrain rollback`" may speak of a command without what it takes.
        context = command.make_context(
            rest[0], rest[1:], parent=context, resilient_parsing=len(rest) == 1
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_call_in_the_docs_is_understood(page: Path) -> None:
    wrong = []
    for call in calls(page):
        try:
            parse(shlex.split(call))
        except (click.ClickException, click.exceptions.Exit, AssertionError, ValueError) as error:
            wrong.append(f"regrain {call}: {error}")
    assert wrong == []


def test_the_docs_name_calls() -> None:
    assert len(calls(ROOT / "docs" / "operations.md")) > 40
