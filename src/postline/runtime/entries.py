"""The entries that the runtime keeps in partition state, by namespace, and their bytes."""

from __future__ import annotations

import functools
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from postline.errors import LogVersionError
from postline.log.port import Assignment, Membership

__all__ = [
    "ANSWERED",
    "CANCELLED",
    "CONTROL",
    "DEAD",
    "DEDUP",
    "DEDUP_ORDER",
    "EARLY",
    "EDITS",
    "FORMATS",
    "HELD",
    "HISTORY",
    "JOINED",
    "LATER",
    "OFFSET_BYTES",
    "PRIORITY",
    "PRIORITY_KEY",
    "REPLAY",
    "REPLAY_KEY",
    "SCHEDULES",
    "TIMERS",
    "TIMER_NOTES",
    "TYPES",
    "UNIQUE",
    "USER_STATE",
    "DeadEntry",
    "EditEntry",
    "HeldEntry",
    "PriorityEntry",
    "TimerEntry",
    "UniqueEntry",
    "decode_entry",
    "encode_entry",
    "entries_of",
    "is_stretch",
    "keys_of",
    "never_redriven",
    "offset_key",
    "offset_keys",
    "offset_of",
    "offsets_of",
    "pages_of",
    "redrives_of",
]

HELD = "held"
DEAD = "dead"
#: By offset, what is handled in place of the record's own value.
EDITS = "edits"
DEDUP = "dedup"
DEDUP_ORDER = "dedup-order"
TYPES = "types"
CONTROL = "control"
USER_STATE = "state"
#: What happens at a time, by due time; and by token what must be known of it besides.
TIMERS, TIMER_NOTES = "timers", "timer-notes"
#: By name, the periodic schedules that the partition owns, and when they run next.
SCHEDULES = "schedules"
#: Commands that were cancelled and have not come yet; later replies that are owed; dead letters that have a reply.
CANCELLED, LATER, ANSWERED = "cancelled", "later", "answered"
#: Which of equal calls is under way; the others, which wait for its outcome.
UNIQUE, JOINED = "unique", "joined"
#: Later replies that came before the attempt which promised them had ended.
EARLY = "early"

#: Which priority of which declaration the subscription is, for whoever looks on.
PRIORITY, PRIORITY_KEY = "priority", b"priority"

#: What a shadow was asked to replay, for whoever goes on with it.
REPLAY, REPLAY_KEY = "replay", b"asked"

#: Samples of how the partition stood, for operators.
HISTORY = "history"

#: The highest version of each namespace that this code reads, told to the group when joining.
FORMATS = {HELD: 1, DEAD: 1, DEDUP: 1, DEDUP_ORDER: 1, TYPES: 1, CONTROL: 1, USER_STATE: 1}
FORMATS |= dict.fromkeys((CANCELLED, LATER, ANSWERED, TIMERS, TIMER_NOTES, SCHEDULES), 1)
FORMATS |= {PRIORITY: 1, UNIQUE: 1, JOINED: 1, EARLY: 1, EDITS: 1, HISTORY: 1, REPLAY: 1}


class PriorityEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The priority whose records a subscription reads, and the share that it is guaranteed of what all handle."""

    #: The name that it was declared under, together with those of the other priorities.
    declared_as: str
    name: str
    #: 0 is the highest.
    rank: int
    share: float
    format: int = 1


#: An open breaker, a topic that is over its bound, or a handler that doesn't come back.


class HeldEntry(msgspec.Struct, array_like=True, gc=False):
    """A record that waits: for its next attempt, for a handler, or behind another of its key."""

    #: None for a record that is a lane of its own.
    lane_key: bytes | None
    #: Attempts so far; 0 for one that waits behind another.
    attempts: int = 0
    #: Wall-clock milliseconds of the next attempt; 0 if it isn't waiting for a time.
    due_ms: int = 0
    #: Waiting for a process that has a handler of its type.
    unserved: bool = False
    size: int = 0
    error: str = ""
    format: int = 1
    #: How long it was to wait when it was put off; 0 in entries written before this was kept.
    delay_ms: int = 0
    #: How often it was redriven, and the last redrive's name.
    redrives: int = 0
    run: str = ""


class DeadEntry(msgspec.Struct, array_like=True, gc=False):
    """A record given up, as `dlq list` shows it; the full copy lies on the dead-letters topic."""

    lane_key: bytes | None
    key: bytes | None
    type: str
    error_type: str
    error: str
    attempts: int
    failed_ms: int
    #: Later records of the key wait until it is redriven or discarded.
    holds: bool
    format: int = 1
    #: Where it failed, and the group of all that failed alike; "" in entries written before these were kept.
    place: str = ""
    group: str = ""
    #: Bytes of the value.
    size: int = 0
    #: How often it was redriven before it failed again, and the last redrive's name.
    redrives: int = 0
    run: str = ""


class EditEntry(msgspec.Struct, array_like=True, gc=False):
    """What stands for a record's value until it ends."""

    value: bytes
    #: The id of the schema that it is written under, where a record's flags have it.
    schema_id: int
    by: str
    reason: str
    edited_ms: int
    format: int = 1


