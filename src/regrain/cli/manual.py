"""Man pages, written from the definitions of the commands: ``python -m regrain.cli.manual DIR``.

One page a command, ``regrain.1``, ``regrain-migrate.1``, ``regrain-backup-create.1``. What a page
says of a command is what ``--help`` says of it, so the two cannot differ.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from regrain import __version__
from regrain.cli import main
from regrain.model.clock import day_name, now

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERBATIM = "\b"
"""click's sign, alone on the first line of a paragraph whose lines are to stay as they are."""

EXIT_CODES = {
    "0": "Done.",
    "1": "Failed: an unknown package, a full or failed disk, no permission.",
    "2": "Usage, configuration, a malformed hash, an unknown store format.",
    "3": "Done, but some packages failed, or legacy directories changed or are kept.",
    "4": "Corruption: an object, a file list, the ledger.",
    "5": "Refused: a gate, a setting, the phase, a trigger, too little space.",
    "6, 7": "status --check: warning, critical.",
    "10": "No store there, or not initialised.",
    "11": "Another run holds the store.",
    "130, 143": "Ended by SIGINT, by SIGTERM.",
}

ENVIRONMENT = {
    "REGRAIN_LOG_FORMAT": "How stderr is written: auto, text or json.",
    "REGRAIN_CONFIG": "The configuration, where --config names none.",
    "REGRAIN_STORE__KEY, REGRAIN_MIGRATION__KEY": (
        "A setting, such as REGRAIN_STORE__PATH; it wins over the configuration."
    ),
    "NO_COLOR": "Set to anything: no colours.",
    "TMPDIR": "Where large compressed files are unpacked while they are read; default /tmp.",
}

FILES = {
    "/etc/regrain.toml": "The configuration, where nothing else names one.",
    "STORE/migration/logs/": "What every run did.",
    "STORE/migration/state.json": "Where the run that works, or the last one, stands.",
}


def pages(day: str) -> dict[str, str]:
    """Return every page, by its file's name.

    Args:
        day: What is printed at the foot, such as ``2026-11-22``.
    """
    contexts = list(_commands(click.Context(main, info_name="regrain")))
    return {f"{_name(each)}.1": _page(each, contexts, day) for each in contexts}


