"""Column types that do not believe what they read.

SQLite keeps any value in any column, and a constraint can be switched off by whoever writes.
What a row says becomes a name in the store, a number in a sum, a word to act on; so each value
is checked on its way out, once, here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

import sqlalchemy as sa

from regrain.errors import CorruptionError
from regrain.model.digest import is_package_hash
from regrain.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

DIGEST_BYTES = 32
_SHOWN_MAX = 80


class _Checked(sa.TypeDecorator[Any]):
    """A type whose values are checked when they come out of the database."""

    impl: Any = sa.Text

    def process_result_value(self, value: object, dialect: Dialect) -> object:  # noqa: ARG002 -- SQLAlchemy's
        """Return what was read; NULL is for the schema to refuse."""
        return value if value is None else self.checked(value)

    def checked(self, value: object) -> object:
        """Return the value, or raise CorruptionError."""
        raise NotImplementedError


class _OrderedText(_Checked):
    """Text that is sorted by its bytes, whatever language a server speaks."""

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Return the database's own type."""
        is_server = dialect.name == "postgresql"
        return dialect.type_descriptor(sa.Text(collation="C" if is_server else None))


class HashText(_OrderedText):
    """A package's hash, which is also a name in the store."""

    cache_ok = True

    def checked(self, value: object) -> object:
        """Return the hash."""
        return package_name(value)


class StatusText(_OrderedText):
    """The state of a package."""

    cache_ok = True

    def checked(self, value: object) -> object:
        """Return the word."""
        return status_of(value).value


class PlainText(_OrderedText):
    """Any text."""

    cache_ok = True

    def checked(self, value: object) -> object:
        """Return the text."""
        return value if isinstance(value, str) else impossible("text", value)


class Whole(_Checked):
    """A number."""

    impl = sa.Integer
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Return the database's own type; in 2038 a time needs more than 32 bits."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.BigInteger())
        return super().load_dialect_impl(dialect)

    def checked(self, value: object) -> object:
        """Return the number."""
        return whole(value)


class BigWhole(Whole):
    """A number that may be large."""

    impl = sa.BigInteger
    cache_ok = True


class RawBytes(_Checked):
    """Any bytes."""

    impl = sa.LargeBinary
    cache_ok = True

    def checked(self, value: object) -> object:
        """Return the bytes."""
        return value if isinstance(value, bytes) else impossible("raw value", value)

    def result_processor(
        self,
        dialect: Dialect,
        coltype: object,  # noqa: ARG002 -- SQLAlchemy's
    ) -> Callable[[object], object]:
        """Leave out what the database's type does first: of a number it makes as many bytes."""
        return lambda value: self.process_result_value(value, dialect)


class RawDigest(RawBytes):
    """The raw bytes of an object's digest."""

    cache_ok = True

    def checked(self, value: object) -> object:
        """Return the digest."""
        return raw_digest(value)


def impossible(what: str, value: object) -> NoReturn:
    """Refuse what a row says."""
    raise CorruptionError(
        "the ledger has a row that nobody wrote so",
        why=f"{str(value)[:_SHOWN_MAX]!r} is no {what}",
        advice="Readers are not concerned. Run 'regrain doctor --rebuild-ledger'.",
    )


def is_package(value: object) -> TypeGuard[str]:
    """Tell whether a value that was read is the hash of a package."""
    return isinstance(value, str) and is_package_hash(value)


def package_name(value: object) -> str:
    """Return a package's hash that was read."""
    return value if is_package(value) else impossible("package hash", value)


def whole(value: object) -> int:
    """Return a number that was read."""
    return value if isinstance(value, int) else impossible("number", value)


def raw_digest(value: object) -> bytes:
    """Return a raw digest that was read."""
    if isinstance(value, bytes) and len(value) == DIGEST_BYTES:
        return value
    impossible("digest", value)


def status_of(value: object) -> Status:
    """Return the state that was read."""
    try:
        return Status(value)  # type: ignore[arg-type]
    except ValueError:
        impossible("status", value)
