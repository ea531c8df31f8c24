"""Errors of handlers without what their record's contract marks as sensitive, as far as the values stand in them."""

from __future__ import annotations

from contextlib import suppress

from postline.contracts.masking import MASK, has_sensitive, hidden_texts, without_texts
from postline.contracts.schema import Schema
from postline.errors import ContractError
from postline.log.port import SCHEMA_ID_SHIFT, Record
from postline.runtime.deadletters import MaskedError, cause_texts, error_text, stack_of
from postline.runtime.handlers import Handler

__all__ = ["Unreadable", "discreet", "hidden_in"]


def discreet(error: BaseException, handler: Handler | None, record: Record) -> BaseException:
    """The error; or, if its text or stack has values of the record's sensitive fields, what stands for it without them.

    What a handler makes of a value, a part or another spelling of it, can't be known and stays.
    """
    try:
        texts = hidden_in(handler, record)
    except Unreadable:
        return MaskedError.of(error, MASK, f"{type(error).__qualname__}: {MASK}\n")
    if not texts:
        return error
    text, stack = error_text(error), stack_of(error)
    shown, shown_stack = without_texts(text, texts), without_texts(stack, texts)
    if (shown, shown_stack) == (text, stack):
        return error
    return MaskedError.of(error, shown, shown_stack, [without_texts(each, texts) for each in cause_texts(error)])


class Unreadable(Exception):
    """What a record has of sensitive values can't be known, so that nothing may be told."""


def hidden_in(handler: Handler | None, record: Record) -> set[str]:
    """The values of the record's sensitive fields, as texts may have them. Raises Unreadable."""
    if handler is None or not record[4]:
        return set()
    try:
        if not (schemas := _marking(handler, record)):
            return set()
        plain = handler.plain(record)
    except Exception as error:  # what can't be read can't be looked for
        raise Unreadable from error
    return {each for schema in schemas for each in hidden_texts(schema, plain)}


def _marking(handler: Handler, record: Record) -> list[Schema]:
    """The schemas that mark something, of the handler's class and of what may have written the record."""
    writer = handler.writers.get(record[5] >> SCHEMA_ID_SHIFT)
    found = [*handler.writers.values()] if writer is None else [writer]
    with suppress(ContractError):  # a class without a schema marks nothing
        found.append(handler.reading.schema)
    return [each for each in found if has_sensitive(each)]
