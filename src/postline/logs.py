"""Log lines: which record a handler's own line is about, as text or JSON, and not more of them than wanted.

Nothing here is set up by itself. `postline run` and `postline serve` call `configure`; a program that has its own
logging adds `AttemptFilter` to its handlers, and `JsonFormatter` if it likes.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any, Literal

import msgspec

from postline.clock import Clock, SystemClock
from postline.contracts.masking import MASK
from postline.runtime.attempts import attempt_here, note_attempts

__all__ = ["AttemptFilter", "JsonFormatter", "Sampling", "TextFormatter", "configure"]

LogFormat = Literal["text", "json"]

#: What `AttemptFilter` gives each line: None where it is about no record.
_FIELD = "postline"
_OWN = "postline"


class AttemptFilter(logging.Filter):
    """Adds `record.postline` to lines that handlers log: a dict of what they are at, else None. Lets all lines pass.

    subscription, topic, partition, offset (and last_offset of a batch), key (masked where its field is sensitive),
    type, id, correlation_id and attempt. Also in plain functions, which run in threads, and in tasks that a handler
    makes, until the attempt ends. Thread-safe. Attempts are noted from its first instance on.
    """

    def __init__(self) -> None:
        super().__init__()
        note_attempts()

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        if not hasattr(record, _FIELD):
            setattr(record, _FIELD, _at())
        return True


def _at() -> dict[str, Any] | None:
    attempt = attempt_here()
    if attempt is None:
        return None
    context = attempt.context
    envelope, offset, key = context.envelope, context.offset, context.record[2]
    plan = getattr(context.desk, "plan", None)
    found: dict[str, Any] = {
        "subscription": context.subscription,
        "topic": context.topic,
        "partition": context.partition,
        "offset": offset,
    }
    if attempt.last_offset != offset:
        found["last_offset"] = attempt.last_offset
    if key is not None:
        hidden = plan is not None and plan.hides_keys
        found["key"] = MASK if hidden else key.decode(errors="backslashreplace")
    return found | {
        "type": context.record[3],
        "id": envelope.id,
        "correlation_id": envelope.conversation,
        "attempt": context.attempt,
    }


class TextFormatter(logging.Formatter):
    """One line for people: UTC to the millisecond, level, logger, message, then what the handler is at.

    With `colours` the level is coloured.
    """

    _COLOURS = ((logging.ERROR, "31"), (logging.WARNING, "33"), (logging.INFO, "36"))

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self.converter = time.gmtime
        self.default_time_format, self.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
        self._colours = colours

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        """The line itself, without a stack."""
        line = super().formatMessage(record)
        if self._colours:
            code = next((code for level, code in self._COLOURS if record.levelno >= level), "2")
            line = line.replace(f" {record.levelname}", f" \x1b[{code}m{record.levelname}\x1b[0m", 1)
        at = getattr(record, _FIELD, None)
        if not at:
            return line
        last = f"-{at['last_offset']}" if "last_offset" in at else ""
        place = f"{at['topic']} {at['partition']}:{at['offset']}{last}"
        more = " ".join(f"{name}={at[name]}" for name in ("key", "attempt", "correlation_id") if at.get(name))
        return f"{line} [{at['subscription']} {place} {more}]"


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines.

    `time` (RFC 3339, UTC), `level`, `logger`, `pid`, `message`; `event`, the message before its values were put in, by
    which equal lines of Postline are found; what `AttemptFilter` adds; `extra` fields as they are; `error` with `type`,
    `message`, `stack` and the `causes` under it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object, without a line break in it."""
        said: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.name.partition(".")[0] == _OWN:
            said["event"] = str(record.msg)
        said |= getattr(record, _FIELD, None) or {}
        said |= {name: value for name, value in vars(record).items() if name not in _KNOWN and name not in said}
        if record.exc_info and (error := record.exc_info[1]) is not None:
            said["error"] = _error(error)
        return msgspec.json.encode(said, enc_hook=str).decode()


def _error(error: BaseException) -> dict[str, Any]:
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < _CAUSES_MAX:
        causes.append(f"{type(cause).__qualname__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    return {
        "type": type(error).__qualname__,
        "message": str(error),
        "stack": "".join(traceback.format_exception(error)),
        "causes": causes,
    }


_CAUSES_MAX = 10
#: What every line has, and nobody asked for.
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", _FIELD}


class Sampling(logging.Filter):
    """At most so many lines a second of each logger, but for errors; how many were left out is told with the next one.

    Thread-safe as far as `logging` is: handlers call it under their lock, loggers don't; a line more may pass then.
    """

    def __init__(self, lines_per_second: float, clock: Clock | None = None) -> None:
        super().__init__()
        self._most, self._clock = max(1.0, lines_per_second), clock or SystemClock()
        self._rate = lines_per_second
        #: By logger: what it may say now, when that was counted, and how many lines were left out.
        self._loggers: dict[str, tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.levelno >= logging.ERROR:
            return True
        now = self._clock.monotonic()
        room, at, left_out = self._loggers.get(record.name, (self._most, now, 0))
        room = min(self._most, room + (now - at) * self._rate)
        if room < 1:
            self._loggers[record.name] = (room, now, left_out + 1)
            return False
        self._loggers[record.name] = (room - 1, now, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} lines of this logger were left out)", ()
        return True


def configure(
    level: str = "info",
    *,
    form: LogFormat = "text",
    lines_per_second: float | None = None,
    colours: bool = False,
) -> None:
    """Log on standard error, unless the program has set its logging up already; handlers' lines tell their record.

    `lines_per_second` bounds each logger's lines below errors. Call it once, before apps start.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(colours=colours))
    handler.addFilter(AttemptFilter())
    if lines_per_second is not None:
        handler.addFilter(Sampling(lines_per_second))
    logging.basicConfig(level=level.upper(), handlers=[handler])
