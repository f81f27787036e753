"""What ``plan`` found, in words and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.migrating import section

if TYPE_CHECKING:
    from regrain.migrate.plan import Plan


def document(found: Plan, command: str, predicted: dict[str, object]) -> None:
    """Print the plan for programs."""
    output.document(
        "summary",
        packages=found.packages,
        files=found.files,
        directories=found.directories,
        symlinks=found.symlinks,
        inodes=found.inodes,
        bytes=found.size,
        allocated_bytes=found.allocated,
        extra_bytes_max=found.extra_bytes,
        extra_inodes_max=found.extra_inodes,
        free_bytes=found.free_bytes,
        free_inodes=found.free_inodes,
        copied_files=found.copied_files,
        copied_bytes=found.copied_bytes,
        linked_outside=found.linked_outside,
        problems=[{"package_hash": name, "reason": why} for name, why in found.problems],
        processes=[{"pid": pid, "path": output.shown(path)} for pid, path in found.processes],
        foreign=[output.shown(name) for name in found.foreign],
        blockers=found.blockers,
        in_place=found.in_place,
        **predicted,
        next_command=command,
    )


def show(found: Plan, command: str, predicted: list[str]) -> None:
    """Print the plan for people."""
    output.pairs(
        [
            ("packages", f"{found.packages:,}"),
            (
                "files",
                (
                    f"{found.files:,} in {output.count(found.directories, 'directory')}, "
                    f"{output.count(found.symlinks, 'symbolic link')}"
                ),
            ),
            ("bytes", f"{output.size(found.size)}; {output.size(found.allocated)} on disk"),
            ("inodes", f"{found.inodes:,}"),
            (
                "needs at most",
                (
                    f"{output.size(found.extra_bytes)} and "
                    f"{output.count(found.extra_inodes, 'inode')} more "
                    "while both layouts exist"
                ),
            ),
            (
                "free",
                f"{output.size(found.free_bytes)} and {output.count(found.free_inodes, 'inode')}",
            ),
            (
                "copied",
                (
                    f"{output.count(found.copied_files, 'file')} "
                    f"({output.size(found.copied_bytes)}); "
                    "all others share their bytes with the legacy tree"
                ),
            ),
            ("linked from outside", f"{output.count(found.linked_outside, 'file')}"),
        ]
    )
    click.echo("\n" + "\n".join(predicted))
    if found.in_place:
        click.echo(
            "\nkeep_old_packages = false: each legacy directory is deleted as soon as its package"
            "\nis verified. What was in it is then in the store alone, and in a backup."
        )
    click.echo(
        "\nWhere objects are hard links of legacy files, both share one inode: a write in place"
        "\nor a bad sector hits both, and only a backup protects."
    )
    section("these packages will fail", [f"{name}: {why}" for name, why in found.problems])
    section(
        "processes with legacy files open",
        [f"{pid}: {output.shown(path)}" for pid, path in found.processes],
    )
    section("not packages, left alone", [output.shown(name) for name in found.foreign])
    section("in the way", found.blockers)
    click.echo(f"\nNext: {command}")
