"""Dead letters as records: the full copy of what was given up, with its error and origin."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec

from postline.errors import DecodeError
from postline.log.port import FLAG_OWN_ID, Append, Assignment, Log, Record
from postline.message import Envelope
from postline.runtime.places import causes_of

__all__ = [
    "CAUSES",
    "FAILED_AT",
    "ORIGIN",
    "STACK",
    "Burial",
    "Copies",
    "MaskedError",
    "cause_texts",
    "copies_of",
    "dead_letter_copy",
    "describe",
    "envelope_or_blank",
    "error_text",
    "origin_of",
    "source_of",
    "stack_of",
]

#: Headers of copies: where the record lies, when it failed (wall-clock milliseconds), how, and what led to that (JSON).
ORIGIN, FAILED_AT = "postline-origin", "postline-failed-at"
STACK, CAUSES = "postline-error-stack", "postline-error-causes"

_STACK_CHARACTERS_MAX = 8_192
_ERROR_CHARACTERS_MAX = 500


class MaskedError(Exception):
    """Stands for an error whose texts have what nobody is to see; its class is called as the error's."""

    def __init__(self, text: str, stack: str, causes: Sequence[str], original: BaseException) -> None:
        super().__init__(text)
        self.stack, self.causes = stack, tuple(causes)
        #: For where it came from; nothing of what it says may be told.
        self.original = original

    @classmethod
    def of(cls, error: BaseException, text: str, stack: str, causes: Sequence[str] = ()) -> MaskedError:
        """What stands for that error, and is told with these texts."""
        named: type[MaskedError] = type(type(error).__qualname__, (cls,), {})
        return named(text, stack, causes, error)


def describe(error: BaseException) -> str:
    """The error in a line of storable text, as state and lists keep it, whatever the error is like."""
    return _storable(f"{type(error).__qualname__}: {error_text(error)}"[:_ERROR_CHARACTERS_MAX])


def error_text(error: BaseException) -> str:
    """What the error says, whatever it is like."""
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - a record must not hang on how its error prints
        return f"(its text can't be had: {type(broken).__qualname__})"


def cause_texts(error: BaseException) -> list[str]:
    """What led to the error, the nearest first, each as type and text."""
    if isinstance(error, MaskedError):
        return list(error.causes)
    return [f"{type(each).__qualname__}: {error_text(each)}" for each in causes_of(error)]


def source_of(error: BaseException) -> BaseException:
    """The error as it was raised, for where it came from: what it says may not be told."""
    return error.original if isinstance(error, MaskedError) else error


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


class Burial(NamedTuple):
    """A record that is given up, and why."""

    record: Record
    envelope: Envelope
    error: BaseException
    attempts: int
    failed_ms: int
    #: Who edited the value, if somebody did.
    edited_by: str = ""


def dead_letter_copy(topic: str, assignment: Assignment, burial: Burial) -> Append:
    """The record to append to the dead-letters topic: same key, bytes and envelope, plus its error."""
    record, envelope, error = burial.record, burial.envelope, burial.error
    headers = {
        **envelope.headers,
        "postline-error-type": type(error).__qualname__,
        "postline-error": describe(error),
        STACK: _storable(stack_of(error)[-_STACK_CHARACTERS_MAX:]),
        "postline-subscription": assignment.subscription,
        ORIGIN: origin_of(assignment.topic, assignment.partition, record[0]),
        "postline-attempts": str(burial.attempts),
        FAILED_AT: str(burial.failed_ms),
    }
    if causes := [_storable(each[:_ERROR_CHARACTERS_MAX]) for each in cause_texts(error)]:
        headers[CAUSES] = msgspec.json.encode(causes).decode()
    if burial.edited_by:
        headers["postline-edited-by"] = burial.edited_by
    copy = msgspec.structs.replace(envelope, headers=headers)
    return Append(topic, assignment.partition, record[2], record[4], copy, record[5] & ~FLAG_OWN_ID)


def origin_of(topic: str, partition: int, offset: int) -> str:
    """How a copy names the record that it is of."""
    return f"{topic}/{partition}/{offset}"


async def copies_of(
    log: Log, topic: str, partition: int, since: int = 0
) -> AsyncIterator[tuple[dict[str, str], Record]]:
    """The copies in a partition of a dead-letters topic, from an offset on, each with its headers."""
    while page := await log.read(topic, partition, since):
        for copy in page:
            yield envelope_or_blank(log, copy).headers, copy
        since = page[-1][0] + 1


class Copies:
    """The copies of one owned partition's dead letters, for when the log lost what they are of. Event loop only.

    Nobody should need them often: the first time it reads the whole partition of the topic, later what was added.
    """

    def __init__(self, log: Log, topic: str, assignment: Assignment) -> None:
        self._log, self._topic, self._partition = log, topic, assignment.partition
        self._origins = origin_of(assignment.topic, assignment.partition, 0)[:-1]
        self._newest: dict[int, int] = {}
        self._next = 0

    async def records(self, offsets: Sequence[int]) -> dict[int, Record]:
        """The records at these offsets as their copies tell them, where there are any.

        Of the original, all is there but the time when it was published; the error's headers stay.
        """
        async for headers, copy in copies_of(self._log, self._topic, self._partition, self._next):
            origin = headers.get(ORIGIN, "")
            if origin.startswith(self._origins):
                self._newest[int(origin[len(self._origins) :])] = copy[0]
            self._next = copy[0] + 1
        found: dict[int, Record] = {}
        for offset in offsets:
            if (place := self._newest.get(offset)) is None:
                continue
            for copy in await self._log.read(self._topic, self._partition, place, limit=1):
                found[offset] = (offset, *copy[1:])
        return found
