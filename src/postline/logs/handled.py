"""What is being handled where a line is logged: known by a context variable, put into words only if somebody logs."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

__all__ = ["HANDLED", "Handled", "Hide", "fields"]

#: Puts a mask in place of what a text may not tell.
Hide = Callable[[str], str]


class Handled(Protocol):
    """One attempt at a record, or at a batch of them; or who makes it."""

    def log_fields(self) -> dict[str, Any]:
        """What lines that are logged in it carry. Never waits; safe from any thread."""

    def log_hide(self) -> Hide | None:
        """Hides what the records' contracts mark as sensitive; None where they mark nothing."""


#: What this task or thread belongs to: a worker, which knows its attempt, or an attempt.
HANDLED: ContextVar[Handled | None] = ContextVar("postline_handled", default=None)


def fields() -> dict[str, Any]:
    """What is being handled here, as lines of handlers carry it; {} outside handlers.

    For loggers that are not the standard library's: `structlog`'s processors, say. Topic, partition, offset (of a batch
    `last_offset` and `records` too), key, attempt, subscription, handler, message_id and correlation_id.
    """
    handled = HANDLED.get()
    return {} if handled is None else handled.log_fields()
