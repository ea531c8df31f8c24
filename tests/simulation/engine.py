"""A log engine in plain dicts that does what the port says, and everything bad that the port allows."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from postline.clock import Clock
from postline.errors import LogUnavailable, PostlineError
from postline.log.needs import Change, ChangeKind, Need, Placer, Repartitioning
from postline.log.planning import no_repartition, plan_topics, refuse
from postline.log.port import (
    Append,
    Bounds,
    Capability,
    Group,
    GroupSpec,
    MemberInfo,
    PartitionInfo,
    PartitionOwner,
    Place,
    Record,
    SubscriptionInfo,
    Survey,
    Tail,
    TopicSpec,
)
from postline.message import Envelope
from tests.simulation.cluster import SimulatedCluster, wake_future
from tests.simulation.faults import FaultPlan, Faults
from tests.simulation.loop import Process
from tests.simulation.membership import SimulatedMembership

__all__ = ["SimulatedLog"]

T = TypeVar("T")


class Writes:
    """Writes under way that are applied in the order of the calls, however long each takes."""

    def __init__(self) -> None:
        self.queue: deque[tuple[str, Callable[[], Any], asyncio.Future[Any]]] = deque()
        #: When the last of them is applied.
        self.last = 0.0


class SimulatedTail:
    """Reads, waits and reads again."""

    def __init__(self, log: SimulatedLog, topic: str, partition: int, offset: int) -> None:
        self._log, self._topic, self._partition, self._offset = log, topic, partition, offset

    async def read(self, *, limit: int, max_bytes: int, wait_seconds: float) -> list[Record]:
        """The next records, as soon as there are any, or none after `wait_seconds`."""
        until = self._log.clock.monotonic() + wait_seconds
        while True:
            records = await self._log.read(self._topic, self._partition, self._offset, limit=limit, max_bytes=max_bytes)
            if records:
                self._offset = records[-1][0] + 1
            left = until - self._log.clock.monotonic()
            if records or left <= 0:
                return records
            await self._log.wait_for_appends(self._topic, left)

    async def close(self) -> None:
        """Nothing is held."""


class SimulatedLog:
    """One process's handle to a `SimulatedCluster`.

    Runs on any event loop; with a `Process` of a simulation loop it dies and hangs with it. Calls
    made after its process died never return and never take effect.
    """

    def __init__(
        self,
        cluster: SimulatedCluster,
        clock: Clock,
        *,
        process: Process | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.capabilities = frozenset(Capability) - {Capability.REPARTITIONS}
        self.address = "simulated"
        self.cluster = cluster
        self.clock = clock
        self.process = process
        self.faults = faults or Faults(FaultPlan.none(), random.Random(0))
        self.memberships: list[SimulatedMembership] = []
        self.dead = False
        self._open = False
        #: Of those who wait for appends: the log's end wakes them, too.
        self._bells: dict[asyncio.Future[None], None] = {}
        if process is not None:
            process.on_death.append(self.die)

    # Life.

    async def start(self) -> None:
        """Open it; idempotent."""
        await self.pause("start", needs_open=False)
        self._open = True

    async def close(self) -> None:
        """Leave all groups and refuse further calls; idempotent."""
        for membership in list(self.memberships):
            await membership.leave()
        await self.pause("close", needs_open=False)
        self._open = False
        for bell in list(self._bells):
            wake_future(bell)

    def die(self) -> None:
        """The process is gone: nothing takes effect any more, and the others notice after a while."""
        if self.dead:
            return
        self.dead = True
        self.cluster.trace("died", self.name)
        for membership in self.memberships:
            membership.abandon()

    @property
    def name(self) -> str:
        """The process's name, for traces."""
        return self.process.name if self.process else "log"

    # The awaits at which everything may go wrong.

    async def pause(self, point: str, *, needs_open: bool = True) -> None:
        """Wait as long as this engine call takes; the process may die meanwhile."""
        self.check(point, needs_open=needs_open)
        if self.faults.happens("crash"):
            self.crash(point)
            await asyncio.get_running_loop().create_future()
        delay = self.faults.latency()
        if delay:
            await asyncio.sleep(delay)
        elif self.faults.coin():
            await asyncio.sleep(0)

    def check(self, point: str, *, needs_open: bool = True) -> None:
        """Refuse calls on a log that isn't open."""
        if self.dead or (needs_open and not self._open):
            raise LogUnavailable(f"the simulated log is closed, at {point}.", remedy="Start it first.")

    def crash(self, point: str) -> None:
        """Kill the process whose log this is."""
        if self.process is not None:
            self.cluster.trace("crash at", point, self.name)
            self.process.kill()

    @staticmethod
    def new_writes() -> Writes:
        """A queue of writes that are applied in order."""
        return Writes()

    def submit(self, writes: Writes, kind: str, apply: Callable[[], T]) -> asyncio.Future[T]:
        """Apply a write after its latency, unless the process dies first; the answer takes time too.

        Those of one queue are applied in the order of the calls. One goes on when its caller is
        cancelled: only the caller doesn't know the outcome.
        """
        self.check(kind)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if self.faults.happens("crash"):
            self.crash(kind)
            return answer
        writes.queue.append((kind, apply, answer))
        writes.last = max(writes.last, loop.time() + self.faults.latency())
        lands = self.faults.happens("lands_after_death")
        context = self.cluster.environment if lands else None
        loop.call_at(writes.last, self._next_turn, writes, context=context)
        return answer

    def _next_turn(self, writes: Writes) -> None:
        # Timers may fire out of order when they are made late; the queue keeps the order of calls.
        kind, apply, answer = writes.queue.popleft()
        error: Exception | None = self.faults.refusal(kind)
        result = None
        if error is None:
            try:
                result = apply()
            except PostlineError as problem:
                error = problem
            else:
                if self.faults.happens(kind + "_crash"):
                    self.crash(kind + " stored")
                    return
                if self.faults.happens(kind + "_unknown"):
                    error = LogUnavailable("the simulated log did not answer.", remedy="Repeat it with the same id.")
        loop = asyncio.get_running_loop()
        loop.call_later(self.faults.latency(), _answer, answer, result, error)

    def ring_later(self, ring: Callable[..., object], *args: object) -> None:
        """Call back after the bell's delay, even if whoever rang it dies."""
        loop = asyncio.get_running_loop()
        loop.call_later(self.faults.bell_delay(), ring, *args, context=self.cluster.environment)

    def notify_later(self, ring: Callable[[], object]) -> None:
        """Tell a member of this process that its group has changed."""
        loop = asyncio.get_running_loop()
        loop.call_later(self.faults.notice_delay(), ring, context=self.cluster.environment)

    # Topics and records.

    def envelope(self, record: Record) -> Envelope:
        """The envelope as it was appended."""
        envelope: Envelope = record[6]
        return envelope

    async def require_standing(self) -> None:
        """Nothing ever moves from here."""

    async def create_topic(self, spec: TopicSpec) -> TopicSpec:
        """Create it unless it exists; gives what the log has."""
        await self.pause("create_topic")
        return self.cluster.create_topic(spec)

    async def alter_topic(self, spec: TopicSpec) -> None:
        """Change retention, compaction and times."""
        await self.pause("alter_topic")
        self.cluster.alter_topic(spec)

    async def topics(self) -> list[TopicSpec]:
        """All topics, by name."""
        await self.pause("topics")
        return [topic.spec for _, topic in sorted(self.cluster.topics.items())]

    async def plan(self, need: Need) -> list[Change]:
        """What has to change; without a wait, since every app asks at its start."""
        return plan_topics(need, {topic.spec.name: topic.spec for topic in self.cluster.topics.values()})

    async def apply(self, changes: Sequence[Change]) -> None:
        """Create and alter topics."""
        refuse(changes, self.address)
        for change in changes:
            if change.topic is not None and change.kind is ChangeKind.CREATE:
                await self.create_topic(change.topic)
            elif change.topic is not None and change.kind is ChangeKind.ALTER:
                await self.alter_topic(change.topic)

    async def repartition(self, wanted: Repartitioning, place: Placer) -> None:
        """Refused."""
        raise no_repartition(self.address)

    async def append(self, records: Sequence[Append]) -> list[int]:
        """Store all of them, or none; calls that overlap in any order."""
        batch = list(records)

        def store() -> list[int]:
            offsets = self.cluster.append(batch, self.clock.now_ms(), self.faults.gap)
            places = [f"{item.topic}/{item.partition}:{offset}" for item, offset in zip(batch, offsets, strict=True)]
            self.cluster.trace("append", self.name, *places)
            return offsets

        return await self.submit(self.new_writes(), "append", store)

    async def bounds(self, topic: str, *, stable: bool = False) -> list[Bounds]:
        """First and next offset of each partition."""
        await self.read_pause("bounds")
        return self.cluster.bounds(topic)

    async def read(
        self, topic: str, partition: int, offset: int, *, limit: int = 1000, max_bytes: int = 1 << 20
    ) -> list[Record]:
        """Records from `offset` on, in order."""
        await self.read_pause("read")
        return self.cluster.topic(topic).partitions[partition].read(offset, limit, max_bytes)[0]

    async def read_first(self, places: Sequence[Place]) -> list[Record | None]:
        """The first record at or above each of these places."""
        return [next(iter(await self.read(*place, limit=1)), None) for place in places]

    async def read_offsets(self, topic: str, partition: int, offsets: Sequence[int]) -> list[Record]:
        """The records at these offsets that are still there."""
        await self.read_pause("read_offsets")
        return self.cluster.topic(topic).partitions[partition].at(offsets)

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset of that time or later, else the end."""
        await self.read_pause("offset_at")
        return self.cluster.offset_at(self.cluster.topic(topic).partitions[partition], time_ms)

    async def size_between(self, topic: str, partition: int, start: int, end: int) -> int:
        """Bytes of keys and values from `start` to before `end`."""
        await self.read_pause("size_between")
        records = self.cluster.topic(topic).partitions[partition].at(range(start, end))
        return sum(len(record[2] or b"") + len(record[4] or b"") for record in records)

    async def read_pause(self, point: str) -> None:
        await self.pause(point)
        if (refusal := self.faults.refusal("read")) is not None:
            raise refusal

    async def wait_for_appends(self, topic: str, wait_seconds: float) -> None:
        """Return when something was appended, or after `wait_seconds`."""
        self.check("wait_for_appends")
        waiters = self.cluster.topic(topic).waiters
        loop = asyncio.get_running_loop()
        bell: asyncio.Future[None] = loop.create_future()
        number = self.cluster.number()
        waiters[number] = lambda: self.ring_later(wake_future, bell)
        self._bells[bell] = None
        timer = loop.call_later(wait_seconds, wake_future, bell)
        try:
            await bell
        finally:
            timer.cancel()
            del waiters[number]
            del self._bells[bell]

    def tail(self, topic: str, partition: int, offset: int) -> Tail:
        """The partition from `offset` on, as it grows."""
        return SimulatedTail(self, topic, partition, offset)

    # Subscriptions.

    async def join(self, spec: GroupSpec, owner: PartitionOwner) -> SimulatedMembership:
        """Join the group; partitions are assigned soon after."""
        await self.pause("join")
        subscription = self.cluster.subscribe(spec, self.clock.now_ms())
        membership = SimulatedMembership(self, subscription, spec, owner)
        self.memberships.append(membership)
        membership.begin()
        return membership

    async def subscriptions(self) -> list[SubscriptionInfo]:
        """All subscriptions, by name."""
        await self.read_pause("subscriptions")
        return [found.info for _, found in sorted(self.cluster.subscriptions.items())]

    async def partitions(self, subscription: str) -> list[PartitionInfo]:
        """Each partition as last committed."""
        await self.read_pause("partitions")
        return self.cluster.partition_infos(subscription)

    async def members(self, subscription: str) -> list[MemberInfo]:
        """Live members."""
        await self.read_pause("members")
        return self.cluster.member_infos(subscription)

    async def survey(self, names: Collection[str] | None = None) -> Survey:
        """All topics and subscriptions, of one moment; or only what `names` say."""
        await self.read_pause("survey")
        groups = [
            Group(
                info=found.info,
                members=self.cluster.member_infos(name),
                partitions=self.cluster.partition_infos(name),
            )
            for name, found in sorted(self.cluster.subscriptions.items())
            if names is None or name in names
        ]
        read = {group.info.topic for group in groups}
        specs = [topic.spec for name, topic in sorted(self.cluster.topics.items()) if names is None or name in read]
        bounds = {spec.name: self.cluster.bounds(spec.name) for spec in specs}
        return Survey(topics=specs, bounds=bounds, groups=groups)

    async def peek_state(
        self, subscription: str, partition: int, namespace: str, *, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Committed entries above `after`, in key order."""
        await self.read_pause("peek_state")
        return self.cluster.scan(self.cluster.subscription(subscription), partition, namespace, after, limit)

    async def remove_subscription(self, subscription: str) -> None:
        """Forget positions and state."""
        await self.pause("remove_subscription")
        self.cluster.remove_subscription(subscription)


def _answer(answer: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    """Give the answer to whoever still waits for it."""
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
