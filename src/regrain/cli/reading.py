"""Verbs that read: list, show, files, cat, checkout. None of them opens the ledger."""

from __future__ import annotations

import os
import sys

import click

from regrain.cli import output
from regrain.cli.completing import package_hashes
from regrain.cli.context import Context, dry_run_option, json_option, pass_context
from regrain.errors import CorruptionError, UnknownPackageError
from regrain.model import file_list
from regrain.model.entry import Entry, Kind
from regrain.store import dual
from regrain.store.holding import Holding, holding

PIECE = 1 << 20


@click.command("list")
@json_option
@pass_context
def list_packages(context: Context, *, as_json: bool) -> int:
    """List all packages.

    Exit code 4 if one of them is damaged; the others are listed all the same.

    Example: regrain --store /opt/pm/store list
    """
    rows, damaged = [], 0
    for package in context.store.packages():
        try:
            rows.append((package.hash, package.name, package.version, package.layout.value))
        except UnknownPackageError:
            continue  # removed meanwhile
        except CorruptionError as error:
            damaged += 1
            rows.append((package.hash, "", "", "damaged"))
            output.tell_error(error)
    if as_json:
        heads = ("package_hash", "name", "version", "layout")
        output.document("summary", packages=[dict(zip(heads, row, strict=True)) for row in rows])
    else:
        output.table(("HASH", "NAME", "VERSION", "LAYOUT"), rows)
    return CorruptionError.exit_code if damaged else 0


@click.command()
@click.argument("package", metavar="HASH", shell_complete=package_hashes)
@json_option
@pass_context
def show(context: Context, package: str, *, as_json: bool) -> None:
    """Show what a package is.

    HASH may be the first 8 digits or more. In the legacy layout every file is read to
    compute the tree hash. What removing it would free is told from the file lists of all packages.

    Example: regrain --store /opt/pm/store show 1f2e3d4c
    """
    store = context.store
    found = store.get_package(store.find(package))
    counts = dict.fromkeys(Kind, 0)
    size = 0
    entries = list(found.files())
    for entry in entries:
        counts[entry.kind] += 1
        size += entry.size if entry.kind is Kind.FILE else 0
    layouts = [place.value for place in dual.layouts_of(store.root, found.hash)]
    fields = {
        "package_hash": found.hash,
        "name": found.name,
        "version": found.version,
        "layout": found.layout.value,
        "layouts": layouts,
        "tree_hash": file_list.tree_hash(entries),
        "files": counts[Kind.FILE],
        "directories": counts[Kind.DIRECTORY],
        "symlinks": counts[Kind.SYMLINK],
        "bytes": size,
    }
    held = holding(store.root, found.hash)
    if as_json:
        exclusive, shared, legacy = held or (None, None, None)
        sizes = {
            "exclusive_bytes": exclusive,
            "shared_bytes": shared,
            "legacy_exclusive_bytes": legacy,
        }
        output.document("package", **fields, **sizes)
        return
    output.pairs(
        [
            ("package", found.hash),
            ("name", f"{found.name} {found.version}".strip() or "(its manifest does not say)"),
            ("read from", found.layout.value),
            ("tree hash", str(fields["tree_hash"])),
            (
                "holds",
                (
                    f"{output.count(counts[Kind.FILE], 'file')}, "
                    f"{output.count(counts[Kind.DIRECTORY], 'directory')}, "
                    f"{output.count(counts[Kind.SYMLINK], 'symbolic link')}"
                ),
            ),
            ("bytes", f"{size:,} ({output.size(size)})"),
            *_held(held, is_double=len(layouts) > 1),
        ]
    )


def _held(held: Holding | None, *, is_double: bool) -> list[tuple[str, str]]:
    if held is None:
        return [("exclusive", "not known: a file list cannot be read; run 'regrain verify'")]
    alone = f"{output.size(held.legacy)} of that by its legacy directory alone: cleanup frees it"
    return [
        (
            "exclusive",
            f"{output.size(held.exclusive)} on disk: what remove would free, and then gc",
        ),
        *([("legacy", alone)] if is_double else []),
        ("shared", f"{output.size(held.shared)} on disk, which would stay"),
    ]


