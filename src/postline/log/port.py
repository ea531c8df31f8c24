"""The log port: what every engine offers, and the commit unit that all guarantees rest on (DESIGN §5.1).

Vocabulary: a *topic* is cut into *partitions*; a *subscription* has, for each partition, a
*position* (lowest offset neither settled nor held), a small *progress* value (audit counts and
what is done ahead; opaque here) and a keyed *partition state*. A *membership* is one process's
place in a subscription's group; an *assignment* is its ownership of one partition, fenced by
*epoch*.

Concurrency: all coroutines run on one event loop. Methods that say "durable" return after the
engine would survive a power cut. Calls that overlap have no order among them, neither two appends
nor an append and a commit: whoever needs one awaits the first before the second. Within one call,
records of a partition keep their order.

Failing: every method may raise LogUnavailable, which is retryable; of one that reads (`fetch`,
`get_state` and `scan_state` too) nothing has happened then and it can be asked again. A commit
that raises has stored nothing. An append that raises LogUnavailable has an unknown outcome, and so
has an append or a commit that is cancelled: stored wholly, now or later, or not at all.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from postline.errors import SubscriptionConflict
from postline.log.needs import Change, Need, Placer, Repartitioning, TopicSpec
from postline.message import Envelope

__all__ = [
    "EMPTY_TYPE",
    "FLAG_OWN_ID",
    "FLAG_STRUCTURED",
    "GAP_TYPE",
    "PINNING_NAMESPACES",
    "REVOKE_SECONDS",
    "SCHEMA_ID_SHIFT",
    "UNREADABLE_TYPE",
    "Append",
    "Assignment",
    "Bounds",
    "Capability",
    "CommitUnit",
    "Fetched",
    "Group",
    "GroupSpec",
    "Log",
    "MemberInfo",
    "Membership",
    "PartitionCommit",
    "PartitionInfo",
    "PartitionOwner",
    "Place",
    "Record",
    "StartAt",
    "SubscriptionInfo",
    "Survey",
    "Tail",
    "TopicSpec",
    "renamed",
]

#: A stored record, a plain tuple because a batch makes a thousand of them:
#: (offset, timestamp_ms, key, type, value, flags, packed).
#: `type` is "" where a foreign record names none, `value` is None for a tombstone, `flags` are
#: the FLAG_… bits below the writer's schema id, and `packed` is the envelope in the engine's own form: `Log.envelope`
#: opens it.
Record: TypeAlias = tuple[int, int, bytes | None, str, bytes | None, int, Any]

EMPTY_TYPE = ""


class Place(NamedTuple):
    """Where a record stands, or would."""

    topic: str
    partition: int
    offset: int


#: In place of the type of a foreign record whose envelope can't be read: no wire name has a slash.
UNREADABLE_TYPE = "application/cloudevents"

#: The type of a record without key and value that only takes an offset, so that those behind it have theirs; engines
#: that need such records never give them out.
GAP_TYPE = "postline.gap"

#: The publisher chose the message's id itself, so every subscription drops its duplicates.
FLAG_OWN_ID = 1

#: The value goes out as a whole CloudEvent, by engines that other programs read from; it comes back as it was given.
FLAG_STRUCTURED = 2

#: `flags >> SCHEMA_ID_SHIFT` is the id of the schema that the value was written under; 0 if the record names none. A
#: foreign record may name its schema by a GUID alone: then it is the number that `frame.guid_behind` understands, of
#: more than 64 bits. Such flags are read, and never go into a file.
SCHEMA_ID_SHIFT = 8

#: State namespaces whose keys are 8-byte big-endian offsets of the subscribed topic. The records
#: they name stay readable by `Log.read_offsets`, whatever retention and compaction say.
PINNING_NAMESPACES = ("held", "dead")

#: How long `PartitionOwner.revoked` may take before it is cancelled and the partitions go without it.
REVOKE_SECONDS = 2.5


class Capability(enum.Enum):
    """A promise that an engine may be unable to keep; asked for at start-up, never assumed."""

    #: Several processes can work on one log at once.
    MANY_PROCESSES = "several processes on one log"
    #: What was acknowledged survives the end of the process.
    DURABLE = "records that outlive the process"
    #: Retention by size is exact to the record rather than to a segment.
    EXACT_RETENTION = "retention exact to the record"
    #: Topics that are missing may be made when a service starts; else operators make them.
    CREATES_TOPICS = "topics made when a service starts"
    #: A topic's partitions can become more, with the state of its subscriptions.
    REPARTITIONS = "partitions added to a topic in place"
    #: How many bytes records take can be told for a span of offsets.
    SIZES = "the size of a span of records"


class Bounds(msgspec.Struct, frozen=True):
    """Offsets of one partition: the first that may still be there, and the next to be given."""

    start: int
    end: int


class Append(msgspec.Struct, gc=False):
    """A record to be stored; the engine gives it its offset and timestamp."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    envelope: Envelope
    flags: int = 0