def _commands(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command, and of all below it."""
    yield context
    if isinstance(context.command, click.Group):
        for word in context.command.list_commands(context):
            command = context.command.get_command(context, word)
            if command is not None and not command.hidden:
                yield from _commands(click.Context(command, info_name=word, parent=context))


def _name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _page(context: click.Context, contexts: list[click.Context], day: str) -> str:
    """Write the page of one command."""
    is_top = context.parent is None
    prose, examples = _split(inspect.cleandoc(context.command.help or ""))
    name = _name(context)
    lines = [f'.TH "{_plain(name.upper())}" "1" "{day}" "regrain {__version__}" "regrain"']
    lines += [".SH NAME", f"{_plain(name)} \\- {_plain(context.command.get_short_help_str(200))}"]
    lines += [".SH SYNOPSIS", *_synopsis(context)]
    lines += [".SH DESCRIPTION", *prose]
    lines += _options(context)
    lines += _subcommands(context, contexts)
    if examples:
        lines += [".SH EXAMPLES", *examples]
    if is_top:
        lines += [".SH ENVIRONMENT", *_definitions(ENVIRONMENT), ".SH FILES", *_definitions(FILES)]
    lines += [".SH EXIT STATUS"]
    lines += _definitions(EXIT_CODES) if is_top else ["\\fBregrain\\fR(1) lists the exit codes."]
    lines += [".SH SEE ALSO", *_see_also(context)]
    return "\n".join(lines) + "\n"


def _split(text: str) -> tuple[list[str], list[str]]:
    """Return the description of a help text, and its examples, as lines of a page."""
    prose: list[str] = []
    examples: list[str] = []
    for paragraph in re.split(r"\n{2,}", text.partition("\f")[0].strip()):
        first, _, rest = paragraph.partition("\n")
        if first == VERBATIM:
            title, _, block = rest.partition("\n")
            examples += [*([] if title == "Examples:" else _text(title)), *_verbatim(block)]
        elif paragraph.startswith("Example: "):
            examples += _verbatim(" ".join(paragraph.removeprefix("Example: ").split()))
        else:
            prose += [*([".PP"] if prose else []), *_text(paragraph)]
    return prose, examples


def _verbatim(block: str) -> list[str]:
    lines = [_guarded(_plain(line.strip())) for line in block.splitlines()]
    return [".RS 4", ".nf", *lines, ".fi", ".RE"]


def _text(text: str) -> list[str]:
    """Write words as lines of a page; roff fills them anew."""
    lines = wrap(" ".join(text.split()), 72, break_on_hyphens=False, break_long_words=False)
    return [_guarded(_plain(line)) for line in lines]


def _synopsis(context: click.Context) -> list[str]:
    """Write how a command is called, with what stands before it."""
    pieces = context.command.collect_usage_pieces(context)
    parents: list[click.Context] = []
    above = context.parent
    while above is not None:
        parents.insert(0, above)
        above = above.parent
    words = [f"\\fB{_plain(each.info_name or '')}\\fR" for each in [*parents, context]]
    if parents:
        words.insert(1, "[\\fIOPTION\\fR ...]")
    return [" ".join([*words, *(f"\\fI{_plain(piece)}\\fR" for piece in pieces)])]


def _options(context: click.Context) -> list[str]:
    records = [
        record
        for parameter in context.command.get_params(context)
        if (record := parameter.get_help_record(context)) is not None and record[1]
    ]
    lines = [".SH OPTIONS"]
    for names, text in records:
        lines += [".TP", _marked(names), *_text(text)]
    return lines


def _marked(names: str) -> str:
    """Write options bold and what they take in italics, as ``-n, --limit N``."""
    words = []
    for word in names.split(" "):
        bare = word.rstrip(",")
        font = "B" if word.startswith("-") else "I"
        words.append(f"\\f{font}{_plain(bare)}\\fR{word[len(bare) :]}")
    return " ".join(words)


def _subcommands(context: click.Context, contexts: Iterable[click.Context]) -> list[str]:
    below = [each for each in contexts if each.parent is context]
    if not below:
        return []
    lines = [".SH COMMANDS"]
    for each in below:
        text = each.command.get_short_help_str(200)
        lines += [".TP", f"\\fB{_plain(_name(each))}\\fR(1)", *_text(text)]
    return lines


def _see_also(context: click.Context) -> list[str]:
    """Name the page above; the top page names all commands already."""
    if context.parent is None:
        return ["The pages named under COMMANDS."]
    return [f"\\fB{_plain(_name(context.parent))}\\fR(1)"]


def _definitions(table: dict[str, str]) -> list[str]:
    lines = []
    for term, text in table.items():
        lines += [".TP", f"\\fB{_plain(term)}\\fR", *_text(text)]
    return lines


_ROFF = {
    "\\": "\\e",
    "…": "...",  # of these two terminals without UTF-8 can make something
    "µ": "\\[mc]",
    "-": "\\-",  # else it may become a typographic hyphen, which no shell takes
    "'": "\\(aq",
    '"': "\\(dq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
}


def _plain(text: str) -> str:
    """Write text so that roff prints just that."""
    return "".join(
        _ROFF.get(sign, sign if sign.isascii() else f"\\[u{ord(sign):04X}]") for sign in text
    )


def _guarded(line: str) -> str:
    """Keep a line that begins like a request from being one."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


def write(directory: str) -> int:
    """Write all pages into a directory, which is made if it is absent; return how many.

    The day at their foot is ``SOURCE_DATE_EPOCH``'s where that is set: then the same pages come
    out every time.
    """
    day = day_name(int(os.environ.get("SOURCE_DATE_EPOCH") or now()))
    os.makedirs(directory, exist_ok=True)
    written = pages(day)
    for name, text in written.items():
        with open(os.path.join(directory, name), "w", encoding="ascii") as stream:
            stream.write(text)
    return len(written)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m regrain.cli.manual DIR")
    click.echo(f"{write(sys.argv[1])} pages in {sys.argv[1]}")
