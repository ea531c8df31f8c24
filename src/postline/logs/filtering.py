"""`Fields`: puts what a handler is at on each line that is logged in it, and masks what its contract marks."""

from __future__ import annotations

import logging
from typing import Any

from postline.logs.errors import error_of, stack_of
from postline.logs.handled import HANDLED, Handled, Hide
from postline.logs.values import STANDARD, hidden_in

__all__ = ["Fields", "is_own"]

_OWN = "postline"


def is_own(logger: str) -> bool:
    """Whether a logger is one of Postline's, whose lines carry what they are about by themselves."""
    return logger == _OWN or logger.startswith(_OWN + ".")


class Fields(logging.Filter):
    """For handlers of `logging`: every line of a message handler then knows its record (`record.postline`).

    It belongs on the first handler that sees a line, since it looks at the task and thread that log: on a QueueHandler
    rather than behind it. It never refuses a line, and never raises. Sensitive values of the record at hand are masked
    in the text, in `extra=` and in errors.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the fields on the line, once however many handlers see it."""
        handled = HANDLED.get()
        if handled is None or hasattr(record, "postline") or is_own(record.name):
            return True
        try:
            record.postline = handled.log_fields()
            _mask(record, handled)
        except Exception as error:  # noqa: BLE001 - a line that can't be put together must not fail the handler
            _withhold(record, error)
        return True


def _mask(record: logging.LogRecord, handled: Handled) -> None:
    hide = handled.log_hide()
    if hide is None:
        return
    record.msg, record.args = hide(record.getMessage()), None
    for name in record.__dict__.keys() - STANDARD:
        record.__dict__[name] = hidden_in(record.__dict__[name], hide)
    if record.exc_info and isinstance(error := record.exc_info[1], BaseException):
        _mask_error(record, error, hide)


def _mask_error(record: logging.LogRecord, error: BaseException, hide: Hide) -> None:
    """From here on the error is known by its masked texts alone, whichever formatter comes."""
    told: dict[str, Any] = error_of(error, hide)
    record.exc_text, record.exc_info = hide(stack_of(error)), None
    record.postline_error = told


def _withhold(record: logging.LogRecord, error: Exception) -> None:
    """What can't be looked through may not be told."""
    record.msg = "a line of a handler is left out, since what it may tell can't be found out (%s)"
    record.args, record.exc_info, record.exc_text = (type(error).__qualname__,), None, None
    for name in record.__dict__.keys() - STANDARD:
        del record.__dict__[name]
    record.postline = {}