class StartAt(msgspec.Struct, frozen=True):
    """Where a new subscription begins: "earliest", "latest", or "time" with `time_ms`."""

    kind: str
    time_ms: int = 0


class GroupSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says when it joins a subscription's group."""

    subscription: str
    topic: str
    service: str
    start: StartAt
    #: Former names; the first that exists is renamed if the new name does not exist yet. The log
    #: remembers names that were given up, and refuses whoever joins under one (see `Log.join`).
    aliases: tuple[str, ...] = ()
    #: The service that the subscription may belong to until this one joins; from then on only this one may join it,
    #: while members that are there go on.
    takes_over: str = ""
    #: Shown to operators: host, process id.
    instance: str = ""
    #: Highest version of each state namespace that this process can read.
    formats: dict[str, int] = {}


class Assignment(msgspec.Struct, frozen=True):
    """One partition owned under one epoch, with what was last committed for it."""

    subscription: str
    topic: str
    partition: int
    epoch: int
    #: Lowest offset neither settled nor held at the time of assignment.
    position: int
    #: The runtime's progress value as last committed; b"" at the first assignment ever.
    progress: bytes
    #: Where another program moved the position while nobody owned the partition; the owner resets it to there.
    reset_to: int | None = None


class Fetched(msgspec.Struct):
    """Records of one partition in offset order, all of them read under `assignment`."""

    assignment: Assignment
    #: The subscribed topic, or a sibling that `follow` asked for.
    topic: str
    #: Empty if there was nothing but a gap, up to `next_offset`.
    records: list[Record]
    #: The offset to go on from: past the last record and past gaps behind it.
    next_offset: int
    #: The first offset that retention has left; positions below it were overtaken.
    log_start: int


class PartitionCommit(msgspec.Struct):
    """Everything that one owned partition commits at once."""

    assignment: Assignment
    position: int
    progress: bytes
    #: Namespaces emptied before puts and deletes apply.
    clears: list[str] = []
    #: (namespace, key, value); of several puts of one entry the last one counts.
    puts: list[tuple[str, bytes, bytes]] = []
    #: (namespace, key); an entry is in `puts` or in `deletes`, never in both.
    deletes: list[tuple[str, bytes]] = []
    appends: list[Append] = []


#: Several partitions of one membership, each with its own fence, in one atomic step.
CommitUnit: TypeAlias = list[PartitionCommit]


class SubscriptionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as the log knows it."""

    name: str
    topic: str
    service: str
    created_ms: int


class PartitionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of a subscription as last committed; `owner` is "" when nobody has it."""

    partition: int
    position: int
    progress: bytes
    epoch: int
    owner: str = ""


class MemberInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One live member of a subscription's group."""

    member: str
    instance: str
    joined_ms: int
    formats: dict[str, int] = {}


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription with its live members and its partitions as last committed."""

    info: SubscriptionInfo
    members: list[MemberInfo]
    partitions: list[PartitionInfo]


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a reading model needs to know of a log, read at once."""

    topics: list[TopicSpec]
    #: First and next offset of each partition, by topic.
    bounds: dict[str, list[Bounds]]
    #: By name. What one reads may be gone by now: then `topics` and `bounds` don't have it.
    groups: list[Group]


