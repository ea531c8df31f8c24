"""Exit codes of the command line, and how errors are told."""

from __future__ import annotations

import os

import click

from postline.errors import (
    ContractError,
    LogError,
    PostlineError,
    PublishTimeout,
    SettingsError,
    UnknownRecord,
    UsageError,
)
from postline.registry import IncompatibleSchema

__all__ = ["FAILED", "INTERRUPTED", "LOG", "NEGATIVE", "OK", "USAGE", "alarm", "colors", "exit_code_of", "show_error"]

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
        case IncompatibleSchema() | UnknownRecord():
            return NEGATIVE
        case UsageError() | SettingsError() | ContractError():
            return USAGE
        case LogError() | PublishTimeout():
            return LOG
    return FAILED


def show_error(what: str, remedy: str = "") -> None:
    """What went wrong and what to do, on standard error."""
    first, *rest = what.splitlines() or [""]
    lines = [f"{click.style('error:', fg='red', bold=True)} {first}", *(f"  {line}" for line in rest)]
    if remedy:
        lines.append(f"  {click.style('fix:', bold=True)} {remedy}")
    click.echo("\n".join(lines), err=True, color=colors())


def alarm(what: str, word: str = "alarm") -> None:
    """Something to know beside the answer, on standard error."""
    click.echo(f"{click.style(word + ':', fg='yellow', bold=True)} {what}", err=True, color=colors())


def colors() -> bool | None:
    """False where NO_COLOR is set, else None: only on a terminal."""
    return False if os.environ.get("NO_COLOR") else None
