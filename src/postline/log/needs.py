"""What apps need of a log, as data: topics, subscriptions' own topics, rights; and what has to change for it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import msgspec

__all__ = [
    "Change",
    "ChangeKind",
    "Detail",
    "Need",
    "Placer",
    "Repartitioning",
    "StateEntry",
    "SubscriptionNeed",
    "TopicSpec",
]


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as the log keeps it. Sizes are for each partition, times in milliseconds."""

    name: str
    partitions: int
    #: The service that owns it; only its app creates or changes it.
    owner: str
    #: The declared key, as text; "" for keyless. Compared at start, not interpreted.
    key: str = ""
    retention_ms: int | None = None
    retention_bytes: int | None = None
    compacted: bool = False
    #: How long a compacted topic keeps a tombstone.
    tombstone_ms: int = 86_400_000
    #: How long a compacted topic keeps every version before older ones go.
    compact_after_ms: int = 0
    #: The largest value that the log takes there, if somebody has set a limit below what contracts may ask for.
    message_bytes_max: int | None = None


class SubscriptionNeed(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription that shall be served, and the topics of its own beside the one it reads."""

    name: str
    topic: str
    service: str
    aliases: tuple[str, ...] = ()
    #: Co-partitioned with the topic that is read, whatever their `partitions` say.
    own: tuple[TopicSpec, ...] = ()
    #: Of these, the ones that its members read, too.
    followed: frozenset[str] = frozenset()


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that some apps need of a log."""

    #: The services that ask: topics of theirs may be created and altered, others only looked at.
    services: frozenset[str]
    #: Topics with a contract, their own and others'.
    topics: tuple[TopicSpec, ...] = ()
    #: Topics that belong to nobody: made by whoever comes first, read and written by all.
    shared: tuple[TopicSpec, ...] = ()
    #: Topics that are read as the log has them.
    foreign: tuple[str, ...] = ()
    subscriptions: tuple[SubscriptionNeed, ...] = ()
    #: Topics that are published to.
    publishes: frozenset[str] = frozenset()
    #: Topics that are read outside any subscription.
    follows: frozenset[str] = frozenset()
    #: Control topics of subscriptions, perhaps others', that something is asked on.
    asks: frozenset[str] = frozenset()
    #: Who the apps are to the cluster, "User:shop": its rights are planned, too.
    principal: str = ""


class ChangeKind(enum.Enum):
    """What a change is: the first three can be applied."""

    CREATE = "create"
    ALTER = "alter"
    ACL = "acl"
    #: It isn't there, and whoever asks may not create it.
    MISSING = "missing"
    #: It differs in a way that can't be altered.
    MISMATCH = "mismatch"
    #: Nothing to do, but something to know.
    WARNING = "warning"


class Detail(msgspec.Struct, frozen=True):
    """One setting, as text; "" for none."""

    name: str
    before: str
    after: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between what is needed and what is there."""

    kind: ChangeKind
    #: The topic, or what a right is on ("group billing").
    name: str
    details: tuple[Detail, ...] = ()
    #: What is the matter and what to do, in a sentence; "" where the details say it.
    said: str = ""
    #: Whether apps refuse to start before it is done.
    binding: bool = True
    #: The topic as it shall be declared.
    topic: TopicSpec | None = None

    @property
    def open(self) -> bool:
        """Whether there is something to do about it."""
        return self.kind is not ChangeKind.WARNING

    def __str__(self) -> str:
        told = [f"{each.name} {each.before} → {each.after}" if each.before else each.name for each in self.details]
        if self.kind is ChangeKind.ALTER:
            return f"{self.name} differs: {', '.join(told)}"
        return f"{self.name}: {self.said}" if self.said else f"{self.name} is missing"


class StateEntry(msgspec.Struct, frozen=True):
    """An entry of partition state, and the partition that it lies in or belongs to."""

    partition: int
    namespace: str
    key: bytes
    value: bytes


#: Where an entry belongs among so many partitions: itself if it may stay, and what others shall have of it unless they
#: have it already. Asked about those, it leaves them where they are: so an interrupted move can be gone on with.
#: Raises UsageError for what it doesn't know.
Placer = Callable[[StateEntry, int], Sequence[StateEntry]]


class Repartitioning(msgspec.Struct, frozen=True, kw_only=True):
    """A topic that shall have other partitions, with everything about it settled."""

    topic: str
    before: int
    partitions: int
    #: Subscriptions of the topic, each with its own topics.
    subscriptions: dict[str, tuple[str, ...]]
    #: The next offset of each partition there is: nothing may have come since.
    ends: tuple[int, ...]
    #: How long nobody may be seen to publish or to join before anything is moved.
    look_seconds: float
