"""What a migration will meet and cost, before anything is written."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.store.root import Owner, legacy_names
from regrain.store.scan import Usage, measure, processes_using

if TYPE_CHECKING:
    from collections.abc import Callable

FIXED_BYTES = 4 << 20
FIXED_INODES = 280
"""256 shards of ``objects/``, the other directories, ledger and locks."""

INODES_A_PACKAGE = 5
"""A directory, the file list, copies of the manifest and of bills of materials."""


@dataclass(slots=True)
class Plan:
    """Counts are exact; extra bytes and inodes are the most that can be needed.

    Attributes:
        packages: Legacy packages.
        files: Regular files, every path counted.
        directories: Including the packages' roots.
        symlinks: Symbolic links.
        inodes: Each once a package.
        size: ``st_size`` of all files.
        allocated: Bytes on disk, each inode once.
        extra_bytes: Most bytes the migration needs beside the legacy tree.
        extra_inodes: Likewise inodes.
        free_bytes: What the file system has left for this user.
        free_inodes: Likewise.
        copied_files: Files that cannot be linked; their bytes will exist twice.
        linked_outside: Files that have names outside their package.
        problems: (package, why) of those that will fail.
        processes: (process id, path) with legacy files open.
        foreign: Names at the top that are no packages; they are left alone.
        blockers: Why a migration cannot start.
        in_place: Whether each legacy directory goes as soon as its package is verified: then
            the copies of one package at a time exist beside it.
    """

    packages: int = 0
    files: int = 0
    directories: int = 0
    symlinks: int = 0
    inodes: int = 0
    size: int = 0
    allocated: int = 0
    extra_bytes: int = FIXED_BYTES
    extra_inodes: int = FIXED_INODES
    free_bytes: int = 0
    free_inodes: int = 0
    copied_files: int = 0
    copied_bytes: int = 0
    linked_outside: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    processes: list[tuple[int, str]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    blockers: list[str] = field(default_factory=list)
    in_place: bool = False


def make_plan(  # noqa: PLR0913 -- all that is asked of it, each by its keyword
    path: str,
    store: int,
    *,
    ingest: str,
    can_reflink: bool,
    link_outside: bool,
    in_place: bool,
    on_package: Callable[[Usage], None],
) -> Plan:
    """Measure every legacy package below the open directory ``store``; write nothing.

    Args:
        path: Where that directory is, to find the processes that use it.
        store: It, open.
        ingest: How bytes are to be brought in.
        can_reflink: Whether the file system shares extents.
        link_outside: Whether inodes with names elsewhere may be linked.
        in_place: Whether legacy directories go, one by one, while it lasts.
        on_package: Told each package that was measured.
    """
    plan = Plan(in_place=in_place)
    copies: list[tuple[int, int]] = []
    status = os.fstat(store)
    owner = Owner(status.st_uid, status.st_gid)
    names, plan.foreign = legacy_names(store)
    for name in names:
        usage = measure(store, name, owner, closely=True)
        copies.append(
            _add(plan, usage, ingest=ingest, can_reflink=can_reflink, link_outside=link_outside)
        )
        on_package(usage)
    together = max if in_place else sum
    plan.extra_bytes += together([0, *(size for size, _ in copies)])
    plan.extra_inodes += together([0, *(inodes for _, inodes in copies)])
    plan.processes = sorted(processes_using(path, frozenset(names)))
    space = os.fstatvfs(store)
    plan.free_bytes = space.f_bavail * space.f_frsize
    plan.free_inodes = space.f_favail
    _find_blockers(plan, owner, has_inode_limit=space.f_files > 0)
    return plan


def _add(
    plan: Plan, usage: Usage, *, ingest: str, can_reflink: bool, link_outside: bool
) -> tuple[int, int]:
    """Count a package; return bytes and inodes that its objects may take."""
    plan.packages += 1
    plan.files += usage.files
    plan.directories += usage.directories
    plan.symlinks += usage.symlinks
    plan.inodes += usage.inodes
    plan.size += usage.size
    plan.allocated += usage.allocated
    plan.linked_outside += usage.linked_outside
    plan.extra_bytes += usage.list_bytes + usage.ledger_bytes
    plan.extra_inodes += INODES_A_PACKAGE
    if usage.problem:
        plan.problems.append((usage.package_hash, usage.problem))
    if ingest == "copy" or (ingest != "reflink" and not can_reflink):
        plan.copied_files += usage.files if ingest == "copy" else usage.copied_files
        plan.copied_bytes += usage.allocated if ingest == "copy" else usage.copied_bytes
    if ingest == "copy":
        return usage.allocated, usage.files
    if ingest == "reflink" or (ingest == "auto" and can_reflink):
        return 0, usage.files
    outside = 0 if link_outside else usage.linked_outside
    size = usage.copied_bytes + (usage.allocated if outside else 0)
    return size, usage.copied_files + outside


def _find_blockers(plan: Plan, owner: Owner, *, has_inode_limit: bool) -> None:
    if plan.extra_bytes > plan.free_bytes:
        plan.blockers.append(
            f"not enough space: up to {plan.extra_bytes} bytes are needed, "
            f"{plan.free_bytes} are free"
        )
    if has_inode_limit and plan.extra_inodes > plan.free_inodes:
        plan.blockers.append(
            f"not enough inodes: up to {plan.extra_inodes} are needed, {plan.free_inodes} are free"
        )
    if os.geteuid() not in (0, owner.uid):
        plan.blockers.append(f"the store belongs to user {owner.uid}: run as that user, or as root")
