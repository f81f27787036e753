"""Verbs of packages at a URL: push, pull, and the group ``remote``: list, verify, gc."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regrain.cli import output
from regrain.cli.completing import package_hashes
from regrain.cli.context import Context, Stop, dry_run_option, json_option, pass_context
from regrain.cli.keeping import check_only_one, duration, execute_option
from regrain.errors import (
    CorruptionError,
    FinishedWithFailuresError,
    RegrainError,
    UsageError,
)

if TYPE_CHECKING:
    from regrain.app.remote import Pulled
    from regrain.app.remote_care import Checked
    from regrain.remote.pushing import Pushed

_GRACE = "24h"
_TELL_EVERY = 500

all_option = click.option("--all", "all_packages", is_flag=True, help="All packages.")
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Requests at once.",
)
url_argument = click.argument("url", metavar="URL")
packages_argument = click.argument(
    "packages", metavar="[HASH]...", nargs=-1, shell_complete=package_hashes
)


def _words(packages: tuple[str, ...], *, all_packages: bool) -> tuple[str, ...] | None:
    if bool(packages) == all_packages:
        raise UsageError(
            "HASH and --all contradict each other" if packages else "no package was named",
            advice="Give hashes, or --all.",
        )
    return None if all_packages else packages


def _listening() -> Stop:
    stop = Stop()
    stop.listen(lambda: output.note("stopping after the requests in hand …"))
    return stop


class _Tally:
    """What became of the packages of a command, told as it goes."""

    def __init__(self, done: str, *, as_json: bool) -> None:
        self._done = done
        self._as_json = as_json
        self.failures: list[RegrainError] = []
        self.packages = self.present = self.objects = self.bytes = 0

    def failed(self, error: RegrainError) -> None:
        self.failures.append(error)
        if self._as_json:
            output.failed_package(error, path=error.path)
        output.tell_error(error)

    def succeeded(self, one: Pushed | Pulled, length: int) -> None:
        self.packages += 1
        self.present += one.already_present
        self.objects += one.objects
        self.bytes += length
        status = "already_present" if one.already_present else self._done
        if self._as_json:
            output.document(
                "package",
                package_hash=one.package_hash,
                status=status,
                objects=one.objects,
                transferred_bytes=length,
            )
        elif one.already_present:
            click.echo(f"{one.package_hash} already_present")
        else:
            click.echo(
                f"{one.package_hash} {status}: {output.count(one.objects, 'object')}, "
                f"{output.size(length)}"
            )

    def end(self, stop: Stop) -> int:
        """Tell the sum; return the exit code."""
        stopped = stop()
        if self._as_json:
            output.document(
                "summary",
                packages=self.packages,
                already_present=self.present,
                failed=len(self.failures),
                objects=self.objects,
                transferred_bytes=self.bytes,
                stopped=stopped,
            )
        else:
            click.echo(
                f"{output.count(self.packages - self.present, 'package')} {self._done}, "
                f"{self.present:,} were there, {len(self.failures):,} failed; "
                f"{output.count(self.objects, 'object')}, {output.size(self.bytes)}"
            )
        if stopped:
            output.note("stopped; the same command goes on from here")
            return stop.exit_code
        if self.failures:
            return self._end_with_failures(self.packages + len(self.failures))
        return 0

    def _end_with_failures(self, tried: int) -> int:
        if tried == 1:  # it was told already
            (error,) = self.failures
            if self._as_json:
                output.document("exit_error", **error.document())
            return error.exit_code
        is_damage = any(isinstance(error, CorruptionError) for error in self.failures)
        kind = CorruptionError if is_damage else FinishedWithFailuresError
        verdict = kind(
            f"{len(self.failures)} of {tried} packages were not {self._done}",
            advice="The reason stands above for each; mend it and run the command again.",
        )
        return output.exit_error(verdict, as_json=self._as_json)


@click.command()
@packages_argument
@url_argument
@all_option
@jobs_option
@click.option(
    "--again", is_flag=True, help="Send everything anew: this mends what is damaged there."
)
@dry_run_option
@json_option
@pass_context
def push(
    context: Context,
    packages: tuple[str, ...],
    url: str,
    *,
    all_packages: bool,
    jobs: int,
    again: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Send packages to object storage: s3://, gs://, az:// or file://.

    Each object goes there once, compressed, under the name of its content; the file list goes
    last, so that what is listed there is complete. A push that was cut short goes on where it
    was. Credentials and endpoint come from the environment (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL …).

    Exit code 3: some packages were not sent. 4: some are damaged.

    Example: regrain --store /opt/pm/store push --all s3://backups/pm
    """
    from regrain.app import remote as app

    words = _words(packages, all_packages=all_packages)
    root = context.store.root
    if dry_run:
        for name, is_listed in app.foresee_push(root, words, url):
            if as_json:
                output.document("package", package_hash=name, is_listed=is_listed, dry_run=True)
            else:
                click.echo(f"would {'compare' if is_listed else 'push'} {name}")
        return 0
    tally, stop = _Tally("pushed", as_json=as_json), _listening()
    for one in app.push(root, words, url, jobs=jobs, again=again, stopping=stop):
        if isinstance(one, RegrainError):
            tally.failed(one)
        else:
            tally.succeeded(one, one.sent_bytes)
    return tally.end(stop)


