"""The views of the read model: what operators see, as structs of numbers and texts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from postline.contracts.masking import MASK
from postline.contracts.schema import SCHEMA_URN
from postline.errors import UsageError
from postline.log.port import Bounds, Record
from postline.message import Envelope
from postline.monitor.contents import Shown

__all__ = [
    "AuditView",
    "BoundView",
    "CauseView",
    "HeldView",
    "MemberView",
    "PartitionAudit",
    "PartitionView",
    "PriorityView",
    "RecordId",
    "RecordView",
    "SubscriptionView",
    "TopicView",
    "key_shown",
    "key_text",
    "printable",
    "record_view",
]


#: As many digits as every offset fits in.
_NUMBER = re.compile("[0-9]{1,18}")


class RecordId(NamedTuple):
    """A record of a subscription's topic, written `3:1042`: partition and offset."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> RecordId:
        """Read `3:1042`. Raises UsageError."""
        left, _, right = text.partition(":")
        if not (_NUMBER.fullmatch(left) and _NUMBER.fullmatch(right)):
            raise UsageError(
                f"{text!r} names no record.", remedy="Write partition and offset, such as 3:1042, as `dlq list` does."
            )
        return cls(int(left), int(right))

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class TopicView(msgspec.Struct, frozen=True, kw_only=True):
    """A topic, how much of it there is, and who reads it."""

    name: str
    owner: str
    key: str
    partitions: int
    #: Offsets between the first kept and the next one, over all partitions; gaps count.
    records: int
    retention_ms: int | None
    retention_bytes: int | None
    compacted: bool
    #: Of these, offsets in partitions beyond the declared ones, which others added: nobody reads them.
    beyond: int
    #: A subscription's own: dead letters or control.
    internal: bool
    subscriptions: list[str]
    bounds: list[Bounds]


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """A process that works for a subscription now."""

    member: str
    instance: str
    joined_ms: int
    partitions: list[int]


class HeldView(msgspec.Struct, frozen=True, kw_only=True):
    """A record that waits: retrying (for a time), ready, unserved (for a handler) or blocked (behind another)."""

    id: str
    key: str | None
    status: str
    attempts: int
    #: Wall-clock time of the next attempt.
    next_attempt_ms: int | None
    error: str


class HeldKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key whose records wait, by the first of them."""

    #: None for a record that has none.
    key: str | None
    partition: int
    offset: int
    #: As of a held record: "blocked" is one that waits behind a dead letter.
    status: str
    #: How many wait, as far as was looked.
    records: int
    attempts: int
    next_attempt_ms: int | None
    error: str

    def with_one_more(self) -> HeldKeyView:
        """The same with one record more behind."""
        return msgspec.structs.replace(self, records=self.records + 1)


class HeldKeysView(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that wait in a subscription, by partition and first offset."""

    subscription: str
    keys: list[HeldKeyView]
    #: Whether these are all, with all their records.
    complete: bool


class RateView(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a subscription was in the last minutes; None where that is not known."""

    minutes: int
    handled_per_second: float | None
    added_per_second: float | None


class HistoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """How a subscription stood at a time, and how fast it was since the point before."""

    at_ms: int
    #: None where samples, or the records of that time, are gone.
    lag_records: int | None
    handled_per_second: float | None
    added_per_second: float | None
    held: int
    dead_letters: int
    #: How many records ended in each way since the point before, those that did; by the samples before either point.
    outcomes: dict[str, int]


class HistoryView(msgspec.Struct, frozen=True, kw_only=True):
    """How a subscription went, up to now."""

    subscription: str
    topic: str
    rates: list[RateView]
    points: list[HistoryPoint]


class PartitionView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a subscription stands in one partition."""

    partition: int
    #: As of a subscription; a partition is never "partly paused", and never "topic gone".
    status: str
    reason: str
    position: int
    end: int
    #: Offsets neither settled nor held; gaps count, so it is an upper bound.
    lag_records: int
    #: Age of the oldest of them, by its timestamp.
    lag_seconds: float
    #: Offsets below the position's own that retention took before they were read.
    overtaken: int
    #: Settled or held above the position.
    ahead: int
    retrying: int
    blocked: int
    unserved: int
    dead_letters: int
    #: Of these, how many hold their key.
    holding: int
    next_attempt_ms: int | None
    paused: bool
    owner: str
    epoch: int

    @property
    def held(self) -> int:
        """All that wait."""
        return self.retrying + self.blocked + self.unserved


class PriorityView(msgspec.Struct, frozen=True, kw_only=True):
    """Which priority's records a subscription reads, as its last owner was declared."""

    #: The declaration that it has in common with those of the other priorities.
    declared_as: str
    name: str
    #: 0 is the highest.
    rank: int
    #: The guaranteed part of what all of them handle, from 0 to 1.
    share: float


class BoundView(msgspec.Struct, frozen=True, kw_only=True):
    """How far the topic's owner lets a subscription lag before publishers wait for it."""

    records: int | None
    seconds: float | None
    bytes: int | None
    #: How much of it is used: from 1.0 on publishers wait. bytes are not counted here.
    used: float


class CauseView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that keeps a subscription from going on.

    `kind`: "breaker" (a backend is away), "bound" (a topic that its handlers publish to is over its bound), "handler"
    (an attempt doesn't come back), "paused", "no member", "held", "unserved" or "unknown".
    """

    kind: str
    #: The message types, the topic or the handler; "" where the kind says it all.
    name: str
    #: Wall-clock time of when it began; None where that is not known.
    since_ms: int | None
    #: The last error, or the stack of what does not come back.
    detail: str
    partitions: list[int]

    @property
    def said(self) -> str:
        """It in a few words, without since when and the detail."""
        match self.kind:
            case "breaker":
                return f"breaker open for {self.name}"
            case "bound":
                return f"waits for the bound of topic {self.name}"
            case "handler":
                return f"handler {self.name} does not come back"
            case "paused":
                return "paused by an operator"
            case "no member":
                return "no process handles it"
        return self.detail


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription with its sums over all partitions."""

    name: str
    topic: str
    service: str
    created_ms: int
    #: "ok", "growing", "stalled", "rewound", "held by a key", "waits for a bound", "no member", "paused", "partly
    #: paused" or "topic gone": the worst of its partitions'.
    status: str
    #: Why it is so, in a sentence; "" where it is ok.
    reason: str
    lag_records: int
    lag_seconds: float
    overtaken: int
    held: int
    retrying: int
    blocked: int
    unserved: int
    dead_letters: int
    #: Of these, how many hold their key.
    holding: int
    next_attempt_ms: int | None
    #: How many partitions the topic has; more than the subscription reads if others added some.
    topic_partitions: int
    #: Offsets in those that it does not read.
    beyond: int
    members: list[MemberView]
    partitions: list[PartitionView]
    #: None where its topic has no priorities.
    priority: PriorityView | None = None
    #: Offsets that it settles or holds in a second, and that come in, by the looks of the last ten seconds; None before
    #: there are two.
    drained_per_second: float | None = None
    added_per_second: float | None = None
    #: When it will be at the end if both go on so; None where it won't, or nothing is known.
    drains_in_seconds: float | None = None
    #: Why its dead letters are an alarm, by what it says of them (`DeadLetterPolicy`); "" where they are none.
    dead_letters_alarm: str = ""
    #: None where its topic has no bound, or does not name it.
    bound: BoundView | None = None
    #: What stands in its way, as its processes say.
    causes: list[CauseView] = []


class EverythingView(msgspec.Struct, frozen=True, kw_only=True):
    """All topics and subscriptions at one time."""

    at_ms: int
    topics: list[TopicView]
    subscriptions: list[SubscriptionView]


class PartitionAudit(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's equation: position - start = sum of outcomes + gaps (DESIGN §6)."""

    partition: int
    #: Rises with each reset, which begins new counts.
    generation: int
    start: int
    position: int
    outcomes: dict[str, int]
    gaps: int
    #: Records below the position without an outcome: anything but 0 is a fault.
    missing: int
    #: Held entries below the position that state really has; None if it never stood still while being read.
    held_entries: int | None
    discarded_by_resets: int
    balanced: bool


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription's audit: its sums, and each partition."""

    subscription: str
    topic: str
    #: Offsets between start and position, over all partitions.
    handled: int
    outcomes: dict[str, int]
    gaps: int
    missing: int
    balanced: bool
    partitions: list[PartitionAudit]


class RecordView(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "content_type": "datacontenttype",
        "correlation_id": "correlationid",
        "causation_id": "causationid",
    },
):
    """A record as CloudEvents 1.0 JSON, with the place where it lies; a tombstone has no data."""

    topic: str
    partition: int
    offset: int
    #: When the log stored it.
    timestamp: str
    key: str | None
    specversion: str
    id: str
    source: str
    type: str
    time: str
    content_type: str = ""
    #: The schema that the data was written under, by its fingerprint: SCHEMA_URN, then hexadecimal digits.
    dataschema: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    headers: dict[str, str] = {}
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | msgspec.UnsetType = msgspec.UNSET


def record_view(
    topic: str, partition: int, record: Record, envelope: Envelope, content: Shown, fingerprint: str
) -> RecordView:
    """A record, its envelope, its content as it is shown, and its schema's fingerprint if that is known."""
    return RecordView(
        topic=topic,
        partition=partition,
        offset=record[0],
        timestamp=_iso(record[1]),
        key=key_text(record[2]),
        specversion="1.0",
        id=printable(envelope.id),
        source=printable(envelope.source),
        type=printable(record[3]),
        time=_iso(envelope.time_ms or record[1]),
        content_type=printable(envelope.content_type),
        dataschema=f"{SCHEMA_URN}{fingerprint}" if fingerprint else "",
        correlation_id=printable(envelope.correlation_id),
        causation_id=printable(envelope.causation_id),
        headers={printable(name): printable(told) for name, told in envelope.headers.items()},
        data=content.data,
        data_base64=content.data_base64,
    )


def printable(said: str) -> str:
    """What others said in an envelope; bytes that are no UTF-8 as `\\udcff`."""
    return said if said.isascii() else said.encode("utf-8", "backslashreplace").decode()


def key_text(key: bytes | None) -> str | None:
    """A key as people write it: UTF-8 text, else 0x and hexadecimal digits."""
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return "0x" + key.hex()


def key_shown(key: bytes | None, hidden: bool, known: str | None = None) -> str | None:
    """A key as it is shown: masked where it is `hidden`, unless who asks knows it."""
    text = key_text(key)
    return MASK if hidden and text is not None and text != known else text


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
