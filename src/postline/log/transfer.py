"""What an engine offers so that a whole log can move to another one: everything as it lies, offsets included.

A *mark* says what a migration is doing with a log; see docs/decisions/0016-migration.md for who writes which when.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from postline.errors import LogMoved, UsageError
from postline.log.needs import TopicSpec
from postline.log.port import Bounds, Log, Record
from postline.message import Envelope

__all__ = [
    "Batch",
    "Mark",
    "MovableLog",
    "MovedPartition",
    "MovedSubscription",
    "Phase",
    "StateRow",
    "Transfer",
    "Verified",
    "already_migrating",
    "differs",
    "moved",
]


class Phase(enum.Enum):
    """What a log's mark says of it."""

    #: It is being filled from another log: nobody works on it yet.
    FILLING = "filling"
    #: It has everything; whoever finds this goes on as if there were no mark.
    FILLED = "filled"
    #: It is frozen while the rest of it is taken over.
    MOVING = "moving"
    #: It is frozen for good: the other log has everything.
    MOVED = "moved"


class Verified(msgspec.Struct, frozen=True, array_like=True):
    """How far a partition of the target was compared with the source, and what was found there."""

    #: The first offset that was not.
    offset: int
    records: int
    #: Sum of the blocks' digests, as hexadecimal digits.
    digest: str


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a migration has written on a log about itself."""

    phase: Phase
    #: The same on both logs.
    id: str
    #: Address of the log at the other end.
    other: str
    since_ms: int
    #: By topic, for each partition.
    verified: dict[str, list[Verified]] = {}


class MovedPartition(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of a subscription, but for its state."""

    position: int
    progress: bytes
    epoch: int


class MovedSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription with everything that a log keeps of it, but for its state."""

    name: str
    topic: str
    service: str
    created_ms: int
    #: Names that it had before, oldest first.
    former: list[str]
    partitions: list[MovedPartition]


#: An entry of partition state: namespace, key, value.
StateRow = tuple[str, bytes, bytes]


class Batch(msgspec.Struct):
    """Records of one partition on their way, in offset order."""

    topic: str
    partition: int
    #: Where the target's partition has to end before they are written.
    first: int
    #: Where it ends afterwards: past the last record, and past gaps behind it.
    end: int
    records: Sequence[Record]
    #: The form in which the records' envelopes are packed (`Transfer.form`), and how they are opened.
    form: str
    envelope: Callable[[Record], Envelope]


class Transfer(Protocol):
    """A log as a migration sees it. Coroutines run on the log's own event loop; they raise LogError."""

    #: What records' envelopes are packed as: records of one form pass between logs unopened.
    form: str
    address: str

    # -- at both ends ---------------------------------------------------------------------------

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Keep other migrations from this log meanwhile. Raises UsageError if there is one at work."""

    async def mark(self) -> Mark | None:
        """What a migration has written on the log."""

    async def set_mark(self, mark: Mark | None) -> None:
        """Write it, durably, or remove it."""

    async def topics(self) -> list[TopicSpec]:
        """The topics that move, by name: all but the engine's own, and those of other programs."""

    async def bounds(self, topic: str) -> list[Bounds]:
        """First and next offset of each partition, as far as readers get: nothing before the end can still appear."""

    def records(self, topic: str, partition: int, start: int, end: int) -> AsyncIterator[list[Record]]:
        """All records from offset `start` to before `end`, in order, a page at a time; no page is empty."""

    def envelope(self, record: Record) -> Envelope:
        """The envelope of one of these records. Raises DecodeError."""

    async def subscriptions(self) -> list[MovedSubscription]:
        """All subscriptions, by name, as last committed."""

    def state(self, subscription: MovedSubscription, partition: int) -> AsyncIterator[list[StateRow]]:
        """All entries of a partition's state but the engine's own, in an order that is the same on every engine."""

    # -- at the source --------------------------------------------------------------------------

    async def freeze(self, mark: Mark) -> None:
        """Refuse everything that would change the log's content, whoever asks, and write the mark with it.

        Raises UsageError, with nothing changed, while a subscription has live members. Done again it changes nothing.
        """

    async def thaw(self) -> None:
        """Take `freeze` and its mark back; nothing happens if the log isn't frozen."""

    # -- at the target --------------------------------------------------------------------------

    async def prepare(self, specs: Sequence[TopicSpec]) -> None:
        """Have these topics, without retention and compaction for now. One that is there is taken if it is empty.

        Raises TopicMismatch for other partitions or another key.
        """

    async def begin(self, topic: str, partition: int, start: int) -> None:
        """Have an empty partition begin at this offset; nothing happens to one that is not empty."""

    async def restore(self, batch: Batch) -> None:
        """Write the records, durably, at exactly their offsets. Raises TopicMismatch where others have written."""

    async def trim(self, topic: str, partition: int, start: int) -> None:
        """Drop the records before this offset."""

    async def settle(self, spec: TopicSpec) -> None:
        """Give the topic its own retention and compaction."""

    async def restore_state(self, subscription: MovedSubscription, partition: int, rows: Sequence[StateRow]) -> None:
        """Write entries of state; those that are there stay."""

    async def restore_spared(self, subscription: MovedSubscription, partition: int, batch: Batch) -> None:
        """Keep these held or dead-lettered records readable, whatever retention and compaction have done or will do."""

    async def clear_subscription(self, subscription: MovedSubscription) -> None:
        """Have the subscription with no position and no state, whatever an earlier attempt left."""

    async def restore_subscription(self, subscription: MovedSubscription) -> None:
        """Give the subscription its positions; its state is there by now."""

    async def discard(self, topics: Sequence[str], subscriptions: Sequence[str]) -> None:
        """Remove these topics and subscriptions with all they have; what isn't there is passed over."""


class MovableLog(Log, Protocol):
    """A log that a migration can take from, or fill."""

    def transfer(self) -> Transfer:
        """The log as a migration sees it."""


def moved(mark: Mark, address: str) -> LogMoved:
    """The refusal of whoever would work on a log with this mark."""
    if mark.phase is Phase.MOVED:
        return LogMoved(
            f"The log {address} has moved to {mark.other}.",
            remedy=f"Set POSTLINE_URL={mark.other}; `postline migrate {address} {mark.other} --abandon --force` opens"
            " the old one again.",
        )
    if mark.phase is Phase.MOVING:
        return LogMoved(
            f"The log {address} is being moved to {mark.other} and takes nothing meanwhile.",
            remedy=f"Wait for it and use {mark.other} then; if it was interrupted, the same `postline migrate` goes on"
            " with it, and with --abandon takes it back.",
        )
    return LogMoved(
        f"The log {address} is being filled from {mark.other}, which has not ended.",
        remedy=f"Work on {mark.other} until `postline migrate {mark.other} {address} --cut-over` has ended.",
    )


def already_migrating(address: str) -> UsageError:
    """The refusal of a second migration."""
    return UsageError(
        f"Another migration is at work on {address}.", remedy="Wait for it to end; one that was killed is gone soon."
    )


def differs(topic: str, partition: int, expected: int, there: int) -> str:
    """What to say of a target's partition that somebody else has written to."""
    return (
        f"Topic {topic!r} partition {partition} of the target ends at offset {there}, not at {expected}: something else"
        " has written to it."
    )