@click.command()
@packages_argument
@url_argument
@all_option
@jobs_option
@dry_run_option
@json_option
@pass_context
def pull(
    context: Context,
    packages: tuple[str, ...],
    url: str,
    *,
    all_packages: bool,
    jobs: int,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Fetch packages from object storage into the store.

    Only objects that the store lacks are fetched, and each is hashed before it counts. A package
    appears when it is complete and was compared with its file list, as with 'add'. One that is
    here already, the same in everything, is left alone; another of its name is refused.

    Exit code 3: some packages were not fetched. 4: some are damaged there; nothing of those
    appears.

    Example: regrain --store /opt/pm/store pull 1f3a9c2e s3://backups/pm
    """
    from regrain.app import remote as app

    words = _words(packages, all_packages=all_packages)
    root, settings = context.store.root, context.settings
    if dry_run:
        for would in app.foresee_pull(root, words, url):
            if as_json:
                output.document(
                    "package",
                    package_hash=would.package_hash,
                    is_taken=would.is_taken,
                    objects=would.objects,
                    bytes=would.size,
                    dry_run=True,
                )
            elif would.is_taken:
                click.echo(f"would compare {would.package_hash}")
            else:
                lacking = output.count(would.objects, "object")
                click.echo(
                    f"would pull {would.package_hash}: {lacking} of {output.size(would.size)}"
                )
        return 0
    tally, stop = _Tally("pulled", as_json=as_json), _listening()
    for one in app.pull(root, settings, words, url, jobs=jobs, stopping=stop):
        if isinstance(one, RegrainError):
            tally.failed(one)
        else:
            tally.succeeded(one, one.fetched_bytes)
    return tally.end(stop)


@click.group()
def remote() -> None:
    """Look after packages that were pushed to a URL; no store is needed for that.

    Example: regrain remote verify s3://backups/pm
    """


@remote.command("list")
@url_argument
@json_option
def list_there(url: str, *, as_json: bool) -> int:
    """List the packages at a URL.

    Example: regrain remote list s3://backups/pm
    """
    from regrain.app import remote_care as app

    names = app.list_packages(url)
    if as_json:
        output.document("summary", packages=[{"package_hash": name} for name in names])
        return 0
    for name in names:
        click.echo(name)
    return 0


@remote.command()
@url_argument
@packages_argument
@jobs_option
@json_option
def verify(url: str, packages: tuple[str, ...], *, jobs: int, as_json: bool) -> int:
    """Fetch and hash all that packages need at a URL; by default, of all packages.

    Exit code 4: something is damaged or missing there.

    Example: regrain remote verify s3://backups/pm
    """
    from regrain.app import remote_care as app

    def tell(found: Checked) -> None:
        if found.objects % _TELL_EVERY == 0:
            if as_json:
                output.document("status", objects=found.objects, damaged=len(found.damaged))
            else:
                output.note(f"{found.objects:,} objects read, {len(found.damaged):,} damaged")

    stop = _listening()
    found = app.verify(url, packages, jobs=jobs, stopping=stop, on_object=tell)
    damaged = sorted(found.damaged.items())
    for _, error in damaged:
        output.tell_error(error)
    if as_json:
        output.document(
            "summary",
            packages=found.packages,
            objects=found.objects,
            damaged=len(damaged),
            damages=[{"name": name, **error.document()} for name, error in damaged],
            stopped=found.stopped,
        )
    else:
        click.echo(
            f"{output.count(found.packages, 'package')}, {output.count(found.objects, 'object')} "
            f"read; {found_words(found)}"
        )
    if found.stopped:
        return stop.exit_code
    return CorruptionError.exit_code if found.damaged else 0


def found_words(found: Checked) -> str:
    """Return what to say of damage."""
    return f"{len(found.damaged):,} damaged" if found.damaged else "nothing is damaged"


@remote.command()
@url_argument
@execute_option
@click.option(
    "--grace",
    metavar="TIME",
    default=_GRACE,
    show_default=True,
    help="How long ago an object must have been put there: 90s, 15m, 24h, 7d, 2w.",
)
@dry_run_option
@json_option
def gc(url: str, grace: str, *, execute: bool, dry_run: bool, as_json: bool) -> int:
    """Delete objects at a URL that no package there needs; without --execute, say how many.

    Such are left by pushes that were cut short, and by file lists that were deleted. Refused (11)
    while a push is under way there.

    Example: regrain remote gc s3://backups/pm --execute
    """
    from regrain.app import remote_care as app

    check_only_one(execute=execute, dry_run=dry_run)
    stop = _listening()
    found = app.collect(url, execute=execute, grace=duration(grace), stopping=stop)
    if as_json:
        output.document(
            "summary",
            executed=execute,
            objects=found.objects,
            freed_bytes=found.size,
            waiting_objects=found.waiting,
            waiting_bytes=found.waiting_size,
            kept_objects=found.kept,
            stopped=found.stopped,
        )
    else:
        click.echo(
            f"{'collected' if execute else 'would collect'} "
            f"{output.count(found.objects, 'object')}, {output.size(found.size)}; "
            f"{found.waiting:,} more are nobody's ({output.size(found.waiting_size)}) and stay "
            f"for now; {found.kept:,} are needed"
        )
        if found.objects and not execute:
            more = "" if grace == _GRACE else f" --grace {grace}"
            click.echo(f"Next: regrain remote gc {url} --execute{more}")
    return stop.exit_code if found.stopped else 0
