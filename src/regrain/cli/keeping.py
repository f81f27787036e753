"""Verbs of a store in use: add, remove, exclude, owners, gc."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.completing import package_hashes
from regrain.cli.context import Context, dry_run_option, json_option, pass_context
from regrain.errors import (
    FinishedWithFailuresError,
    NoSpaceError,
    PackageError,
    RegrainError,
    UsageError,
)

if TYPE_CHECKING:
    from regrain.app.keeping import Foreseen
    from regrain.migrate.add import Added

_GRACE = "24h"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

execute_option = click.option("--execute", is_flag=True, help="Do it; without, say what would be.")


def duration(text: str) -> float:
    """Return the seconds that ``24h``, ``90m``, ``2d`` or plain ``3600`` mean."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text)
    if match is None:
        raise UsageError(f"'{text}' is no duration", advice="Write 90s, 15m, 24h, 7d or 2w.")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def byte_count(text: str) -> int:
    """Return the bytes that ``10G``, ``500MiB`` or plain ``4096`` mean; units are binary."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?", text.lower())
    if match is None:
        raise UsageError(f"'{text}' is no size", advice="Write 500M, 10G or a number of bytes.")
    try:
        return int(float(match[1]) * _BYTES[match[2]])
    except OverflowError as error:
        raise UsageError("a size beyond all numbers", advice="Give a smaller one.") from error


def check_only_one(*, execute: bool, dry_run: bool) -> None:
    """Refuse both at once."""
    if execute and dry_run:
        raise UsageError(
            "--execute and --dry-run contradict each other", advice="Give one of them."
        )


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(readable=False)
)
@click.option("--hash", "package_hash", metavar="HEX", help="The package's name, for one PATH.")
@dry_run_option
@json_option
@pass_context
def add(
    context: Context,
    paths: tuple[str, ...],
    package_hash: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Add packages: .sp archives (tar, plain or zstd) or directories.

    An archive is named by the BLAKE3 of its bytes, a directory by its tree hash. One that is
    there already, equal in everything, is left alone. Exit code 1: none was added. 3: some.
    A package never changes: another tree of the same name is refused.

    With --dry-run everything is read, and nothing unpacked or compared.

    Example: regrain --store /opt/pm/store add jq-1.7-1.arm64.sp
    """
    from regrain.app.keeping import add_package, foresee_package
    from regrain.model.digest import PackageHash

    if package_hash is not None:
        PackageHash(package_hash)
        if len(paths) > 1:
            raise UsageError("--hash names one package", advice="Give one PATH with it.")
    root, settings = context.store.root, context.settings
    failures: list[RegrainError] = []
    for path in paths:
        try:
            if dry_run:
                found = foresee_package(root, settings, path, package_hash)
                _show_intent(path, found, as_json=as_json)
            else:
                added = add_package(root, settings, path, package_hash)
                _show_added(path, added, as_json=as_json)
        except (PackageError, NoSpaceError) as error:  # the next one may fare better
            failures.append(error)
            if len(paths) > 1:  # else it is what the command ends with
                _show_failed(path, error, as_json=as_json)
    if failures:
        return output.exit_error(_verdict(failures, len(paths)), as_json=as_json)
    return 0


def _verdict(failures: list[RegrainError], tried: int) -> RegrainError:
    """Return what a command ends with that could not add everything."""
    if tried == 1:
        return failures[0]
    if len(failures) == tried:
        return RegrainError(f"none of {tried} packages was added", advice=_REASONS)
    what = f"{len(failures)} of {tried} packages were not added"
    return FinishedWithFailuresError(what, advice=_REASONS)


_REASONS = "The reason stands above for each; mend it and add them again."


def _show_failed(path: str, error: RegrainError, *, as_json: bool) -> None:
    if as_json:
        output.failed_package(error, path=output.shown(path), place=error.path)
    output.tell_error(error)


def _show_intent(path: str, found: Foreseen, *, as_json: bool) -> None:
    if as_json:
        output.document(
            "package",
            path=output.shown(path),
            kind=found.kind,
            package_hash=found.package_hash,
            is_taken=found.is_taken,
            dry_run=True,
        )
    else:
        would = "compare" if found.is_taken else "add"
        place = " with the package" if found.is_taken else " as"
        source = f"the {found.kind} '{output.shown(path)}'"
        click.echo(f"would {would} {source}{place} {found.package_hash}")


def _show_added(path: str, added: Added, *, as_json: bool) -> None:
    if as_json:
        output.document(
            "package",
            path=output.shown(path),
            package_hash=added.package_hash,
            already_present=added.already_present,
            status="already_present" if added.already_present else "added",
            layout=added.layout,
            files=added.files,
            size=added.size,
            new_objects=added.new_objects,
            added_bytes=added.added_bytes,
        )
    elif added.already_present:
        click.echo(f"{added.package_hash} already_present")
    else:
        click.echo(
            f"{added.package_hash} added: {output.count(added.files, 'file')}, "
            f"{output.size(added.size)}; "
            f"{output.count(added.new_objects, 'new object')}, {output.size(added.added_bytes)} "
            "on disk"
        )


