"""The tree of errors: exit codes, one line each, and the way out of a worker process."""

from __future__ import annotations

import errno
import os
import pickle
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import regrain
from regrain import errors
from regrain.errors import MalformedHashError, RegrainError, path_of, shown
from regrain.model.digest import PackageHash

EXIT_CODES = {
    "RegrainError": 1,
    "UsageError": 2,
    "ConfigurationError": 2,
    "MalformedHashError": 2,
    "UnknownFormatError": 2,
    "UnknownPackageError": 1,
    "PackageError": 1,
    "ArchiveError": 1,
    "NoSpaceError": 1,
    "HaltedError": 1,
    "LedgerLostError": 1,
    "RemoteError": 1,
    "FinishedWithFailuresError": 3,
    "CorruptionError": 4,
    "RefusedError": 5,
    "NotAStoreError": 10,
    "LockedError": 11,
}
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
texts = st.text(max_size=20)


def all_errors(top: type[RegrainError] = RegrainError) -> Iterator[type[RegrainError]]:
    yield top
    for below in top.__subclasses__():
        yield from all_errors(below)


OURS = [kind for kind in all_errors() if kind.__module__ == errors.__name__]


def test_each_error_has_the_exit_code_of_the_contract() -> None:
    assert {kind.__name__: kind.exit_code for kind in OURS} == EXIT_CODES


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"(\w+Error) +(\d+)", errors.__doc__ or "")
    assert {name: int(code) for name, code in drawn} == EXIT_CODES


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_an_error_crosses_a_process_whole(kind: type[RegrainError]) -> None:
    error = kind(
        "cannot write",
        path=b"opt/\xff",
        package="ab" * 32,
        why="No space left on device",
        advice="Free some.",
    )
    error.__cause__ = OSError(errno.ENOSPC, "cause")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.exit_code == error.exit_code
    assert "No space left on device" in str(again)


def test_a_message_says_what_where_why_and_what_to_do() -> None:
    error = RegrainError("it broke", path="a/b", package="ab", why="rust", advice="Oil it.")
    assert str(error) == "it broke: package ab: 'a/b': rust. Oil it."
    assert str(RegrainError("it broke")) == "it broke"


@given(st.one_of(st.binary(max_size=20), texts))
def test_a_path_is_shown_in_printable_text(path: bytes | str) -> None:
    text = shown(path)
    assert not re.search(r"[\x00-\x1f\x7f]", text)
    text.encode()  # no lone surrogates
    assert "\n" not in str(RegrainError("x", path=path))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"caf\xe9", r"caf\xe9"),
        (b"a\nb", r"a\x0ab"),
        ("\x1b[31m", r"\x1b[31m"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("café", "café"),
        (b"\x7f", r"\x7f"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\u2066a\u2069\u200b\ufeff\xad", r"\u2066a\u2069\u200b\ufeff\xad"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_must_not_see_is_escaped(path: bytes | str, text: str) -> None:
    assert shown(path) == text


@pytest.mark.parametrize("path", ["\x9b31m", "\x85", b"\xc2\x9b31m"], ids=repr)
def test_control_characters_beyond_ascii_are_escaped_too(path: bytes | str) -> None:
    """U+009B alone begins a terminal's control sequence."""
    assert not CONTROL.search(shown(path))


@given(what=texts, why=texts, package=texts)
def test_a_message_is_one_line_whatever_it_was_made_of(what: str, why: str, package: str) -> None:
    """A manifest, a file list or a command line may hold anything, and is quoted in messages."""
    assert not CONTROL.search(str(RegrainError(what, why=why, package=package)))


def test_a_callers_text_does_not_reach_the_terminal_raw() -> None:
    with pytest.raises(MalformedHashError) as caught:
        PackageHash("ab\n\x1b[2J")
    assert not CONTROL.search(str(caught.value))


def test_the_systems_words() -> None:
    found = OSError(errno.EIO, os.strerror(errno.EIO), b"\xff")
    assert errors.reason(found) == "Input/output error"
    assert errors.reason(OSError("no number")) == "no number"


def test_public_names_are_there_and_no_others() -> None:
    assert all(getattr(regrain, name) for name in regrain.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = regrain.nothing


@pytest.mark.parametrize(
    ("named", "path"),
    [(b"a\xff", b"a\xff"), ("a", b"a"), (7, b"else"), (None, b"else"), ("", b"else")],
)
def test_an_error_of_an_open_file_names_no_path(named: object, path: bytes) -> None:
    """Python gives the number of the descriptor where others have a path."""
    error = OSError(errno.EIO, "broken", named)
    assert path_of(error, "else") == path
    assert str(RegrainError("no", path=path_of(error) or None))
