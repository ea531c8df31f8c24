"""What lines that are logged in a handler carry of its record, made when a line is logged and not before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from postline.contracts.masking import MASK, hides, without_texts
from postline.contracts.topics import PLACED_BY
from postline.errors import ContractError, DecodeError
from postline.log.port import Record
from postline.logs.handled import Hide
from postline.runtime.context import Context
from postline.runtime.discretion import Unreadable, hidden_in
from postline.runtime.plan import Plan

__all__ = ["Batch", "fields_of", "hide_of"]


def fields_of(plan: Plan, context: Context[Any]) -> dict[str, Any]:
    """Where and what the record is, which attempt this is, and of which conversation."""
    record, handler = context.record, plan.handler_of(context.record[3])
    found: dict[str, Any] = {"subscription": plan.name, "topic": context.topic, "partition": context.partition}
    if handler is not None:
        found["handler"] = getattr(handler.function, "__qualname__", handler.type_name)
    found |= {"offset": record[0], "attempt": context.attempt}
    if record[2] is not None:
        found["key"] = _key_of(plan, record)
    with suppress(DecodeError):  # of an envelope that can't be read nobody knows them
        found |= {"message_id": context.message_id, "correlation_id": context.correlation_id}
    return found


def _key_of(plan: Plan, record: Record) -> str:
    """The key as it may be told: not where the topic's key is a sensitive field, or has the value of one."""
    shown = (record[2] or b"").decode("utf-8", "backslashreplace")
    handler, path = plan.handler_of(record[3]), plan.key_text.partition(PLACED_BY)[0]
    if handler is not None and path and not path.endswith("()"):
        with suppress(ContractError):  # a class without a schema marks nothing
            if hides(handler.reading.schema, path):
                return MASK
    hide = hide_of(plan, [record])
    return shown if hide is None else hide(shown)


def hide_of(plan: Plan, records: Sequence[Record]) -> Hide | None:
    """Masks the values of these records' sensitive fields in a text; None if nothing is marked.

    Where a record can't be read, so that nobody knows them, all of a text is masked.
    """
    hidden: set[str] = set()
    try:
        for record in records:
            hidden |= hidden_in(plan.handler_of(record[3]), record)
    except Unreadable:
        return lambda text: MASK
    return partial(_without, hidden=hidden) if hidden else None


def _without(text: str, hidden: set[str]) -> str:
    return without_texts(text, hidden)


class Batch:
    """The records of one call of a batch handler, as `Handled`: what its lines carry is of all of them."""

    __slots__ = ("_context", "_hide", "_known", "_plan", "_records")

    def __init__(self, plan: Plan, context: Context[Any], records: Sequence[Record]) -> None:
        self._plan, self._context, self._records = plan, context, records
        self._hide: Hide | None = None
        self._known = False

    def log_fields(self) -> dict[str, Any]:
        """First and last offset and how many; neither a key nor a conversation, which are of one record each."""
        found = fields_of(self._plan, self._context)
        for name in ("key", "message_id", "correlation_id"):
            found.pop(name, None)
        return found | {"last_offset": self._records[-1][0], "records": len(self._records)}

    def log_hide(self) -> Hide | None:
        """Hides what is sensitive in any of them; looked for once."""
        if not self._known:
            self._hide, self._known = hide_of(self._plan, self._records), True
        return self._hide
