"""The group of all commands: their names and one-line helps, and how their failures become exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from postline.cli.failures import FAILED, INTERRUPTED, OK, USAGE, colors, exit_code_of, show_error
from postline.errors import PostlineError

__all__ = ["main", "postline"]

#: Command: where it lives, and what the list of commands says of it. Nothing of it is imported for `--help`.
_COMMANDS = {
    "audit": ("postline.cli.audit:command", "Check that every record has its outcome."),
    "backup": ("postline.cli.backup:backup", "Copy the log's file while services use it."),
    "registry": ("postline.cli.registry:command", "Serve the log's schemas as a schema registry over HTTP."),
    "contracts": ("postline.cli.contracts:command", "Write contracts down, compare and check them."),
    "demo": ("postline.demo:command", "Run a small shop, kill its workers, and prove that nothing was lost."),
    "dlq": ("postline.cli.dlq:command", "List, group, show, redrive, edit and discard dead letters."),
    "explain": ("postline.cli.explain:command", "Explain what apps do with each message, at worst."),
    "doctor": ("postline.cli.doctor:command", "Examine the log's file: damage, sizes, disk, readers, members."),
    "health": ("postline.cli.health:command", "Say which subscriptions stand still, and why."),
    "init": ("postline.cli.init:command", "Write a small project that runs."),
    "lag": ("postline.cli.lag:command", "Show how far subscriptions are behind."),
    "migrate": ("postline.cli.migrate:command", "Move a whole log to another file or engine."),
    "publish": ("postline.cli.publish:command", "Publish JSON lines from standard input."),
    "request": ("postline.cli.asking:request", "Send a command or query and wait for its outcome."),
    "replay": ("postline.cli.replay:command", "Let handlers read records again, beside the live ones."),
    "restore": ("postline.cli.backup:restore", "Make a log of a backup, and say what is lost."),
    "run": ("postline.cli.run:command", "Run services until told to stop."),
    "scale": ("postline.cli.scale:command", "Say how many processes services should have."),
    "schedules": ("postline.cli.schedules:command", "List and cancel what waits for its time."),
    "send": ("postline.cli.asking:send", "Send a command, and print its request's id."),
    "serve": ("postline.cli.serve:command", "Take commands over HTTP."),
    "subscriptions": ("postline.cli.subscriptions:command", "List, pause, resume, reset and remove subscriptions."),
    "tail": ("postline.cli.tail:command", "Show the records of a topic, and follow it."),
    "tasks": ("postline.cli.tasks:command", "List queues; list, show and cancel the tasks in them."),
    "tickets": ("postline.cli.tickets:command", "List the outcomes of requests."),
    "topics": ("postline.cli.topics:command", "List, show, plan and make topics."),
    "vacuum": ("postline.cli.vacuum:command", "Give the file's free pages back to the disk."),
}

_EPILOG = """\b
Examples:
  postline init shop && cd shop && postline run app:app
  postline lag
  postline dlq list
  postline audit --url sqlite:///shop.db

\b
Exit codes: 0 done; 1 the answer is no (unbalanced, refused lines, lag above the limit); 2 wrong usage
or settings; 3 the log could not do it; 4 a service, or Postline itself,
failed; 130 interrupted.
"""


class _LazyGroup(click.Group):
    """Imports a command's module when the command is used, or its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in sorted(_COMMANDS.items())])


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"postline {version('postline')}")
    except PackageNotFoundError:
        click.echo("postline, from a checkout that is not installed")
    ctx.exit()


@click.group(cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
@click.pass_context
def postline(ctx: click.Context) -> None:
    """Durable, ordered, exactly-once messaging between services, on one log.

    The log is that of --url, of the variable POSTLINE_URL, or of postline.toml, in this order; else
    postline.db in the working directory.
    """
    ctx.color = colors()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code. Failures are told on standard error, with their remedy."""
    try:
        result = postline.main(args=arguments, prog_name="postline", standalone_mode=False)
        # Only numbers of our own commands are codes; --help and --version give 0.
        code = result if isinstance(result, int) else OK
        sys.stdout.flush()
        return code
    except PostlineError as error:
        show_error(error.message, error.remedy)
        return exit_code_of(error)
    except click.ClickException as error:
        ctx = getattr(error, "ctx", None)
        show_error(error.format_message(), f"See `{ctx.command_path if ctx else 'postline'} --help`.")
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_has_gone()
    except Exception as error:  # noqa: BLE001 - told with its traceback
        traceback.print_exception(error)
        show_error(f"{error!r} was not expected.", "If the traceback ends in your own code, mend it; else report it.")
        return FAILED


def _reader_has_gone() -> int:
    """Whoever reads us has seen enough, as `head` does; Python must not try to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK
