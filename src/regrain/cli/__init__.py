"""The command line: parse, call, print, exit code. One file a group of verbs."""

from __future__ import annotations

import os
import resource
import sys
from importlib import import_module

import click

from regrain import __version__
from regrain.cli.context import Context
from regrain.cli.output import exit_error
from regrain.errors import RegrainError

EXIT_SIGINT = 130


VERBS = {
    "plan": "migrating:plan",
    "init": "migrating:init",
    "migrate": "migrating:migrate",
    "status": "migrating:status",
    "verify": "integrity:verify",
    "list": "reading:list_packages",
    "show": "reading:show",
    "files": "reading:files",
    "cat": "reading:cat",
    "checkout": "reading:checkout",
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
@click.option("--store", "path", metavar="PATH", help="The store's directory.")
@click.option("--config", metavar="FILE", help="The configuration; default /etc/regrain.toml.")
@click.option("-v", "--verbose", count=True, help="Say more; twice: tracebacks, too.")
@click.version_option(__version__, prog_name="regrain")
@click.pass_context
def main(context: click.Context, path: str | None, config: str | None, verbose: int) -> None:
    r"""Move a package manager's store, live, from one directory a package to one object a file.

    \b
    A first migration:
      regrain --store /opt/pm/store plan
      regrain --store /opt/pm/store init
      regrain --store /opt/pm/store migrate
      regrain --store /opt/pm/store verify
    """
    context.obj = Context(path, config, verbose)


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code. Errors become one sentence on stderr."""
    _allow_open_files()
    try:
        result = main.main(arguments, prog_name="regrain", standalone_mode=False)
        sys.stdout.flush()
    except RegrainError as error:
        if _verbosity(arguments) > 1:
            raise
        return exit_error(error, as_json="--json" in arguments)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("regrain: interrupted", err=True)
        return EXIT_SIGINT
    except BrokenPipeError:
        # Whoever read our output left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _verbosity(arguments: list[str]) -> int:
    return sum(
        argument.count("v") for argument in arguments if argument in ("-v", "-vv", "--verbose")
    )


def _allow_open_files() -> None:
    """Deep trees take a descriptor a level: allow as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
