"""Lanes: the records of one key inside one subscription, handled one after another."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from postline.clock import Timer
from postline.log.port import Assignment, Membership, Record
from postline.runtime.handlers import Handler
from postline.runtime.outcomes import Outcome
from postline.runtime.plan import Plan
from postline.runtime.surroundings import Surroundings
from postline.runtime.unit import PendingUnit
from postline.runtime.window import Chunk, Window

__all__ = ["PARTITION_LANE", "UNDECODED", "Failed", "Item", "Lane", "LaneOwner", "Wait", "lane_key_of"]

#: The one lane that all records share under `order="partition"`.
PARTITION_LANE = b""

#: Stands for a message that its worker has yet to decode.
UNDECODED: Any = object()

#: A record in a lane: its chunk (None once it is held), its index there, the record, the handler
#: for its type (None while no handler is known), and the message (or UNDECODED, or a `Failed`).
Item = tuple[Chunk | None, int, Record, Handler | None, Any]


def lane_key_of(order: str, key: bytes | None) -> bytes | None:
    """The lane of a record with this key under an `order`; None for a lane of its own."""
    return key if order == "key" else PARTITION_LANE if order == "partition" else None


class Failed(NamedTuple):
    """Stands in a message's place when it could not even be given to the handler."""

    error: BaseException


class Wait(enum.Enum):
    """Why a lane's records may not run now."""

    NOTHING = enum.auto()
    #: Its head waits for its next attempt.
    DUE = enum.auto()
    #: Its head is a dead letter that holds the key.
    DEAD = enum.auto()
    #: Its head waits for a process that handles its type.
    UNSERVED = enum.auto()


class Lane:
    """Order of one key: `items` in memory run first, `parked` offsets (held in state) after them."""

    __slots__ = ("active", "attempts", "dead", "items", "key", "parked", "timer", "wait")

    def __init__(self, key: bytes | None) -> None:
        #: None for a record that is a lane of its own.
        self.key = key
        self.items: deque[Item] = deque()
        self.parked: deque[int] = deque()
        #: Dead letters that hold the key.
        self.dead: set[int] = set()
        #: Attempts that the first record has had.
        self.attempts = 0
        self.wait = Wait.NOTHING
        #: Waiting for a worker, or in the hands of one.
        self.active = False
        self.timer: Timer | None = None

    @property
    def free(self) -> bool:
        """Whether a new record may simply be added to `items`."""
        return self.wait is Wait.NOTHING and not self.parked

    @property
    def empty(self) -> bool:
        """Whether nothing of it is left to remember."""
        return not self.items and not self.parked and self.wait is Wait.NOTHING


class LaneOwner(Protocol):
    """What lanes are held for: an owned partition, as seen by the code that parks its records."""

    around: Surroundings
    plan: Plan
    assignment: Assignment
    membership: Membership
    topic: str
    partition: int
    window: Window
    unit: PendingUnit
    lanes: dict[bytes, Lane]
    halted: bool

    def enqueue(self, lane: Lane) -> None:
        """Let a worker take the lane, unless one has it already."""

    def settle(self, item: Item, outcome: Outcome) -> None:
        """The record ended; its outcome goes into the next commit."""

    def vanished(self, offset: int) -> None:
        """A held record is not in the log any more."""

    def retire(self, lane: Lane) -> None:
        """Forget the lane if nothing of it is left."""

    async def read_entry(self, namespace: str, key: bytes) -> bytes | None:
        """A state entry as this owner last wrote it, committed or not."""

    async def prepare(self, records: Sequence[Record]) -> None:
        """Read the keyed state that these records' handlers may ask for."""

    def pause(self, reason: str) -> None:
        """Fetch no more of this partition for now."""

    def resume(self, reason: str) -> None:
        """Withdraw one reason to pause."""

    def paused_for(self, reason: str) -> bool:
        """Whether this reason to pause is in force."""
