"""Dead letters as every view shows them."""

from __future__ import annotations

import msgspec

from postline.monitor.views import RecordView

__all__ = ["DeadLetterDetail", "DeadLetterGroup", "DeadLetterView", "EditView", "RelatedView"]


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A record that a subscription gave up."""

    id: str
    partition: int
    offset: int
    key: str | None
    type: str
    error_type: str
    error: str
    attempts: int
    failed_ms: int
    #: Whether later records of its key wait until it is redriven or discarded.
    holds: bool
    #: How many wait behind it.
    blocked: int
    #: That of all that failed alike, and where: the innermost frame of the user's code.
    group: str = ""
    place: str = ""
    #: How often it was redriven before.
    redrives: int = 0
    #: Another value is handled than was published.
    edited: bool = False


class DeadLetterGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters of one exception and one place."""

    group: str
    error_type: str
    place: str
    #: Of the first of them.
    error: str
    count: int
    first_failed_ms: int
    last_failed_ms: int
    types: list[str]
    #: One of them.
    example: str


class EditView(msgspec.Struct, frozen=True, kw_only=True):
    """Who gave a dead letter another value, and why."""

    by: str
    reason: str
    edited_ms: int


class RelatedView(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the same conversation."""

    topic: str
    id: str
    type: str
    message_id: str
    causation_id: str
    stored_ms: int


class DeadLetterDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter with its record and the stack of its error; either is None if retention took it."""

    letter: DeadLetterView
    #: As it would be handled: edited, if it was.
    record: RecordView | None
    stack: str | None
    #: What led to the error, the nearest first.
    causes: list[str] = []
    #: Where the record lies: topic, partition and offset.
    origin: str = ""
    #: The correlation id, and the records of it that lie near in time, the oldest first.
    conversation: str = ""
    related: list[RelatedView] = []
    edit: EditView | None = None
    #: As it was published, where it was edited.
    original: RecordView | None = None
