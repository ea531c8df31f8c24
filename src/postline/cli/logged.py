"""How commands that run services log: the options, and the lines about the process itself."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import click

from postline.cli.failures import FAILED, exit_code_of, show_error
from postline.errors import PostlineError, UsageError
from postline.logs import Format, configure, per_second
from postline.logs.events import event

__all__ = ["LogOptions", "Report", "ending_in_json", "log_options"]


class Report(Protocol):
    """Says what becomes of the process, one line each."""

    def __call__(self, text: str) -> None: ...

    def failed(self, what: str, remedy: str, error: BaseException) -> None:
        """The process ends for this error."""


#: Its lines are told whatever `--log-level` says, as those in text are.
_log = logging.getLogger("postline.process")


class LogOptions(NamedTuple):
    """How to log, as the command line says."""

    level: str
    format: Format
    lines_per_second: int | None

    def arguments(self) -> list[str]:
        """The same for a worker's command line."""
        sample = [] if self.lines_per_second is None else ["--log-sample", f"{self.lines_per_second}/s"]
        return ["--log-level", self.level, "--log-format", self.format, *sample]

    def begin(self) -> Report:
        """Log on standard error from now on, unless the program's own modules set that up otherwise.

        As JSON nothing else is written there, so that a collector can parse every line: also warnings of Python and
        errors that nobody caught. Gives what says lines about the process.
        """
        configure(self.format, level=self.level, lines_per_second=self.lines_per_second)
        if self.format == "text":
            return TextReport()
        logging.captureWarnings(capture=True)
        _log.setLevel(logging.INFO)
        sys.excepthook = _uncaught
        threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)
        return JsonReport()


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """An error that nobody caught: a line like any other."""
    if error is not None and not issubclass(kind, KeyboardInterrupt | SystemExit):
        _log.error("uncaught: %s", error, exc_info=(kind, error, trace), extra=event("process.uncaught"))


class TextReport:
    """On standard error, beside the log's lines."""

    def __call__(self, text: str) -> None:
        click.echo(f"postline[{os.getpid()}] {text}", err=True)

    def failed(self, what: str, remedy: str, error: BaseException) -> None:
        """What went wrong; with its traceback if nobody expected it."""
        if not isinstance(error, PostlineError):
            traceback.print_exception(error)
        show_error(what, remedy)


class JsonReport:
    """As lines of the log."""

    def __call__(self, text: str) -> None:
        _log.info("%s", text, extra=event("process.told"))

    def failed(self, what: str, remedy: str, error: BaseException) -> None:
        """What went wrong, with the error as data."""
        _log.error("%s", what, exc_info=error, extra=event("process.failed", remedy=remedy))


@contextmanager
def ending_in_json(report: Report) -> Iterator[None]:
    """Where lines are JSON, an error is one, too, and ends the program with its exit code; else it goes on its way."""
    try:
        yield
    except PostlineError as error:
        if isinstance(report, TextReport):
            raise
        report.failed(error.message, error.remedy, error)
        raise click.exceptions.Exit(exit_code_of(error)) from error
    except Exception as error:
        if isinstance(report, TextReport):
            raise
        report.failed(f"{error!r} was not expected.", "", error)
        raise click.exceptions.Exit(FAILED) from error


def _read_sample(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else per_second(text)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def log_options(command: Any) -> Any:
    """Let a command be told how to log; it is given `log_level`, `log_format` and `log_sample`."""
    levels = click.Choice(["debug", "info", "warning", "error"])
    option = partial(click.option, show_default=True, show_envvar=True)
    for decorate in (
        option(
            "--log-sample",
            metavar="N/s",
            envvar="POSTLINE_LOG_SAMPLE",
            callback=_read_sample,
            help="At most so many lines a second of each logger and level; tells how many were left out.",
        ),
        option(
            "--log-format",
            default="text",
            envvar="POSTLINE_LOG_FORMAT",
            type=click.Choice(["text", "json"]),
            help="json: one object to a line, and nothing else on standard error.",
        ),
        option("--log-level", default="info", type=levels),
    ):
        command = decorate(command)
    return command
