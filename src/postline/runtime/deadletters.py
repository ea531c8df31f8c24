"""Dead letters as records: the full copy of what was given up, with its error and origin."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import msgspec

from postline.errors import DecodeError
from postline.log.port import FLAG_OWN_ID, Append, Assignment, Log, Record
from postline.message import Envelope

__all__ = [
    "MaskedError",
    "dead_letter_copy",
    "describe",
    "envelope_or_blank",
    "error_text",
    "records_of_copies",
    "stack_of",
]

_STACK_CHARACTERS_MAX = 8_192
_ERROR_CHARACTERS_MAX = 500


class MaskedError(Exception):
    """Stands for an error whose texts have what nobody is to see; its class is called as the error's."""

    def __init__(self, text: str, stack: str) -> None:
        super().__init__(text)
        self.stack = stack

    @classmethod
    def of(cls, error: BaseException, text: str, stack: str) -> MaskedError:
        """What stands for that error, and is told with these texts."""
        named: type[MaskedError] = type(type(error).__qualname__, (cls,), {})
        return named(text, stack)


def describe(error: BaseException) -> str:
    """The error in a line of storable text, as state and lists keep it, whatever the error is like."""
    return _storable(f"{type(error).__qualname__}: {error_text(error)}"[:_ERROR_CHARACTERS_MAX])


def error_text(error: BaseException) -> str:
    """What the error says, whatever it is like."""
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - a record must not hang on how its error prints
        return f"(its text can't be had: {type(broken).__qualname__})"


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def stack_of(error: BaseException) -> str:
    """The error's stack with those of its causes, as Python prints them, whatever the error is like."""
    if isinstance(error, MaskedError):
        return error.stack
    try:
        return "".join(traceback.format_exception(error))
    except Exception as broken:  # noqa: BLE001 - as above
        return f"(its stack can't be had: {type(broken).__qualname__})"


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
        "postline-error-stack": _storable(stack_of(error)[-_STACK_CHARACTERS_MAX:]),
        "postline-subscription": assignment.subscription,
        "postline-origin": _origin(assignment, record[0]),
    }
    copy = msgspec.structs.replace(envelope, headers=headers)
    return Append(topic, assignment.partition, record[2], record[4], copy, record[5] & ~FLAG_OWN_ID)


def _origin(assignment: Assignment, offset: int) -> str:
    return f"{assignment.topic}/{assignment.partition}/{offset}"


async def records_of_copies(log: Log, topic: str, assignment: Assignment, offsets: Sequence[int]) -> dict[int, Record]:
    """The records at these offsets as their copies on the dead-letters topic tell them, where there are any.

    Of the original, all is there but the time when it was published; the error's headers stay. It
    reads the whole partition of the topic, since nobody should need it often.
    """
    wanted = {_origin(assignment, offset): offset for offset in offsets}
    found: dict[int, Record] = {}
    position = 0
    while copies := await log.read(topic, assignment.partition, position):
        for copy in copies:
            offset = wanted.get(envelope_or_blank(log, copy).headers.get("postline-origin", ""))
            if offset is not None:
                found[offset] = (offset, *copy[1:])
        position = copies[-1][0] + 1
    return found
