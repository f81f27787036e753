"""The command line: parse, call, print, exit code. One file a group of verbs."""

from __future__ import annotations

import re
import resource
import sys
import traceback
from importlib import import_module

import click

from regrain import __version__
from regrain.cli import log, streams
from regrain.cli.context import Context
from regrain.cli.output import exit_error
from regrain.errors import RegrainError, UsageError, path_of, reason

EXIT_SIGINT = 130


VERBS = {
    "plan": "migrating:plan",
    "init": "migrating:init",
    "migrate": "migrating:migrate",
    "pause": "steering:pause",
    "resume": "steering:resume",
    "set": "steering:set_",
    "status": "status:status",
    "verify": "integrity:verify",
    "list": "reading:list_packages",
    "show": "reading:show",
    "files": "reading:files",
    "cat": "reading:cat",
    "checkout": "reading:checkout",
    "add": "keeping:add",
    "remove": "keeping:remove",
    "exclude": "keeping:exclude",
    "owners": "keeping:owners",
    "gc": "keeping:gc",
    "repack": "repacking:repack",
    "cleanup": "cleaning:cleanup",
    "rollback": "undoing:rollback",
    "doctor": "caring:doctor",
    "cutover": "lifecycle:cutover",
    "why": "lifecycle:why",
    "backup": "backing_up:backup",
    "rehearse": "rehearsing:rehearse",
    "serve": "serving:serve",
    "report": "reporting:report",
    "push": "remote:push",
    "pull": "remote:pull",
    "remote": "remote:remote",
}


class _Verbs(click.Group):
    """Loads a verb's file when the verb is asked for: start-up counts."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name].partition(":")
        command = getattr(import_module(f"regrain.cli.{module}"), name)
        return command if isinstance(command, click.Command) else None


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--store",
    "path",
    metavar="PATH",
    type=click.Path(readable=False),
    help="The store's directory.",
)
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(readable=False),
    help="The configuration; default /etc/regrain.toml.",
)
@click.option("-v", "--verbose", count=True, help="Say more; twice: tracebacks, too.")
@click.option("-q", "--quiet", is_flag=True, help="On stderr, say only what went wrong.")
@click.option(
    "--log-format",
    type=click.Choice(log.FORMATS),
    envvar=log.VARIABLE,
    show_envvar=True,
    default="auto",
    help="How stderr is written; auto: text on a terminal, JSON elsewhere.",
)
@click.version_option(__version__, prog_name="regrain")
@click.pass_context
def main(
    context: click.Context,
    *,
    path: str | None,
    config: str | None,
    verbose: int,
    quiet: bool,
    log_format: str,
) -> None:
    """Move a package manager's store, live, from one directory a package to one object a file.

    \b
    A first migration:
      regrain --store /opt/pm/store plan
      regrain --store /opt/pm/store init
      regrain --store /opt/pm/store migrate
      regrain --store /opt/pm/store verify
    """  # noqa: D301 -- click reads the backspace: keep these lines as they are
    if verbose and quiet:
        raise UsageError("--verbose and --quiet contradict each other", advice="Give one of them.")
    log.use(log_format, quiet=quiet)
    context.obj = Context(path, config, verbose)


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code. Errors become one sentence on stderr."""
    try:
        streams.prepare()
        _allow_open_files()
        result = main.main(arguments, prog_name="regrain", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        log.note("regrain: interrupted", "error", log.ERROR, exit_code=EXIT_SIGINT)
        return EXIT_SIGINT
    except Exception as error:  # noqa: BLE001 -- the last place that can turn it into words
        return _report(error, arguments)
    return result if isinstance(result, int) else 0


def _report(error: Exception, arguments: list[str]) -> int:
    """Print an error as it was asked for; return its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    trace = "".join(traceback.format_exception(error)) if _verbosity(arguments) > 1 else ""
    known = _in_our_words(error)
    as_json = "--json" in arguments
    if isinstance(known, streams.OutputError):
        as_json = False
        streams.give_up_stdout()
    return exit_error(known, as_json=as_json, trace=trace)


def _in_our_words(error: Exception) -> RegrainError:
    """Return what to say of an error; if nobody thought of it, nothing is known to be damaged."""
    if isinstance(error, RegrainError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = "regrain" if context is None else context.command_path
        if misplaced := _misplaced(error, command):
            return misplaced
        what = error.format_message().rstrip(".")
        if isinstance(error, click.MissingParameter):  # its choices come on lines of their own
            what = " ".join(what.split())
        return UsageError(what[:1].lower() + what[1:], advice=f"See '{command} --help'.")
    if isinstance(error, OSError):
        return RegrainError(
            "the system refused",
            path=path_of(error) or None,
            why=reason(error),
            advice="Mend the cause and run the command again.",
        )
    return RegrainError(
        "an unforeseen error, which is a defect of regrain",
        why=f"{type(error).__name__}: {error}",
        advice="Run the command again with -vv before it for the details, and report them.",
    )


def _misplaced(error: click.ClickException, command: str) -> UsageError | None:
    """Return what to say of an option that all commands share, given after one of them."""
    if not isinstance(error, click.NoSuchOption):
        return None
    for option in main.params:
        if error.option_name in option.opts and isinstance(option, click.Option):
            value = "" if option.is_flag or option.count else " …"
            words = command.removeprefix("regrain").strip()
            return UsageError(
                f"'{error.option_name}' goes before the command",
                advice=f"Write 'regrain {error.option_name}{value} {words}'.",
            )
    return None


def _verbosity(arguments: list[str]) -> int:
    """Count the v's: there may be no context yet that knows."""
    short = (re.fullmatch("-(v+)", argument) for argument in arguments)
    return arguments.count("--verbose") + sum(len(match[1]) for match in short if match)


def _allow_open_files() -> None:
    """Deep trees take a descriptor a level: allow as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
