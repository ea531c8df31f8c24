"""Which attempt runs here, for lines that its handler logs; noted only while somebody wants it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple

from postline.log.port import Record
from postline.runtime.context import Context, Desk

__all__ = ["Attempt", "attempt_here", "is_noted", "note_attempts", "noted", "noted_context"]


class Attempt(NamedTuple):
    """One attempt: at one record, or at those from the context's to the last offset."""

    context: Context[Any]
    last_offset: int


_HERE: ContextVar[Attempt | None] = ContextVar("postline_attempt", default=None)


class _Wish:
    """Whether attempts are noted, in this process."""

    granted = False


def note_attempts(*, wanted: bool = True) -> None:
    """Note attempts from now on, or no more: it costs each some 100 ns. Lanes that run heed it with their next turn."""
    _Wish.granted = wanted


def is_noted() -> bool:
    """Whether attempts are noted."""
    return _Wish.granted


def noted(context: Context[Any], last_offset: int | None = None) -> None:
    """This attempt runs here: in this task or thread, and in the tasks that it makes."""
    _HERE.set(Attempt(context, context.record[0] if last_offset is None else last_offset))


def noted_context(desk: Desk, record: Record, attempt: int) -> Context[Any]:
    """The context of an attempt that runs here."""
    context: Context[Any] = Context(desk, record, attempt)
    noted(context)
    return context


def attempt_here() -> Attempt | None:
    """The attempt that whoever asks belongs to; None outside of handlers, and after it has ended."""
    found = _HERE.get()
    return None if found is None or found.context.closed else found
