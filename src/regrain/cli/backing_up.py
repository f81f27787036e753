"""The verbs of ``backup``: create, check, restore, mark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.context import (
    Context,
    Stop,
    dry_run_option,
    executor_option,
    json_option,
    pass_context,
)
from regrain.cli.progress import AuditProgress, MigrationProgress
from regrain.cli.telling import next_command
from regrain.errors import UsageError

if TYPE_CHECKING:
    from regrain.app.backups import Backup, Checked, Restored
    from regrain.model.events import PackageCompleted

EXIT_FAILED_SOME = 3
EXIT_CORRUPT = 4
_NAMES_SHOWN_MAX = 20


class _CopyProgress(MigrationProgress):
    """Shows how far copying is."""

    def _completed(self, event: PackageCompleted) -> None:
        if self.as_json:
            output.document(
                "package",
                status="copied",
                package_hash=event.package_hash,
                files=event.files,
                bytes=event.size,
            )
        elif self._verbose:
            words = f"copied {event.package_hash}: {output.count(event.files, 'file')}"
            self._tell(event, words)


def _listening(progress: MigrationProgress | AuditProgress) -> Stop:
    stop = Stop()
    stop.listen(progress.stopping)
    return stop


@click.group()
def backup() -> None:
    """Make backups, check them, bring back from them what was lost.

    A backup is a store of its own: 'list', 'verify', 'checkout' and all the rest work on it.
    Best on another disk; nothing of it is shared with the store. At a URL (s3://, gs://, az://,
    file://) it is what 'push' leaves there, with a key that says of which store it is.

    Example: regrain --store /opt/pm/store backup create /mnt/backup/store
    """


@backup.command()
@click.argument("dest", type=click.Path())
@executor_option
@dry_run_option
@json_option
@pass_context
def create(
    context: Context, dest: str, *, executor: str | None, dry_run: bool, as_json: bool
) -> int:
    """Copy into DEST all that it lacks of the store, and read it back from its disk.

    DEST is a directory, absent, empty or a backup of this store; or a URL, where 'backup check'
    reads back: only then does it count. What it has is not copied again, and
    nothing in it is deleted: packages that were removed from the store stay there. What
    'backup check' found damaged is copied anew. Packages that only have a legacy directory
    are brought in from it, that directory is only read.

    Exit code 3: some packages could not be copied, or stay damaged in DEST.

    Example: regrain --store /opt/pm/store backup create /mnt/backup/store
    """
    from regrain.app import backing_up

    root = context.store.root
    if dry_run:
        _show_foreseen(backing_up.foresee_backup(root, dest), as_json=as_json)
        return 0
    with _CopyProgress(as_json=as_json, verbose=context.verbosity > 0) as progress:
        stop = _listening(progress)
        done = backing_up.create_backup(
            root,
            context.settings,
            dest,
            on_event=progress,
            stopping=stop,
            executor=executor,
        )
    command = next_command(context)
    if as_json:
        output.document(
            "summary",
            path=done.path,
            packages=done.packages,
            legacy_packages=done.legacy,
            present_packages=done.present,
            objects=done.objects,
            bytes=done.size,
            failed=done.failed,
            stopped=done.stopped,
            next_command=command,
        )
    else:
        click.echo(
            f"{output.count(done.packages, 'package')} copied, {done.present:,} there before; "
            f"{output.count(done.objects, 'object')}, {output.size(done.size)}"
            + (f"; {len(done.failed):,} failed" if done.failed else "")
            + (" (stopped)" if done.stopped else "")
        )
        click.echo(f"\nNext: {command}")
    if done.stopped:
        return stop.exit_code
    return EXIT_FAILED_SOME if done.failed else 0


def _show_foreseen(found: Backup, *, as_json: bool) -> None:
    if as_json:
        output.document(
            "summary",
            dry_run=True,
            path=found.path,
            packages=found.packages,
            legacy_packages=found.legacy,
            present_packages=found.present,
            objects=found.objects,
            bytes=found.size,
            allocated_bytes=found.allocated,
            inodes=found.inodes,
            failed=found.failed,
        )
        return
    click.echo(
        f"would copy {output.count(found.packages, 'package')} "
        f"({found.legacy:,} from legacy directories), {found.present:,} are there; "
        f"at the most {output.size(found.allocated)}, {output.count(found.inodes, 'inode')}"
    )
    for name, why in found.failed.items():
        click.echo(f"cannot be copied: package {name}: {output.shown(why)}")


@backup.command()
@click.argument("dest", type=click.Path())
@json_option
@pass_context
def check(context: Context, dest: str, *, as_json: bool) -> int:
    """Read every byte of the backup DEST, and compare it with the store's packages.

    Where a store is named (--store, or the configuration), the packages that DEST lacks are
    listed, exit code 3. Damage: exit code 4; the next 'backup create' heals it. From a URL every
    object is fetched and hashed.

    Example: regrain --store /opt/pm/store backup check /mnt/backup/store
    """
    from regrain.app import backing_up

    try:
        root = context.store.root
    except UsageError:  # none was named: the backup alone is looked at
        root = None
    with AuditProgress(as_json=as_json) as progress:
        stop = _listening(progress)
        found = backing_up.check_backup(
            root, context.settings, dest, on_result=progress, stopping=stop
        )
    damaged = found.verdict.is_damaged
    if as_json:
        _check_document(found, dest)
    else:
        _show_check(found)
    if found.verdict.audit.stopped:
        return stop.exit_code
    return EXIT_CORRUPT if damaged else EXIT_FAILED_SOME if found.absent else 0


def _check_document(found: Checked, dest: str) -> None:
    audit = found.verdict.audit
    output.document(
        "summary",
        path=dest,
        store=found.store or None,
        packages=audit.packages,
        objects=audit.carriers,
        bytes_hashed=audit.bytes_hashed,
        damages=[
            {
                "package_hash": one.package_hash or None,
                "object": one.object or None,
                "path": output.shown(one.path),
                "reason": one.reason,
            }
            for one in audit.damages
        ],
        ledger_problem=found.verdict.ledger_problem or None,
        damaged=found.verdict.is_damaged,
        absent_packages=found.absent,
        stopped=audit.stopped,
    )


def _show_check(found: Checked) -> None:
    audit = found.verdict.audit
    click.echo(
        f"{output.count(audit.packages, 'package')}, "
        f"{output.count(audit.carriers, 'object')}, {output.size(audit.bytes_hashed)} read"
    )
    for one in audit.damages:
        where = f"package {one.package_hash}: '{output.shown(one.path)}': " * bool(one.package_hash)
        click.echo(f"damaged: {where}{one.object}: {one.reason}")
    if found.verdict.ledger_problem:
        click.echo(f"its ledger: {found.verdict.ledger_problem}")
    elif found.verdict.is_damaged and not audit.damages:
        click.echo("its ledger and its disk disagree: 'regrain --store DEST verify --level deep'")
    if found.store:
        _listed(f"packages of '{found.store}' that are not in it", found.absent)
        if not found.absent:
            click.echo(f"it covers every package of '{found.store}'")


def _listed(title: str, names: list[str]) -> None:
    if names:
        click.echo(f"{title}: {len(names):,}")
    for name in names[:_NAMES_SHOWN_MAX]:
        click.echo(f"  {name}")
    if len(names) > _NAMES_SHOWN_MAX:
        click.echo(f"  and {len(names) - _NAMES_SHOWN_MAX:,} more (--json lists all)")


@backup.command()
@click.argument("dest", type=click.Path())
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also packages that the store's ledger does not know, such as those that were removed.",
)
@dry_run_option
@json_option
@pass_context
def restore(context: Context, dest: str, *, everything: bool, dry_run: bool, as_json: bool) -> int:
    """Bring back from the backup DEST what the store lost.

    Where the store is absent or empty it is made anew, all packages at the file level; 'regrain
    rollback' then makes legacy directories of them. Where it is there, damage is healed, what
    was damaged goes to quarantine, and packages that its ledger knows and that are nowhere in
    it come back.

    Exit code 3: some packages could not be copied; 4: damage that could not be healed.

    Example: regrain --store /opt/pm/store backup restore /mnt/backup/store
    """
    from regrain.app.restoring import restore_backup

    with _CopyProgress(as_json=as_json, verbose=context.verbosity > 0) as progress:
        stop = _listening(progress)
        done = restore_backup(
            context.path,
            context.settings,
            dest,
            everything=everything,
            dry_run=dry_run,
            on_event=progress,
            stopping=stop,
        )
    command = "" if dry_run and done.created else next_command(context)
    if as_json:
        output.document(
            "summary",
            dry_run=dry_run,
            created=done.created,
            packages=done.copied,
            objects=done.objects,
            bytes=done.size,
            healed=done.healed,
            lost=done.lost,
            left_packages=done.left,
            failed=done.failed,
            stopped=done.stopped,
            next_command=command or None,
        )
    else:
        _show_restored(done, dry_run=dry_run)
        if command:
            click.echo(f"\nNext: {command}")
    if done.stopped:
        return stop.exit_code
    return EXIT_CORRUPT if done.lost else EXIT_FAILED_SOME if done.failed else 0


def _show_restored(done: Restored, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if done.created:
        click.echo(f"the store {'would be' if dry_run else 'was'} made anew, at the file level")
    click.echo(
        f"{output.count(done.copied, 'package')} {would}brought back, "
        f"{output.count(done.objects, 'object')}, {output.size(done.size)}; "
        f"{output.count(done.healed, 'damaged thing')} {would}healed"
        + (f"; {len(done.failed):,} failed" if done.failed else "")
        + (" (stopped)" if done.stopped else "")
    )
    for words in done.lost:
        click.echo(f"not healed: {output.shown(words)}")
    _listed("in the backup only, left there (--all brings them)", done.left)


@backup.command()
@click.argument("note")
@dry_run_option
@json_option
@pass_context
def mark(context: Context, note: str, *, dry_run: bool, as_json: bool) -> int:
    """Say that a backup was made otherwise; 'regrain cutover' takes the word for 24 h.

    Example: regrain --store /opt/pm/store backup mark "tape 17, 22 November"
    """
    from regrain.app.backing_up import mark_backup

    mark_backup(context.store.root, note, dry_run=dry_run)
    command = next_command(context)
    if as_json:
        output.document("summary", note=note, dry_run=dry_run, next_command=command)
        return 0
    click.echo("would be marked" if dry_run else "marked; good for 24 h")
    click.echo(f"\nNext: {command}")
    return 0
