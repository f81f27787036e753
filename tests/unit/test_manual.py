"""Man pages: they say what the commands say, of every command, and tools that read them agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from regrain import errors
from regrain.cli import main, manual

DAY = "2026-11-22"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return manual.pages(DAY)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, pages: dict[str, str]) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("man")
    for name, text in pages.items():
        (place / name).write_text(text, encoding="ascii")
    return {name: place / name for name in pages}


def commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    yield f"{'-'.join(words)}.1", command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            below = command.get_command(context, word)
            assert below is not None
            yield from commands(below, (*words, word))


def plain(page: str) -> str:
    """What a page says, without its requests and fonts, on one line."""
    text = re.sub(r"^\.[A-Za-z].*", "", page, flags=re.MULTILINE)
    text = re.sub(r"\\f[BIR]", "", text).replace("\\-", "-").replace("\\(aq", "'")
    for sign, escaped in {'"': "\\(dq", "~": "\\(ti", "`": "\\(ga", "^": "\\(ha"}.items():
        text = text.replace(escaped, sign)
    return " ".join(text.replace("\\&", "").replace("\\e", "\\").split())


def test_every_command_has_a_page(pages: dict[str, str]) -> None:
    names = [name for name, _ in commands(main, ("regrain",))]
    assert {"regrain.1", "regrain-migrate.1", "regrain-backup-create.1"} < set(names)
    assert sorted(pages) == sorted(names)


def test_a_page_says_all_that_help_says(pages: dict[str, str]) -> None:
    missing = []
    for name, command in commands(main, ("regrain",)):
        context = click.Context(command, info_name=name)
        text = plain(pages[name])
        records = [each.get_help_record(context) for each in command.get_params(context)]
        said = [part for record in records if record and record[1] for part in record]
        paragraphs = (command.help or "").replace("\b", "").split("\n\n")
        for paragraph in paragraphs:
            words = " ".join(paragraph.split())
            said += [words.removeprefix("Example: ").removeprefix("Examples: ")]
        wanted = (" ".join(each.replace("…", "...").split()) for each in said)
        missing += [(name, each) for each in wanted if each not in text]
    assert missing == []


def test_every_exit_code_is_listed() -> None:
    def below(cls: type[errors.RegrainError]) -> Iterator[type[errors.RegrainError]]:
        yield cls
        for each in cls.__subclasses__():
            yield from below(each)

    listed = {int(code) for codes in manual.EXIT_CODES for code in codes.split(",")}
    assert {each.exit_code for each in below(errors.RegrainError)} < listed
    assert {0, 6, 7, 130, 143} < listed


def test_text_cannot_become_a_request() -> None:
    @click.command(help="Look.\n\n.so /etc/passwd and 'quoted', a \\fBbackslash\\fR…")
    def odd() -> None:
        pass

    prose, examples = manual._split(odd.help or "")
    assert examples == []
    assert prose[-1] == ("\\&.so /etc/passwd and \\(aqquoted\\(aq, a \\efBbackslash\\efR...")


def test_the_day_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: dict[str, str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795305600")
    assert manual.write(str(tmp_path / "a" / "man1")) == len(pages)
    first = {path.name: path.read_text() for path in (tmp_path / "a" / "man1").iterdir()}
    assert first == pages


def test_man_shows_every_page_without_a_warning(written: dict[str, Path]) -> None:
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("needs man and groff")
    for path in written.values():
        shown = subprocess.run(
            ["man", "--warnings", "-E", "ascii", "-l", path],  # where least can be shown
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stderr == "", path
        assert shown.stdout.count("\n") > 20, path


def test_mandoc_finds_nothing(written: dict[str, Path]) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc")
    found = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *written.values()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
