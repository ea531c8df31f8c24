"""The options by which services are told how to log."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from postline.logs import LogFormat, configure

__all__ = ["LogOptions", "log_options"]

_log = logging.getLogger("postline.run")

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class LogOptions:
    """How to log."""

    level: str
    form: LogFormat
    lines_per_second: float | None

    def set_up(self) -> None:
        """Log so, on standard error, unless the program's own modules set logging up otherwise."""
        colours = sys.stderr.isatty()
        configure(self.level, form=self.form, lines_per_second=self.lines_per_second, colours=colours)

    def report(self, text: str) -> None:
        """One line about the life of services, with the logs."""
        if self.form == "json":
            _log.info(text)
        else:
            click.echo(f"postline[{os.getpid()}] {text}", err=True)

    @property
    def arguments(self) -> list[str]:
        """The same as options for a worker."""
        found = ["--log-level", self.level, "--log-format", self.form]
        return found if self.lines_per_second is None else [*found, "--log-rate", str(self.lines_per_second)]


def log_options(function: Function) -> Function:
    """Add `--log-level`, `--log-format` and `--log-rate`; the command gets them as `logs`."""

    def command(*arguments: Any, log_level: str, log_format: LogFormat, log_rate: float | None, **others: Any) -> Any:
        return function(*arguments, logs=LogOptions(log_level, log_format, log_rate), **others)

    command.__doc__, command.__name__ = function.__doc__, function.__name__
    command.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(_OPTIONS):
        option(command)
    return command  # type: ignore[return-value]


_OPTIONS = (
    click.option(
        "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
    ),
    click.option(
        "--log-format",
        default="text",
        show_default=True,
        envvar="POSTLINE_LOG_FORMAT",
        type=click.Choice(["text", "json"]),
        help="json: one object a line, for machines.",
    ),
    click.option(
        "--log-rate",
        type=click.FloatRange(0, min_open=True),
        metavar="N",
        help="At most so many lines a second of each logger, but for errors.",
    ),
)