class TimerEntry(msgspec.Struct, array_like=True, gc=False):
    """Something that happens at a time."""

    #: Wall-clock milliseconds.
    due_ms: int
    #: Names it among the timers of its partition, together with the time.
    token: str
    #: Who is called when it is due; as registered under `Plan.timers`.
    kind: str
    payload: bytes
    #: The key whose partition it belongs to; None for one that stays where it is.
    home: bytes | None = None
    #: How long it was to wait when it was set; 0 where a time was asked for.
    delay_ms: int = 0
    #: Those of one due time fire in this order.
    order: int = 0
    #: Its place is noted by token, since whoever cancels it may not know it.
    noted: bool = False
    format: int = 1


class UniqueEntry(msgspec.Struct, array_like=True, gc=False):
    """The one of equal calls that is under way, or that was until its outcome."""

    offset: int
    client: str
    request: str
    #: How it ended, as a packed reply; empty while it is under way.
    outcome: bytes = b""
    #: Equal calls below this offset get that outcome, too.
    horizon: int = 0
    format: int = 1


Entry = TypeVar("Entry", HeldEntry, DeadEntry, TimerEntry, PriorityEntry, UniqueEntry, EditEntry)


class _Versioned(Protocol):
    format: int


_ENCODER = msgspec.msgpack.Encoder()
_OFFSET = struct.Struct(">Q")
#: How a `DeadEntry` ends that no redrive has taken yet: `redrives` and `run`, its last fields.
_NEVER_REDRIVEN = _ENCODER.encode(0) + _ENCODER.encode("")
#: Fewer are looked up one by one, however close together they lie.
_STRETCH_MIN = 16
#: What `offset_key` takes.
OFFSET_BYTES = _OFFSET.size


def encode_entry(
    entry: HeldEntry | DeadEntry | TimerEntry | PriorityEntry | UniqueEntry | EditEntry,
) -> bytes:
    """The bytes of one entry."""
    return _ENCODER.encode(entry)


def decode_entry(data: bytes, kind: type[Entry]) -> Entry:
    """The entry that `data` holds; one of a newer format is refused rather than misread."""
    entry: Entry = _decoder(kind).decode(data)
    if entry.format > 1:
        raise LogVersionError(
            f"A {kind.__name__} in partition state has format {entry.format}, this version reads 1.",
            remedy="Run the newer version of Postline that wrote it.",
        )
    return entry


@functools.cache
def _decoder(kind: type[Any]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def offset_key(offset: int) -> bytes:
    """Eight bytes, big-endian, so that state entries sort by offset."""
    return _OFFSET.pack(offset)


def offset_keys(offsets: Sequence[int]) -> list[bytes]:
    """The keys of many offsets."""
    packed = struct.pack(f">{len(offsets)}Q", *offsets)
    return [packed[at : at + OFFSET_BYTES] for at in range(0, len(packed), OFFSET_BYTES)]


def offset_of(key: bytes) -> int:
    """The offset that `offset_key` wrote."""
    offset: int = _OFFSET.unpack(key)[0]
    return offset


class _Owner(Protocol):
    assignment: Assignment
    membership: Membership


def offsets_of(keys: Sequence[bytes]) -> tuple[int, ...]:
    """The offsets that `offset_key` wrote."""
    return struct.unpack(f">{len(keys)}Q", b"".join(keys))


def is_stretch(first: int, last: int, number: int) -> bool:
    """Whether so many offsets, from a first to a last, are many and lie close together."""
    return number >= _STRETCH_MIN and last - first < 2 * number


def redrives_of(letter: bytes) -> tuple[int, str]:
    """As the bytes of a `DeadEntry` have it: how often it was redriven, and the last redrive's name.

    Most never were, which their last bytes tell; so do those of 256 redrives without a name, which are counted anew.
    """
    if letter.endswith(_NEVER_REDRIVEN):
        return (0, "")
    dead = decode_entry(letter, DeadEntry)
    return (dead.redrives, dead.run)


def never_redriven(letters: Iterable[bytes]) -> bool:
    """Whether `redrives_of` says of all of them that they never were."""
    return all([letter.endswith(_NEVER_REDRIVEN) for letter in letters])  # noqa: C419 - a list is twice as fast


async def pages_of(owned: _Owner, namespace: str, after: bytes = b"") -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """A namespace's committed entries with keys above `after`, page by page, in key order. Raises LogUnavailable."""
    while page := await owned.membership.scan_state(owned.assignment, namespace, after):
        yield page
        after = page[-1][0]


async def entries_of(owned: _Owner, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """The committed entries among these keys of offsets, in order. Raises LogUnavailable.

    Those that lie close together are read as a stretch, which costs less than to look each up.
    """
    first, last = (offset_of(keys[0]), offset_of(keys[-1])) if keys else (0, 0)
    span = last - first + 1
    if not is_stretch(first, last, len(keys)):
        return await owned.membership.get_state(owned.assignment, namespace, keys)
    before = offset_key(first - 1) if first else b""
    found = dict(await owned.membership.scan_state(owned.assignment, namespace, before, span))
    return found if len(found) == len(keys) == span else {key: found[key] for key in keys if key in found}


async def keys_of(owned: _Owner, namespace: str) -> list[bytes]:
    """The keys of a namespace's committed entries, in order. Raises LogUnavailable."""
    return [key async for page in pages_of(owned, namespace) for key, _ in page]
