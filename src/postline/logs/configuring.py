"""`configure`: logging for programs that have no set-up of their own; nothing is set up unless it is called."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal, TextIO, TypeAlias

from postline.errors import UsageError
from postline.logs.filtering import Fields
from postline.logs.formatting import JsonFormatter, TextFormatter
from postline.logs.sampling import SamplingHandler

__all__ = ["Format", "configure", "formatter_for", "handler_for"]

Format: TypeAlias = Literal["text", "json"]

_LEVELS = ("debug", "info", "warning", "error", "critical")


def configure(
    format: Format = "text",
    *,
    level: str = "info",
    lines_per_second: int | None = None,
    stream: TextIO | None = None,
) -> logging.Handler | None:
    """Log everything from `level` on to `stream` (standard error), as text or JSON; gives the handler.

    Does nothing, and gives None, if the root logger has handlers already: a program's own set-up wins. Lines of
    message handlers carry what they handle. `lines_per_second` bounds those of each logger and level
    (`SamplingHandler`). Raises UsageError.
    """
    if level.lower() not in _LEVELS:
        raise UsageError(f"{level!r} is no level.", remedy=f"Use one of {', '.join(_LEVELS)}.")
    root = logging.getLogger()
    if root.handlers:
        return None
    handler = handler_for(format, lines_per_second=lines_per_second, stream=stream)
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler


def handler_for(
    format: Format,
    *,
    lines_per_second: int | None = None,
    stream: TextIO | None = None,
) -> logging.Handler:
    """The handler that `configure` would install. Raises UsageError."""
    if lines_per_second is not None and lines_per_second < 1:
        raise UsageError(f"{lines_per_second} lines a second would be none.", remedy="Give 1 or more, or None for all.")
    writing: logging.Handler = logging.StreamHandler(stream)
    writing.setFormatter(formatter_for(format, stream or sys.stderr))
    writing.addFilter(Fields())
    return writing if lines_per_second is None else SamplingHandler(writing, lines_per_second)


def formatter_for(format: Format, stream: TextIO) -> logging.Formatter:
    """What fits the stream: colour on a terminal alone, never with NO_COLOR; other characters where it has them."""
    if format == "json":
        return JsonFormatter(ascii=(getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8")
    if format != "text":
        raise UsageError(f"{format!r} is no format of logs.", remedy="Use text or json.")
    return TextFormatter(color=bool(getattr(stream, "isatty", bool)()) and not os.environ.get("NO_COLOR"))
