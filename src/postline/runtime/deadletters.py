"""Dead letters as records: the full copy of what was given up, with its error and origin."""

from __future__ import annotations

import traceback

import msgspec

from postline.log.port import Append, Assignment, Record
from postline.message import Envelope

__all__ = ["dead_letter_copy", "describe"]

_STACK_CHARACTERS_MAX = 8_192
_ERROR_CHARACTERS_MAX = 500


def describe(error: BaseException) -> str:
    """The error in a line, as state and lists keep it."""
    return f"{type(error).__qualname__}: {error}"[:_ERROR_CHARACTERS_MAX]


def dead_letter_copy(
    topic: str, assignment: Assignment, record: Record, envelope: Envelope, error: BaseException
) -> Append:
    """The record to append to the dead-letters topic: same key, bytes and envelope, plus its error."""
    stack = "".join(traceback.format_exception(error))[-_STACK_CHARACTERS_MAX:]
    headers = {
        **envelope.headers,
        "postline-error-type": type(error).__qualname__,
        "postline-error": describe(error),
        "postline-error-stack": stack,
        "postline-subscription": assignment.subscription,
        "postline-origin": f"{assignment.topic}/{assignment.partition}/{record[0]}",
    }
    copy = msgspec.structs.replace(envelope, headers=headers)
    return Append(topic, assignment.partition, record[2], record[4], copy)
