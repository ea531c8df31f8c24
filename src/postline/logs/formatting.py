"""`JsonFormatter` and `TextFormatter`: a line for machines, and a line for people."""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC, datetime
from typing import Any

from postline.logs.errors import error_of
from postline.logs.filtering import Fields
from postline.logs.values import extras_of, plain, redacted, text_of

__all__ = ["JsonFormatter", "TextFormatter", "line_of"]

_COLORS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31", logging.DEBUG: "2"}
#: What a terminal or a pager would obey; line feeds and tabs are no danger.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
#: Of a handler's line in text, in this order; what it leaves out are places, which stand together.
_SHOWN = ("subscription", "handler", "key", "attempt", "correlation_id")

_fields = Fields()


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    """A line as data, in the order in which `JsonFormatter` writes it."""
    _fields.filter(record)
    told: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": redacted(text_of(_message_of(record))),
    }
    if event := getattr(record, "postline_event", ""):
        told["event"] = event
    told |= plain(getattr(record, "postline_fields", None) or getattr(record, "postline", {}))
    told |= {"process": record.process, "thread": record.threadName}
    if (error := _error_of(record)) is not None:
        told["error"] = error
    if record.stack_info:
        told["stack"] = redacted(text_of(record.stack_info))
    crowded: dict[str, Any] = {}
    for name, value in extras_of(record).items():
        (crowded if name in told or name == "extra" else told)[name] = plain(value)
    return told | ({"extra": crowded} if crowded else {})


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - a line with wrong arguments is better than none
        return f"{text_of(record.msg)} (its arguments don't fit: {type(error).__qualname__})"


def _error_of(record: logging.LogRecord) -> dict[str, Any] | None:
    if (told := getattr(record, "postline_error", None)) is not None:
        found: dict[str, Any] = told
        return found
    if record.exc_info and isinstance(error := record.exc_info[1], BaseException):
        return error_of(error)
    return {"stack": redacted(text_of(record.exc_text))} if record.exc_text else None


class JsonFormatter(logging.Formatter):
    """One JSON object to a line, whatever is logged; `docs/howto/logging.md` says what it has.

    With `ascii` other characters are escaped, for streams that are not in UTF-8. Without the filter `Fields` it looks
    itself at what is being handled, which a formatter behind a queue can't.
    """

    def __init__(self, *, ascii: bool = False) -> None:
        super().__init__()
        self._ascii = ascii

    def format(self, record: logging.LogRecord) -> str:
        """The line. Never raises."""
        return json.dumps(line_of(record), ensure_ascii=self._ascii)


class TextFormatter(logging.Formatter):
    """A line to read: time (UTC), level, logger, text, and in handlers what is being handled.

    With `color` the level is coloured, for terminals. Control characters are escaped, and the lines of a text after
    its first are indented, so that nothing that is logged can pass for a line of its own.
    """

    converter = staticmethod(time.gmtime)
    default_time_format, default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"

    def __init__(self, *, color: bool = False) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the stack of its error below. Never raises."""
        _fields.filter(record)
        level = f"{record.levelname:<7}"
        if self._color and (color := _COLORS.get(record.levelno)):
            level = f"\x1b[{color}m{level}\x1b[0m"
        text = redacted(text_of(_message_of(record))) + _handled(getattr(record, "postline", {}))
        head = f"{self.formatTime(record)} {level} {record.name}: {_tame(text)}"
        error = _error_of(record)
        below = [*filter(None, [error["stack"] if error else "", record.stack_info and redacted(record.stack_info)])]
        return "\n".join([head, *(_tame(text_of(each), "") for each in below)])


def _handled(fields: dict[str, Any]) -> str:
    if not fields:
        return ""
    last = f"..{fields['last_offset']}" if "last_offset" in fields else ""
    place = f"{fields['topic']} {fields['partition']}:{fields['offset']}{last} " if "offset" in fields else ""
    shown = [f"{name}={fields[name]}" for name in _SHOWN if fields.get(name) is not None]
    return f" [{place}{' '.join(shown)}]"


def _tame(text: str, indent: str = "  ") -> str:
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n")).replace("\n", "\n" + indent)
