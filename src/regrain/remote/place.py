"""A URL with keys below it: the only place that talks to a service.

Requests are repeated by the library, with growing pauses and an end. Whatever fails after that
is a ``RemoteError``; nothing that was begun counts before it is whole, so going on is always safe.
"""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from regrain import disk
from regrain.errors import (
    CorruptionError,
    HaltedError,
    NoSpaceError,
    RemoteError,
    UsageError,
    reason,
)
from regrain.remote.crew import within
from regrain.remote.failures import check_url, failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PIECE = 16 << 20
"""Larger frames are fetched in pieces, and sent in parts, of this many bytes."""

_RETRIES_MAX = 6
_RETRY_SECONDS_MAX = 60
_CONNECT_SECONDS = 5
_SILENCE_SECONDS = 30
_REQUEST_SECONDS = 600
_PAGE = 1000
_STREAM = 1 << 20
KEYS_MAX = 50_000_000
"""Who lists more has no end; what is listed may have to be held in memory."""


class Found(NamedTuple):
    """What a service says of a key.

    Attributes:
        key: It.
        size: Bytes.
        modified: When it was written last, in seconds, by the service's own clock.
    """

    key: str
    size: int
    modified: float


class Remote:
    """A place at a URL.

    Args:
        url: ``s3://``, ``gs://``, ``az://`` or ``file://``.
        makes: Whether a ``file://`` directory is made where there is none.
        cold: Read a ``file://`` place from its disk, not from memory.

    Attributes:
        url: It, without a slash at its end.

    Raises:
        UsageError: The URL makes no sense, or what talks to services is not installed.
        RemoteError: It cannot be used.
    """

    def __init__(self, url: str, *, makes: bool = False, cold: bool = False) -> None:
        self.url = check_url(url)
        self._is_cold = cold
        try:
            import obstore
            from obstore import exceptions
        except ImportError as error:
            raise UsageError(
                "what talks to object storage is not installed",
                why=str(error),
                advice="Install it: pip install 'regrain[remote]'.",
            ) from error
        self._library: Any = obstore
        self._absent = (FileNotFoundError, exceptions.NotFoundError)
        self._taken = (FileExistsError, exceptions.AlreadyExistsError, exceptions.PreconditionError)
        self._unable = (NotImplementedError, exceptions.NotSupportedError)
        self._errors = (exceptions.BaseError, OSError, ValueError, NotImplementedError)
        self._directory: disk.Held | None = None
        self._is_conditional = True
        self._store = self._open(makes=makes)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory of this machine."""
        return self._directory is not None

    def _open(self, *, makes: bool) -> Any:  # noqa: ANN401 -- one of the library's stores
        from obstore import store

        scheme = urlsplit(self.url).scheme
        try:
            if scheme == "file":
                return self._open_directory(unquote(urlsplit(self.url).path), makes=makes)
            return store.from_url(
                self.url,
                client_options={
                    "allow_http": _endpoint_is_plain(),
                    "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                    "read_timeout": timedelta(seconds=_SILENCE_SECONDS),
                    "timeout": timedelta(seconds=_REQUEST_SECONDS),
                },
                retry_config={
                    "max_retries": _RETRIES_MAX,
                    "retry_timeout": timedelta(seconds=_RETRY_SECONDS_MAX),
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=200),
                        "max_backoff": timedelta(seconds=5),
                        "base": 2,
                    },
                },
            )
        except self._errors as error:
            raise failure(self.url, "", "open the place", error) from error

    def _open_directory(self, path: str, *, makes: bool) -> Any:  # noqa: ANN401 -- as above
        from obstore.store import LocalStore

        if makes:
            os.makedirs(path, mode=0o755, exist_ok=True)
        self._directory = disk.Held(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        return LocalStore(prefix=path)

    def flush(self) -> None:
        """Make durable what was put so far; a service does so before it answers.

        Raises:
            HaltedError: The disk of a ``file://`` place refused.
        """
        if self._directory is not None:
            try:
                disk.syncfs(self._directory.fd)
            except OSError as error:
                raise HaltedError(
                    "cannot make durable what was written",
                    path=self.url,
                    why=reason(error),
                    advice="Check that disk, then run the command again.",
                ) from error

    # reading

    def head(self, key: str) -> Found | None:
        """Return what the service says of a key; None without it."""
        try:
            return _found(self._library.head(self._store, key))
        except self._absent as error:
            self._check_bucket(key, error)
            return None
        except self._errors as error:
            raise failure(self.url, key, "ask for it", error) from error

    def fetch(self, key: str, target: int, size_max: int) -> bool:
        """Write what lies under a key into an open file; False if nothing does.

        Raises:
            CorruptionError: It has more than ``size_max`` bytes, or another number of them than
                the service said.
            NoSpaceError: It does not fit where the open file is.
            RemoteError: The service refused, or did not answer.
        """
        found = self.head(key)
        if found is None:
            return False
        if found.size > size_max:
            raise damaged(self.url, key, f"it has {found.size} bytes, {size_max} at the most")
        if found.size > PIECE:
            _check_room(target, found.size)
        if self._is_cold:
            self._forget(key)
        for start in range(0, found.size, PIECE):
            if not self._range(key, start, min(start + PIECE, found.size), target):
                raise damaged(self.url, key, "it changed while it was fetched")
        return True

    def _forget(self, key: str) -> None:
        """Have the next read of a key come from the disk; where that is no use, do nothing."""
        if self._directory is None:
            return
        with contextlib.suppress(OSError):
            fd = os.open(key, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._directory.fd)
            with disk.Closing(fd):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _range(self, key: str, start: int, end: int, target: int) -> bool:
        """Write a range into an open file; False if it is not there, or of another length.

        It is taken as it comes and counted: a service that does not stop sending is left.
        """
        wanted = end - start
        try:
            options = {"range": (start, end)}
            for piece in self._library.get(self._store, key, options=options).stream(_STREAM):
                wanted -= len(piece)
                if wanted < 0:
                    return False
                disk.write_all(target, memoryview(piece))
        except self._absent:
            return False
        except self._errors as error:
            raise failure(self.url, key, "fetch it", error) from error
        return wanted == 0

    def listing(self, prefix: str, keys_max: int = KEYS_MAX) -> Iterator[Found]:
        """Yield all that lies below a prefix, in no order.

        Raises:
            RemoteError: The service refused, did not answer, or lists over ``keys_max`` keys.
        """
        count = 0
        try:
            pages = iter(self._library.list(self._store, prefix, chunk_size=_PAGE))
            while page := within(_REQUEST_SECONDS, lambda: next(pages, None)):
                count += len(page)
                if count > keys_max:
                    raise _endless(f"{self.url}/{prefix}", f"over {keys_max:,} keys were listed")
                for meta in page:
                    yield _found(meta)
        except TimeoutError as error:
            # The library asks on as long as pages come, be they empty.
            why = f"no key came within {_REQUEST_SECONDS} s"
            raise _endless(f"{self.url}/{prefix}", why) from error
        except self._absent as error:
            self._check_bucket(prefix, error)
        except self._errors as error:
            raise failure(self.url, prefix, "list it", error) from error

    def _check_bucket(self, key: str, error: Exception) -> None:
        """Tell a bucket that is not there from a key that is not."""
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise failure(self.url, key, "ask for it", error) from error

    # writing

    def put_new(self, key: str, content: int | bytes) -> bool:
        """Put an open file, or bytes, under a key that is free; False if it is taken.

        What is large goes in parts, which no service makes conditional: the key is looked for
        first. Whoever is faster in between has put the same, since the key names the content.
        """
        if self.head(key) is not None:
            return False
        if self._is_conditional and (isinstance(content, bytes) or _size(content) <= PIECE):
            try:
                self._put(key, content, mode="create")
                return True
            except self._taken:
                return False
            except self._unable:
                self._is_conditional = False
        self.put(key, content)
        return True

    def put(self, key: str, content: int | bytes) -> None:
        """Put an open file, or bytes, under a key, whatever is there."""
        self._put(key, content, mode="overwrite")

    def _put(self, key: str, content: int | bytes, *, mode: str) -> None:
        try:
            if isinstance(content, bytes):
                self._library.put(self._store, key, content, mode=mode)
                return
            with os.fdopen(os.dup(content), "rb") as opened:
                opened.seek(0)
                if _size(content) <= PIECE:
                    self._library.put(self._store, key, opened.read(), mode=mode)
                else:
                    self._library.put(
                        self._store, key, opened, mode=mode, chunk_size=PIECE, max_concurrency=2
                    )
        except (*self._taken, *self._unable) as error:
            if mode == "create":
                raise
            raise failure(self.url, key, "put it there", error) from error
        except self._errors as error:
            raise failure(self.url, key, "put it there", error) from error

    def delete(self, keys: Iterable[str]) -> None:
        """Delete keys; those that are gone are no failure."""
        for key in keys:
            try:
                with contextlib.suppress(*self._absent):
                    self._library.delete(self._store, key)
            except self._errors as error:
                raise failure(self.url, key, "delete it", error) from error


def _endless(path: str, why: str) -> RemoteError:
    return RemoteError(
        "the listing does not end",
        path=path,
        why=why,
        advice="See what that service does; it is not to be relied upon.",
    )


def _check_room(fd: int, size: int) -> None:
    space = os.fstatvfs(fd)
    free = space.f_bavail * space.f_frsize
    if space.f_blocks and size > free:
        raise NoSpaceError(
            "too little space for what is to be fetched",
            why=f"{size} bytes, {free} are free",
            advice="Free space, or set TMPDIR to where there is some, then run the command again.",
        )


def damaged(url: str, key: str, why: str) -> CorruptionError:
    """Return what to say of a key that does not hold what it should."""
    return CorruptionError(
        "what lies there is damaged",
        path=f"{url}/{key}",
        why=why,
        advice="'regrain push --again HASH URL' from a host that has the package mends it.",
    )


def _size(fd: int) -> int:
    return os.fstat(fd).st_size


def _found(meta: Any) -> Found:  # noqa: ANN401 -- a mapping of the library
    return Found(str(meta["path"]), int(meta["size"]), meta["last_modified"].timestamp())


def _endpoint_is_plain() -> bool:
    """Tell whether the environment names an endpoint without TLS, as one on this machine is."""
    return any(
        "ENDPOINT" in name and value.startswith("http://") for name, value in os.environ.items()
    )


__all__ = ["PIECE", "Found", "Remote", "RemoteError", "damaged"]
