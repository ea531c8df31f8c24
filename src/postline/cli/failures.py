"""Exit codes of the command line, and how errors are told."""

from __future__ import annotations

import click

from postline.errors import ContractError, LogError, PostlineError, PublishTimeout, SettingsError, UsageError

__all__ = ["FAILED", "INTERRUPTED", "LOG", "NEGATIVE", "OK", "USAGE", "exit_code_of", "show_error", "show_warning"]

OK = 0
#: The answer is no: unbalanced, refused lines, lag above the limit.
NEGATIVE = 1
#: Wrong usage, settings, or an app that contradicts itself.
USAGE = 2
#: The log could not do what was asked, or doesn't have it.
LOG = 3
#: A service failed while it ran.
FAILED = 4
#: Ended by a signal before it was done.
INTERRUPTED = 130


def exit_code_of(error: PostlineError) -> int:
    """The exit code that an error ends the program with."""
    match error:
        case UsageError() | SettingsError() | ContractError():
            return USAGE
        case LogError() | PublishTimeout():
            return LOG
    return FAILED


def show_error(what: str, remedy: str = "") -> None:
    """What went wrong and what to do, on standard error."""
    _show("error", "red", what, remedy)


def show_warning(what: str, remedy: str = "") -> None:
    """What may be wrong and what to do, on standard error."""
    _show("warning", "yellow", what, remedy)


def _show(label: str, color: str, what: str, remedy: str) -> None:
    first, *rest = what.splitlines() or [""]
    click.echo(f"{click.style(label + ':', fg=color, bold=True)} {first}", err=True)
    for line in rest:
        click.echo(f"  {line}", err=True)
    if remedy:
        click.echo(f"  {click.style('fix:', bold=True)} {remedy}", err=True)
