"""Doctor: a store's own directories, what else lies at its top, and what runs left behind."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from regrain import disk
from regrain.maintain.doctor_disk import count_tree
from regrain.maintain.doctor_findings import Finding, Weight, listed, several, some
from regrain.model import clock, layout
from regrain.model.digest import is_package_hash
from regrain.store.locks import dead_runs, is_running
from regrain.store.root import legacy_names
from regrain.store.scratch import left_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regrain.store.root import StoreRoot

_CHECK = "places"
_INIT = "Run 'regrain init' again: it completes what is missing."


def check_places(fd: int) -> Iterator[Finding]:
    """Look at the store's top: owners, modes, what is missing, what does not belong there."""
    top = os.fstat(fd)
    if stat.S_IMODE(top.st_mode) & 0o022:
        yield Finding(
            _CHECK,
            Weight.WARNING,
            f"others than its owner may write to the store's top (mode {top.st_mode & 0o7777:04o})",
            "Take that away with chmod go-w.",
        )
    visible = stat.S_IMODE(top.st_mode) & 0o755 | 0o700
    sound = True
    for name in layout.DIRECTORIES:
        expected = 0o700 if name in layout.PRIVATE_DIRECTORIES else visible
        flaw = flaw_of(fd, name, expected)
        if flaw is not None:
            sound = False
            yield flaw
    for name in (layout.RUN_LOCK, layout.STORE_LOCK, layout.STORE_FILE):
        flaw = flaw_of(fd, name, 0o600, is_directory=False)
        if flaw is not None:
            sound = False
            yield flaw
    legacy, foreign = legacy_names(fd)
    if sound:
        yield Finding(_CHECK, Weight.OK, "all own directories are there, with the right mode")
    yield Finding(
        _CHECK,
        Weight.OK,
        several(len(legacy), "package has a legacy directory", "packages have a legacy directory"),
        figures={"legacy_packages": len(legacy)},
    )
    if foreign:
        yield Finding(
            _CHECK,
            Weight.ADVICE,
            several(len(foreign), "name", "names") + f" at the top of no package: {some(foreign)}",
            "Move them elsewhere if they do not belong there; regrain leaves them alone.",
            {"foreign": listed(foreign)},
        )


def flaw_of(at: int, name: str, expected: int, *, is_directory: bool = True) -> Finding | None:
    """Say what is wrong with one of the store's own names; None if nothing is.

    Args:
        at: The open directory it is in, whose owner it should have.
        name: It.
        expected: The mode it should allow; files may allow reading besides.
        is_directory: Else a regular file.
    """
    try:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return Finding(_CHECK, Weight.ERROR, f"'{name}' is missing", _INIT, {"path": name})
    mode, owner = stat.S_IMODE(status.st_mode), os.fstat(at)
    is_kind = stat.S_ISDIR if is_directory else stat.S_ISREG
    private = is_directory and expected == 0o700
    figures: dict[str, object] = {"path": name, "mode": f"{mode:04o}"}
    if not is_kind(status.st_mode):
        what = "a directory" if is_directory else "a regular file"
        advice = "Move it away and run 'regrain init' again."
        return Finding(_CHECK, Weight.ERROR, f"'{name}' is not {what}", advice, figures)
    if (status.st_uid, status.st_gid) != (owner.st_uid, owner.st_gid):
        return Finding(
            _CHECK,
            Weight.WARNING,
            f"'{name}' belongs to {status.st_uid}:{status.st_gid}, not to the store's owner",
            f"Give it back with chown {owner.st_uid}:{owner.st_gid}.",
            figures,
        )
    wrong = mode & (0o077 if private else 0o022) or expected & ~mode
    if wrong:
        return Finding(
            _CHECK,
            Weight.WARNING,
            f"the mode of '{name}' is {mode:04o}",
            f"Set it with chmod {expected:04o}.",
            figures,
        )
    return None