class PartitionOwner(Protocol):
    """What a membership calls when partitions come and go (the runtime implements it).

    `assigned` and `revoked` are called one after another, never at the same time; `lost` at any
    time, also while one of them runs. A retryable LogError out of `assigned` is followed by `lost`
    and, later, by the same partitions under new epochs; any other error comes out of `fetch`.
    """

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Begin with these; nothing of them is fetched before this returns."""

    async def revoked(self, assignments: Sequence[Assignment]) -> None:
        """Settle and commit what is in hand, then let go; commits still pass meanwhile.

        It has REVOKE_SECONDS; then it is cancelled, and `lost` follows for what it still had.
        """

    def lost(self, assignments: Sequence[Assignment]) -> None:
        """Drop these at once: they have a newer owner, or will, and commits for them will be refused."""


class Membership(Protocol):
    """One process's place in a subscription's group."""

    async def fetch(self, max_records: int, max_bytes: int, wait_seconds: float) -> list[Fetched]:
        """Records of owned, unpaused partitions, fairly among them; [] after `wait_seconds`.

        Each partition goes on where the last fetch of it ended. At least one record is given
        however large it is. Returns early with [] when `wake` is called or the assignment
        changes. Safe to cancel: nothing is skipped.
        """

    def wake(self) -> None:
        """Make a waiting `fetch` return now; if none is waiting, the next one does not wait."""

    def pause(self, assignment: Assignment) -> None:
        """Fetch nothing more of the subscribed topic for this partition; siblings go on."""

    def resume(self, assignment: Assignment) -> None:
        """Undo `pause`."""

    def seek(self, assignment: Assignment, offset: int) -> None:
        """Go on from `offset` of the subscribed topic at the next fetch."""

    def follow(self, assignment: Assignment, topic: str, offset: int) -> None:
        """Fetch the same partition of a sibling topic too, from `offset`."""

    async def get_state(self, assignment: Assignment, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The committed entries among `keys`; absent ones are left out."""

    async def scan_state(
        self, assignment: Assignment, namespace: str, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Committed entries with keys above `after`, in key order."""

    async def commit(self, unit: CommitUnit) -> list[Assignment]:
        """Commit all partitions of the unit atomically and durably.

        Returns the assignments that were refused because their epoch is over; nothing of those
        is stored, everything of the others is. `lost` is called for them once, before this returns
        or after it. Raises LogFull or LogUnavailable with nothing stored. Calls of one membership
        are made one after another; a cancelled one never takes effect after a later one has.
        """

    async def leave(self) -> None:
        """Give up what is owned (after `revoked`) and leave the group; idempotent."""


class Tail(Protocol):
    """One partition read on and on, outside any group. For one reader, on the event loop; ends with its log."""

    async def read(self, *, limit: int, max_bytes: int, wait_seconds: float) -> list[Record]:
        """The records after those that were given before, in order, as soon as there are any, but after `wait_seconds`.

        At most `limit`, at least one if there is any. What retention took meanwhile is passed. Cancelled, it has given
        nothing. Raises LogError, after which it can be called again if that is retryable.
        """

    async def close(self) -> None:
        """Read no more. Idempotent."""


class Log(Protocol):
    """A durable partitioned log. One per process and event loop; not thread-safe."""

    #: What this engine promises.
    capabilities: frozenset[Capability]
    #: Shown to people: the file's path or the cluster's address, without secrets.
    address: str

    async def start(self) -> None:
        """Open it, checking and migrating what is there. Idempotent."""

    async def close(self) -> None:
        """Finish what was accepted and let go of everything. Idempotent."""

    async def require_standing(self) -> None:
        """Raise LogMoved if a migration has taken its content elsewhere, or is at it, or is filling it.

        Such a log can be read, but nothing is to be started on it.
        """

    def envelope(self, record: Record) -> Envelope:
        """The record's envelope, equal to what was appended; cheap, synchronous.

        Raises DecodeError, and nothing else, if what is stored is no envelope; the record's other fields
        stand all the same.
        """

    async def create_topic(self, spec: TopicSpec) -> TopicSpec:
        """Create the topic unless it exists; gives back what the log has, equal or not."""

    async def alter_topic(self, spec: TopicSpec) -> None:
        """Change retention, compaction and times; raises TopicMismatch for other partitions."""

    async def topics(self) -> list[TopicSpec]:
        """All topics, by name."""

    async def plan(self, need: Need) -> list[Change]:
        """What has to change so that these apps can run; changes nothing. [] if all is as they need it."""

    async def apply(self, changes: Sequence[Change]) -> None:
        """Make these changes, as `plan` gave them; done again it changes nothing.

        Raises UnknownTopic or TopicMismatch, with nothing changed, if one of them can't be made by applying.
        """

    async def repartition(self, wanted: Repartitioning, place: Placer) -> None:
        """Give the topic, and its subscriptions' own topics, other partitions, and their state its places there.

        One that is interrupted, or raises LogUnavailable, is gone on with by calling again, and taken back by calling
        with the number of before; nobody joins the subscriptions meanwhile. Raises UsageError, with positions and
        state as before, if somebody publishes or works for them; MissingCapability where an engine can't.
        """

    async def append(self, records: Sequence[Append]) -> list[int]:
        """Store all of them, or none, durably; gives their offsets, in order.

        Concurrent calls share commits, in any order. Raises UnknownTopic or LogFull with nothing
        stored; after LogUnavailable the outcome is unknown, and a record may even be stored later.
        """

    async def bounds(self, topic: str, *, stable: bool = False) -> list[Bounds]:
        """First and next offset of each partition; with `stable` the ends before what is stored and not shown yet.

        Raises UnknownTopic.
        More than `TopicSpec.partitions` says are there if somebody else added some, which nobody reads.
        """

    async def read(
        self, topic: str, partition: int, offset: int, *, limit: int = 1000, max_bytes: int = 1 << 20
    ) -> list[Record]:
        """Records from `offset` on, in order, at most `limit`, at least one if there is any."""

    async def read_first(self, places: Sequence[Place]) -> list[Record | None]:
        """The first record at or above each of these places, as `read` tells it; None where none follows.

        For many partitions at once: a broker answers for all of its own together.
        """

    async def read_offsets(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """The records at exactly these offsets that are still there, in offset order."""

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset with a timestamp of `time_ms` or later, else the end."""

    async def size_between(self, topic: str, partition: int, start: int, end: int) -> int:
        """Bytes of keys, values and envelopes from offset `start` to before `end`, of those records that are there.

        Raises MissingCapability where an engine can't tell.
        """

    async def wait_for_appends(self, topic: str, wait_seconds: float) -> None:
        """Return when something may have been appended to the topic, or after `wait_seconds`."""

    def tail(self, topic: str, partition: int, offset: int) -> Tail:
        """The partition from `offset` on, as it grows, for whoever wants each record at once. Close it.

        Raises UnknownTopic, here or at the first read.
        """

    async def join(self, spec: GroupSpec, owner: PartitionOwner) -> Membership:
        """Join a subscription's group, creating the subscription if it is new.

        Returns before the owner's first `assigned` is called. Raises UnknownTopic, TopicMismatch where the topic is
        another one under the name of that which the subscription read, and SubscriptionConflict if another service
        or topic has the name, or if it is one that a subscription had before it was renamed: an older version that
        comes late must not begin again from the start. A rename back, and removing the renamed subscription, free
        the name.
        """

    async def subscriptions(self) -> list[SubscriptionInfo]:
        """All subscriptions, by name."""

    async def partitions(self, subscription: str) -> list[PartitionInfo]:
        """Each partition as last committed. Raises UnknownSubscription."""

    async def members(self, subscription: str) -> list[MemberInfo]:
        """Its live members. Raises UnknownSubscription."""

    async def survey(self, names: Collection[str] | None = None) -> Survey:
        """All topics with their bounds, and all subscriptions with members and partitions, by name.

        With `names` only these subscriptions, as far as there are such, and the topics that they read. It asks in as
        few steps as the engine can: for views that are asked for every second.
        """

    async def peek_state(
        self, subscription: str, partition: int, namespace: str, *, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Committed state entries above `after`, in key order, for operators' views."""

    async def remove_subscription(self, subscription: str) -> None:
        """Forget positions and state. Raises UnknownSubscription; UsageError while members live."""


def still_served(name: str, wanted: str) -> SubscriptionConflict:
    """The refusal to rename a subscription whose members live; the same from every engine.

    They follow the control and dead-letters topics of the old name, so that operators would not reach them.
    """
    return SubscriptionConflict(
        f"Subscription {name!r} can't be renamed to {wanted!r} while workers serve it under its old name.",
        remedy="Stop them first; nothing is lost meanwhile, since the position stays.",
    )


def renamed(name: str, now: str) -> SubscriptionConflict:
    """The refusal of a name that a subscription had before; the same from every engine."""
    return SubscriptionConflict(
        f"Subscription {name!r} was renamed to {now!r}.",
        remedy=f"Run the version that serves {now!r} here too; to go back, declare aliases=({now!r},); to begin anew"
        f" under the old name, `postline subscriptions remove {now}` first.",
    )
