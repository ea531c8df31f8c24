"""Dead letters as records: the full copy of what was given up, with its error and origin."""

from __future__ import annotations

import traceback

import msgspec

from postline.errors import DecodeError
from postline.log.port import Append, Assignment, Log, Record
from postline.message import Envelope

__all__ = ["dead_letter_copy", "describe", "envelope_or_blank"]

_STACK_CHARACTERS_MAX = 8_192
_ERROR_CHARACTERS_MAX = 500


def describe(error: BaseException) -> str:
    """The error in a line of storable text, as state and lists keep it, whatever the error is like."""
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - a record must not hang on how its error prints
        text = f"(its text can't be had: {type(broken).__qualname__})"
    return _storable(f"{type(error).__qualname__}: {text}"[:_ERROR_CHARACTERS_MAX])


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _stack(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(error)
    except Exception as broken:  # noqa: BLE001 - as above
        lines = [f"(its stack can't be had: {type(broken).__qualname__})"]
    return _storable("".join(lines)[-_STACK_CHARACTERS_MAX:])


def envelope_or_blank(log: Log, record: Record) -> Envelope:
    """The record's envelope; one that tells nothing but the type if what is stored can't be read."""
    try:
        return log.envelope(record)
    except DecodeError:
        return Envelope(type=record[3])


def dead_letter_copy(
    topic: str, assignment: Assignment, record: Record, envelope: Envelope, error: BaseException
) -> Append:
    """The record to append to the dead-letters topic: same key, bytes and envelope, plus its error."""
    headers = {
        **envelope.headers,
        "postline-error-type": type(error).__qualname__,
        "postline-error": describe(error),
        "postline-error-stack": _stack(error),
        "postline-subscription": assignment.subscription,
        "postline-origin": f"{assignment.topic}/{assignment.partition}/{record[0]}",
    }
    copy = msgspec.structs.replace(envelope, headers=headers)
    return Append(topic, assignment.partition, record[2], record[4], copy)