def check_runs(root: StoreRoot) -> Iterator[Finding]:
    """Say who holds the run lock."""
    if os.geteuid() not in (0, root.owner.uid):
        yield Finding(
            "locks",
            Weight.ADVICE,
            "who holds the run lock cannot be seen by this user",
            "Ask as the store's owner, or as root.",
        )
        return
    try:
        os.stat(layout.RUN_LOCK, dir_fd=root.fd, follow_symlinks=False)
    except OSError:
        return  # reported among the places; asking would make it
    holder = is_running(root)
    yield Finding(
        "locks",
        Weight.OK,
        f"a run is under way: {holder}" if holder else "no run is under way",
        figures={"running": holder},
    )


def check_leftovers(root: StoreRoot) -> Iterator[Finding]:
    """List what dead runs left in ``temp/``, and what waits in ``trash/`` and ``quarantine/``."""
    dead = dead_runs(root)
    with disk.Closing(disk.open_directory(layout.TEMP, root.fd)) as temp:
        found = disk.list_directory(temp)
    stray = sorted(os.fsdecode(name) for name, kind in found if kind is not disk.DIRECTORY)
    if dead:
        yield Finding(
            "leftovers",
            Weight.ADVICE,
            several(len(dead), "directory in temp/ is", "directories in temp/ are")
            + " left over by a run that was killed",
            "Run 'regrain migrate': it cleans up first.",
            {"dead_runs": listed(dead)},
        )
    if stray:
        yield Finding(
            "leftovers",
            Weight.ADVICE,
            f"{several(len(stray), 'file lies', 'files lie')} in temp/ itself: {some(stray)}",
            "Run 'regrain migrate': it removes what nobody works with.",
            {"stray_files": listed(stray)},
        )
    beside = os.path.dirname(os.path.realpath(root.path))
    rehearsals = left_over(beside)
    if rehearsals:
        yield Finding(
            "leftovers",
            Weight.ADVICE,
            several(len(rehearsals), "directory", "directories")
            + f" in '{beside}' left over by a rehearsal that was killed: {some(rehearsals)}",
            "Run 'regrain rehearse', which removes them first, or remove them by hand.",
            {"rehearsals": listed(rehearsals)},
        )
    yield from _waiting(
        root,
        layout.TRASH,
        "The next command that changes the store finishes what was begun with them, "
        "'regrain migrate' too.",
    )
    yield from _waiting(
        root,
        layout.QUARANTINE,
        "Look at them; once they are of no use, 'regrain doctor --empty-quarantine' lists and "
        "with --execute removes them. Nothing else ever does.",
    )


def _waiting(root: StoreRoot, place: str, advice: str) -> Iterator[Finding]:
    names: list[str] = []
    taken, oldest = 0, clock.now()
    with disk.Closing(disk.open_directory(place, root.fd)) as fd:
        for raw, kind in disk.list_directory(fd):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                status = os.stat(raw, dir_fd=fd, follow_symlinks=False)
                taken += disk.allocated(status)
                oldest = min(oldest, int(status.st_ctime))
                names.append(os.fsdecode(raw))
                if kind is disk.DIRECTORY:
                    with disk.Closing(disk.open_directory(raw, fd)) as inside:
                        taken += count_tree(inside)[1]
    if not names:
        yield Finding("leftovers", Weight.OK, f"{place}/ is empty", figures={"count": 0})
        return
    names.sort()
    yield Finding(
        "leftovers",
        Weight.ADVICE,
        f"{several(len(names), 'thing lies', 'things lie')} in {place}/, {taken:,} bytes, "
        f"the oldest since {clock.day_name(oldest)}: {some(names)}",
        advice,
        {"place": place, "count": len(names), "bytes": taken, "oldest": oldest}
        | {"names": listed(names)},
    )


def strange_packages(root: StoreRoot) -> Iterator[Finding]:
    """Find names in ``packages/`` that are no package hashes, or no directories."""
    strange = sorted(
        os.fsdecode(name)
        for name, kind in disk.list_directory(root.packages)
        if kind is not disk.DIRECTORY or not is_package_hash(os.fsdecode(name))
    )
    if strange:
        yield Finding(
            "packages",
            Weight.WARNING,
            several(len(strange), "name", "names")
            + f" in packages/ of no package: {some(strange)}",
            "Move them out of the store.",
            {"names": listed(strange)},
        )