@click.command()
@click.argument("package", metavar="HASH", shell_complete=package_hashes)
@json_option
@pass_context
def files(context: Context, package: str, *, as_json: bool) -> None:
    """List everything in a package: mode, owner, size, path.

    Example: regrain --store /opt/pm/store files 1f2e3d4c
    """
    store = context.store
    found = store.get_package(store.find(package))
    entries = found.files()
    if as_json:
        import msgspec

        raw = [msgspec.Raw(file_list.entry_line(entry)) for entry in entries]
        output.document("package", package_hash=found.hash, layout=found.layout.value, entries=raw)
        return
    for entry in entries:
        click.echo(
            f"{_LETTERS[entry.kind]}{entry.mode:04o} {entry.uid}:{entry.gid} "
            f"{entry.size:>12} {output.shown(entry.path) or '.'}{_target(entry)}"
        )


_LETTERS = {Kind.FILE: "-", Kind.DIRECTORY: "d", Kind.SYMLINK: "l"}


def _target(entry: Entry) -> str:
    return f" -> {output.shown(entry.target)}" if entry.kind is Kind.SYMLINK else ""


@click.command()
@click.argument("package", metavar="HASH", shell_complete=package_hashes)
@click.argument("path", type=click.Path(path_type=bytes))
@pass_context
def cat(context: Context, package: str, path: bytes) -> None:
    """Write the bytes of a file in a package to standard output.

    Symbolic links are followed inside the package. The bytes are checked on the way: if
    they are not the ones that were stored, the exit code is 4.

    Example: regrain --store /opt/pm/store cat 1f2e3d4c manifest.toml
    """
    store = context.store
    with store.get_package(store.find(package)).open(path) as stream:
        while piece := stream.read(PIECE):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@click.command()
@click.argument("package", metavar="HASH", shell_complete=package_hashes)
@click.argument("destination", metavar="DEST", type=click.Path(path_type=bytes))
@click.option(
    "--mode",
    type=click.Choice(["exact", "shared"]),
    default="exact",
    show_default=True,
    help="exact: every bit of metadata; nothing is linked into the store. "
    "shared: hard links of the store's own files where possible.",
)
@click.option(
    "--subtree",
    metavar="PATH",
    type=click.Path(path_type=bytes),
    help="Only the directory, or the file, at this path in the package.",
)
@dry_run_option
@json_option
@pass_context
def checkout(
    context: Context,
    package: str,
    destination: bytes,
    mode: str,
    subtree: bytes | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Recreate a package's tree in DEST, a directory that is absent or empty.

    With --mode shared, a file without attributes whose mode and owner the store's own file
    has becomes a hard link of that, with its time. Treat it as read-only: what is written to
    it reaches the store and all who share it. Other files are copied, and so is everything on
    another file system, or of a package that was not migrated yet.

    With --subtree, the content of the directory at PATH becomes that of DEST; a file appears
    in DEST under its own name. Symbolic links on the way are not followed.

    \b
    Examples:
      regrain --store /opt/pm/store checkout 1f2e3d4c /tmp/jq
      regrain --store /opt/pm/store checkout 1f2e3d4c /srv/jq --mode shared --subtree opt/pm/live
    """  # noqa: D301 -- click reads the backspace: keep these lines as they are
    store = context.store
    found = store.get_package(store.find(package))
    place = os.fsdecode(destination)
    count = found.checkout(place, mode=mode, subtree=subtree, dry_run=dry_run)
    if as_json:
        output.document(
            "summary",
            package_hash=found.hash,
            destination=output.shown(destination),
            mode=mode,
            subtree=None if subtree is None else output.shown(subtree),
            layout=found.layout.value,
            entries=count,
            dry_run=dry_run,
        )
    else:
        verb = "would check out" if dry_run else "checked out"
        click.echo(
            f"{verb} {output.count(count, 'entry')} of {found.hash} to {output.shown(destination)}"
        )
