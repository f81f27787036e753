"""Lets the n-th call of a function fail, and nothing else; says where in a run that was.

Functions of ``regrain.disk`` are wrapped where everybody finds them, as attributes of that
module. Functions of ``os`` are wrapped for calls that come from the program only.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from regrain import disk
from regrain.model.digest import is_package_hash
from tests.faults import tally

READS = ("open_file", "open_directory", "list_directory", "read_xattrs")
WRITES = (
    "link",
    "rename_noreplace",
    "rename_exchange",
    "rename_replace",
    "create",
    "make_directory",
    "write_all",
    "unlink",
)
SYNCS = ("fsync", "syncfs")
DISK = (*READS, *WRITES, *SYNCS)
"""The functions of ``regrain.disk`` that are one step of the system each."""

OS_READS = ("read", "pread", "fstat", "stat", "scandir", "listdir", "readlink", "listxattr", "dup")
OS_WRITES = ("write", "pwrite", "fchmod", "utime", "ftruncate", "mkdir", "rmdir", "unlink")
OS = (*OS_READS, *OS_WRITES)
"""Functions of ``os`` by which the program reads and writes."""

_POSITIONS = {
    **dict.fromkeys(("open_file", "open_directory", "create", "make_directory", "unlink"), 1),
    **dict.fromkeys(("link", "rename_noreplace", "rename_exchange", "rename_replace"), 3),
}
"""Which argument of a function of ``regrain.disk`` is the directory it is about."""

_STAGES = {
    "regrain.migrate.objects": "publish",
    "regrain.migrate.pool": "worker",
    "regrain.migrate.recover": "recover",
    "regrain.migrate.run": "commit",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a wrapped function.

    Attributes:
        function: Its name.
        number: It was the n-th, from 1.
        stage: begin, recover, worker, publish (a worker that names objects), commit or end.
        place: legacy, or the name at the store's top that it was about; empty elsewhere.
        caller: The function of the program that called.
    """

    function: str
    number: int
    stage: str
    place: str
    caller: str


@dataclass(slots=True)
class Faults:
    """What to break, and what was called.

    Attributes:
        store: The store, to tell places.
        function: Whose call fails; empty: none.
        number: Which call, from 1.
        error: With which errno.
        calls: Every call so far.
        fired: The call that failed.
    """

    store: Path
    function: str = ""
    number: int = 0
    error: int = 0
    calls: list[Call] = field(default_factory=list)
    fired: Call | None = None
    _counts: dict[str, int] = field(default_factory=dict)

    def called(self, function: str, fd: object, frame: FrameType | None) -> None:
        """Take note of a call that is about a descriptor, or let it fail."""
        number = self._counts[function] = self._counts.get(function, 0) + 1
        stage, caller = _stage(frame)
        call = Call(function, number, stage, self.place_of(fd), caller)
        self.calls.append(call)
        if (function, number) == (self.function, self.number):
            self.fired = call
            tally.count(tally.command_of_test(), errno.errorcode[self.error])
            raise OSError(self.error, os.strerror(self.error), b"injected")

    def place_of(self, fd: object) -> str:
        """Tell what at the store's top a descriptor leads to."""
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            return ""
        if not path.startswith(f"{self.store}/"):
            return ""
        top = path.removeprefix(f"{self.store}/").partition("/")[0]
        return "legacy" if is_package_hash(top) else top


def _stage(frame: FrameType | None) -> tuple[str, str]:
    """Tell the stage of a run and who called, with the caller of that one."""
    callers: list[str] = []
    stage, ended = "", False
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("regrain.") and not module.startswith("regrain.disk"):
            callers.append(f"{module.removeprefix('regrain.')}.{frame.f_code.co_name}")
            if module == "regrain.migrate.objects" and frame.f_code.co_name == "_copy":
                stage = stage or "worker"  # files that nobody links are staged, in a second step
            stage = stage or _STAGES.get(module, "")
            ended = ended or (
                frame.f_code.co_name == "__exit__" and module == "regrain.store.locks"
            )
        frame = frame.f_back
    return stage or ("end" if ended else "begin"), " < ".join(callers[:2])


@contextmanager
def injected(faults: Faults, *, system: bool = False) -> Iterator[Faults]:
    """Wrap the functions of ``regrain.disk``, or those of ``os``, while this lasts."""
    module, names = (os, OS) if system else (disk, DISK)
    originals = {name: getattr(module, name) for name in names}
    for name, original in originals.items():
        setattr(module, name, _wrapped(name, original, faults, system=system))
    try:
        yield faults
    finally:
        for name, original in originals.items():
            setattr(module, name, original)


def _wrapped(
    name: str, original: Callable[..., Any], faults: Faults, *, system: bool
) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        frame = sys._getframe(1)
        if not system or frame.f_globals.get("__name__", "").startswith("regrain."):
            faults.called(name, descriptor_of(name, arguments, named, system=system), frame)
        return original(*arguments, **named)

    return call


def descriptor_of(
    name: str, arguments: tuple[Any, ...], named: dict[str, Any], *, system: bool
) -> object:
    """Return the descriptor that a call is about: of a rename or link, where it leads to."""
    if system:
        return next((v for k, v in named.items() if k.endswith("dir_fd")), arguments[0])
    at = _POSITIONS.get(name, 0)
    return arguments[at] if at < len(arguments) else None
