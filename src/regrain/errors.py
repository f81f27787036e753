"""The tree of errors; each class knows the exit code its command ends with.

```
RegrainError                   1   failed
├── UsageError                 2   arguments, configuration, unknown store format
│   ├── ConfigurationError     2   an unknown key, a bad value
│   ├── MalformedHashError     2   not a package hash or digest
│   └── UnknownFormatError     2   a store made by a newer or another program
├── UnknownPackageError        1   no package of that hash, or no such path in it
├── PackageError               1   this package cannot be brought in; others can
│   └── ArchiveError           1   not an archive, a broken one, or one that is refused
├── NoSpaceError               1   no bytes, inodes or quota left
├── HaltedError                1   storage failed; nothing more may be written in this run
│   └── LedgerLostError        1   the server that keeps the ledger went away, or does not answer
├── RemoteError                1   a service elsewhere refused, or did not answer
├── FinishedWithFailuresError  3   the work was done, some packages failed
├── CorruptionError            4   bytes, a file list or the ledger are not what they were
├── RefusedError               5   a gate or setting says no
├── NotAStoreError            10   no store there, or not initialised
└── LockedError               11   another run holds the store
```

A message says what happened, where, why, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


def shown(path: str | bytes) -> str:
    """Return ``path`` as printable text.

    Bytes that are not UTF-8, control characters, and marks that turn the direction of text or
    cannot be seen appear escaped.
    """
    return encodable(path).translate(_ESCAPED)


def encodable(path: str | bytes) -> str:
    """Return ``path`` as text that is Unicode; other bytes appear escaped."""
    if isinstance(path, bytes):
        return path.decode("utf-8", "backslashreplace")
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return path.encode("utf-8", "backslashreplace").decode()


_CONTROLS = (*range(32), *range(127, 160), 0x00AD)
_MARKS = (
    *(0x061C, 0x180E, 0xFEFF),
    *range(0x200B, 0x2010),  # of no width, left to right, right to left
    *range(0x2028, 0x202F),  # ends of lines and paragraphs, embedding, override
    *range(0x2060, 0x2070),  # of no width, isolation
    *range(0xFFF9, 0xFFFC),  # annotation
)
_ESCAPED = {code: f"\\x{code:02x}" for code in _CONTROLS} | {
    code: f"\\u{code:04x}" for code in _MARKS
}


class RegrainError(Exception):
    """Base of all errors of regrain.

    Args:
        what: What happened, in one clause.
        path: The file or directory concerned.
        package: The hash of the package concerned.
        why: The cause, where it is known.
        advice: What to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        path: str | bytes | None = None,
        package: str | None = None,
        why: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.path = None if path is None else shown(path)
        self.package = package
        self.why = why
        self.advice = advice

    def __str__(self) -> str:
        """Return the whole message on one line."""
        where = [f"package {self.package}"] if self.package else []
        where += [f"'{self.path}'"] if self.path else []
        text = ": ".join([self.what, *where, *([self.why] if self.why else [])])
        return shown(f"{text}. {self.advice}" if self.advice else text)

    def document(self) -> dict[str, object]:
        """Return what programs are told of it."""
        return {
            "error": self.what,
            "message": str(self),
            "path": self.path,
            "package": self.package,
            "reason": self.why,
            "advice": self.advice,
            "exit_code": self.exit_code,
        }

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the keyword fields when the error crosses a process."""
        return (type(self), (self.what,), self.__dict__)


class UsageError(RegrainError):
    """Arguments that make no sense."""

    exit_code = 2


class ConfigurationError(UsageError):
    """A configuration file or variable with an unknown key or a bad value."""


class MalformedHashError(UsageError):
    """Text that is neither a package hash nor a digest."""


class UnknownFormatError(UsageError):
    """A ``store.toml`` or file list of a format this version does not know."""


class UnknownPackageError(RegrainError):
    """No package of that hash, or no such path in the package."""


class PackageError(RegrainError):
    """One package cannot be brought in; the others are not concerned."""


class ArchiveError(PackageError):
    """What was given is no archive, a broken one, or one that asks for what is refused."""


class NoSpaceError(RegrainError):
    """The file system has no bytes, inodes or quota left."""


class HaltedError(RegrainError):
    """Storage failed while writing; this run must not write any more."""


class LedgerLostError(HaltedError):
    """The server that keeps the ledger went away, or does not answer."""


class RemoteError(RegrainError):
    """A service elsewhere refused, or did not answer."""


class FinishedWithFailuresError(RegrainError):
    """The command ran to its end, but some packages failed."""

    exit_code = 3


class CorruptionError(RegrainError):
    """Something stored is not what was stored."""

    exit_code = 4


class RefusedError(RegrainError):
    """A gate or a setting refuses the step."""

    exit_code = 5


class NotAStoreError(RegrainError):
    """There is no store at the path, or it was not initialised."""

    exit_code = 10


class LockedError(RegrainError):
    """Another process holds the lock."""

    exit_code = 11


def path_of(error: OSError, otherwise: str | bytes = b"") -> bytes:
    """Return the path that ``error`` names; a descriptor, which it may name instead, is none."""
    named = error.filename
    path = named if named and isinstance(named, str | bytes) else otherwise
    return path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path


def reason(error: OSError) -> str:
    """Return the operating system's words for ``error``, without Python's decoration."""
    return error.strerror or str(error)