@click.command()
@click.argument("package", metavar="HASH", shell_complete=package_hashes)
@execute_option
@dry_run_option
@json_option
@pass_context
def remove(context: Context, package: str, *, execute: bool, dry_run: bool, as_json: bool) -> int:
    """Remove a package from the store; without --execute, say what that would free.

    Objects that only this package holds go with the next `gc`, after its grace. Of a package
    that vanished from the disk, give the whole hash: what is known of it is forgotten.

    Example: regrain --store /opt/pm/store remove 1f3a9c2e --execute
    """
    from regrain.app.keeping import plan_removal, remove_package

    check_only_one(execute=execute, dry_run=dry_run)
    root = context.store.root
    removal = remove_package(root, package) if execute else plan_removal(root, package)
    if as_json:
        output.document(
            "summary",
            package_hash=removal.package_hash,
            executed=execute,
            layouts=[where.value for where in removal.layouts],
            directory_bytes=removal.directory_bytes,
            objects=removal.objects,
            object_bytes=removal.object_bytes,
            finished=removal.was_begun,
        )
        return 0
    if removal.was_begun:
        click.echo(f"finished the removal of {removal.package_hash}, which was begun before")
        click.echo("Next: regrain gc")
        return 0
    places = " and ".join(where.value.replace("_", " ") for where in removal.layouts)
    places = places or "in neither layout any more"
    click.echo(
        f"{'removed' if execute else 'would remove'} {removal.package_hash} ({places}): "
        f"{output.size(removal.directory_bytes)} at once, "
        f"{output.count(removal.objects, 'object')} of "
        f"{output.size(removal.object_bytes)} with gc"
    )
    click.echo(
        "Next: regrain gc" if execute else f"Next: regrain remove {removal.package_hash} --execute"
    )
    return 0


@click.command()
@click.argument("package", metavar="HASH", shell_complete=package_hashes)
@click.option("--undo", is_flag=True, help="Take it back in.")
@dry_run_option
@json_option
@pass_context
def exclude(context: Context, package: str, *, undo: bool, dry_run: bool, as_json: bool) -> int:
    """Set a package aside: it stays in its legacy directory, read from there in every phase.

    A migration leaves it alone, cleanup keeps it, cutover does not wait for it.

    Example: regrain --store /opt/pm/store exclude 1f3a9c2e
    """
    from regrain.app.keeping import exclude as run
    from regrain.store.dual import find_hash

    root = context.store.root
    name = find_hash(root, package)
    changed = run(root, name, undo=undo, dry_run=dry_run)
    if as_json:
        output.document(
            "summary", package_hash=name, excluded=not undo, changed=changed, dry_run=dry_run
        )
        return 0
    state = "taken back in" if undo else "set aside"
    if not changed:
        click.echo(f"{name} was {'not set aside' if undo else 'set aside already'}")
    else:
        click.echo(f"{name} {'would be ' if dry_run else ''}{state}")
    return 0


@click.command()
@click.argument("digest", metavar="OBJECT")
@json_option
@pass_context
def owners(context: Context, digest: str, *, as_json: bool) -> int:
    """List the packages that hold an object, which is named by 64 hexadecimal digits.

    Example: regrain --store /opt/pm/store owners 2d8f…
    """
    from regrain.app.keeping import owners as run

    found = run(context.store.root, digest)
    if as_json:
        output.document("owners", object=digest, owners=found)
        return 0
    for name in found:
        click.echo(name)
    if not found:
        output.note("no package holds it; gc will take it")
    return 0


@click.command()
@execute_option
@click.option(
    "--grace",
    metavar="TIME",
    default=_GRACE,
    show_default=True,
    help="How long an object must have been nobody's: 90s, 15m, 24h, 7d, 2w.",
)
@click.option(
    "--max-size",
    metavar="SIZE",
    help="Keep what nobody holds as long as all objects together take no more than this: "
    "500M, 10G, or a number of bytes.",
)
@dry_run_option
@json_option
@pass_context
def gc(
    context: Context,
    grace: str,
    max_size: str | None,
    *,
    execute: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Collect objects that no package holds; without --execute, say which.

    Only references decide. Writers pause for moments; readers do not.

    Example: regrain --store /opt/pm/store gc --execute
    """
    from regrain.app.keeping import collect, plan_collection

    check_only_one(execute=execute, dry_run=dry_run)
    root = context.store.root
    seconds = duration(grace)
    limit = None if max_size is None else byte_count(max_size)
    run = collect if execute else plan_collection
    found = run(root, grace=seconds, size_max=limit)
    if as_json:
        output.document(
            "summary",
            executed=execute,
            objects=found.objects,
            freed_bytes=found.allocated,
            waiting_objects=found.waiting,
            waiting_bytes=found.waiting_bytes,
        )
        return 0
    click.echo(
        f"{'collected' if execute else 'would collect'} {output.count(found.objects, 'object')}, "
        f"{output.size(found.allocated)}; {found.waiting:,} more are nobody's "
        f"({output.size(found.waiting_bytes)}) and stay for now"
    )
    if found.objects and not execute:
        options = "" if grace == _GRACE else f" --grace {grace}"
        options += "" if max_size is None else f" --max-size {max_size}"
        click.echo(f"Next: regrain gc --execute{options}")
    return 0
