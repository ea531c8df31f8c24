"""`KafkaMembership`: one process's place in a subscription's group, and how it is joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from postline.errors import LogError, LogUnavailable, SubscriptionConflict
from postline.log.kafka.cache import CacheBroken
from postline.log.kafka.catalog import MemberEntry, SubscriptionEntry, written
from postline.log.kafka.changelog import COPIES
from postline.log.kafka.cluster import Cluster
from postline.log.kafka.feed import Cursor, Feed
from postline.log.kafka.groups import foreign_members
from postline.log.kafka.ownership import Ownership
from postline.log.kafka.parts import GroupNames, Parts
from postline.log.kafka.polling import GroupConsumer, Polling
from postline.log.kafka.steward import Steward
from postline.log.kafka.takeover import Takeover
from postline.log.kafka.units import UnitWriter
from postline.log.kafka.watching import watch_group
from postline.log.port import Assignment, CommitUnit, Fetched, GroupSpec, PartitionOwner
from postline.logs.events import event

__all__ = ["KafkaMembership", "join"]

_log = logging.getLogger("postline.log.kafka")

_DEFAULTS = {
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1000",
    # How much is prefetched for each partition: enough to be busy while the broker answers, little enough to hold.
    "queued.min.messages": "20000",
    "queued.max.messages.kbytes": "16384",
    # A full queue is looked at again so soon; by default after a second, in which it runs dry.
    "fetch.queue.backoff.ms": "5",
    "fetch.error.backoff.ms": "50",
}
_CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms")


class KafkaMembership:
    """The port's Membership on Kafka. Made by `join`; the event loop's property."""

    def __init__(
        self, parts: Parts, spec: GroupSpec, entry: SubscriptionEntry, owner: PartitionOwner, me: MemberEntry
    ) -> None:
        self._parts, self._spec, self._me = parts, spec, me
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False
        #: The polling thread has told of something since `fetch` last looked.
        self._told = False
        self._left = False
        self._leaving = asyncio.Lock()
        names = GroupNames(spec.subscription, spec.topic, entry.state_topic)
        self._ownership = Ownership()
        self._feed = Feed(self._ready)
        self._steward = Steward(parts, owner, self._feed, self._ownership)
        self._steward.writer = UnitWriter(parts, names, self._ownership)
        self._steward.takeover = Takeover(parts, names, entry, self._steward.writer.transactions.id)
        self._steward.changed = self._assignment_changed
        self._steward.declared = len(entry.starts)

    async def enter(self) -> None:
        """Open the transactions, which ends what an earlier life of this process left open, and join the group."""
        writer = self._steward.writer
        await self._parts.cluster.run(writer.open)
        self.polling = await self._parts.cluster.run(self._made_polling)
        self._steward.polling = self.polling
        self.polling.start()
        self._steward.begin()
        if not self.polling.classic:
            group, client = self._spec.subscription, self._me.client
            self._steward.run_along(watch_group(self._parts, group, client, self._steward.declared, self.polling))

    def _made_polling(self) -> Polling:
        make = partial(_consumer_of, self._parts, self._spec.subscription, self._me.client)
        parts = (self._feed, self._ownership)
        return Polling(self._parts.cluster, make, self._spec.topic, parts, self._steward)

    # -- fetching -----------------------------------------------------------------------------

    async def fetch(self, max_records: int, max_bytes: int, wait_seconds: float) -> list[Fetched]:
        """Records of owned, unpaused partitions in turn; [] after `wait_seconds`, or when woken."""
        clock = self._parts.cluster.clock
        end = clock.monotonic() + wait_seconds
        while True:
            self._require_open()
            self.polling.heard()
            if self._steward.failure is not None:
                raise self._steward.failure
            self._told = False
            found = self._feed.take(max_records, max_bytes)
            left = end - clock.monotonic()
            if found or self._woken or left <= 0:
                self._woken = False
                return found
            await self._wait(left)

    async def _wait(self, seconds: float) -> None:
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiting = waiting
        timer = self._parts.cluster.clock.call_later(seconds, self._let_go)
        try:
            if not self._feed.readable():
                await waiting
        finally:
            timer.cancel()
            self._waiting = None

    def _ready(self) -> None:
        """Told by the polling thread: `take` may give more."""
        if not self._told:
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._let_go)
            except RuntimeError:
                _log.debug(
                    "the event loop of %s has ended",
                    self._spec.subscription,
                    extra=event("kafka.loop_ended", subscription=self._spec.subscription),
                )

    def _let_go(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def wake(self) -> None:
        """Make a waiting `fetch` return now; the next one, if none is waiting."""
        self._woken = True
        self._let_go()

    def _assignment_changed(self) -> None:
        if self._waiting is not None:
            self._woken = True
            self._let_go()

    def pause(self, assignment: Assignment) -> None:
        """Fetch nothing more of the subscribed topic for this partition; siblings go on."""
        self._set_paused(assignment, True)

    def resume(self, assignment: Assignment) -> None:
        """Undo `pause`."""
        self._set_paused(assignment, False)

    def _set_paused(self, assignment: Assignment, paused: bool) -> None:
        self._feed.pause(assignment, paused)
        if not paused and self._ownership.stands(assignment):
            self.polling.resume(assignment.topic, assignment.partition)

    def seek(self, assignment: Assignment, offset: int) -> None:
        """Go on from `offset` of the subscribed topic at the next fetch."""
        self._consume(assignment, assignment.topic, offset)

    def follow(self, assignment: Assignment, topic: str, offset: int) -> None:
        """Fetch the same partition of a sibling topic too, from `offset`."""
        self._consume(assignment, topic, offset)

    def _consume(self, assignment: Assignment, topic: str, offset: int) -> None:
        standing = self._feed.of(assignment)
        if not standing:
            return
        cursor = Cursor(assignment, topic, offset)
        cursor.active = standing[0].active
        self._feed.open(cursor)
        if cursor.active:
            self.polling.consume([cursor])

    def copies(self, topic: str, partition: int, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Copies of held records of this place, if this member owns it."""
        owned = self._ownership.owned.get(partition)
        if topic != self._spec.topic or owned is None:
            return {}
        return owned.cache.get(COPIES, keys)

    # -- state and commits --------------------------------------------------------------------

    async def get_state(self, assignment: Assignment, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The committed entries among `keys`; absent ones are left out."""
        self._require_open()
        owned = self._ownership.owned.get(assignment.partition)
        if owned is None or owned.assignment.epoch != assignment.epoch:
            return {}
        try:
            return owned.cache.get(namespace, keys)
        except CacheBroken as error:
            raise self._broken(assignment) from error

    async def scan_state(
        self, assignment: Assignment, namespace: str, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Committed entries with keys above `after`, in key order."""
        self._require_open()
        owned = self._ownership.owned.get(assignment.partition)
        if owned is None or owned.assignment.epoch != assignment.epoch:
            return []
        try:
            return owned.cache.scan(namespace, after, limit)
        except CacheBroken as error:
            raise self._broken(assignment) from error

    def _broken(self, assignment: Assignment) -> LogError:
        self._steward.retake(assignment)
        return LogUnavailable(
            f"The state cache of {assignment.topic} partition {assignment.partition} broke.",
            remedy="It is being restored from the changelog.",
        )

    async def commit(self, unit: CommitUnit) -> list[Assignment]:
        """Commit the unit atomically and durably; `lost` has been called for what it gives back."""
        self._require_open()
        if self._left:
            return [part.assignment for part in unit]
        return await self._steward.commit(unit) if unit else []

    def _require_open(self) -> None:
        if self._parts.cluster.stopping.is_set():
            raise self._parts.cluster.closed()

    # -- leaving ------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Give up what is owned (after `revoked`) and leave the group. Idempotent."""
        async with self._leaving:
            if self._left:
                return
            await self._steward.retire()
            await asyncio.get_running_loop().run_in_executor(None, self.polling.stop)
            self._left = True
            self._steward.close()
            self._assignment_changed()
            try:
                await self._parts.cluster.run(self._parts.catalog.put, {self._me.key: None})
            except LogError as error:
                # Nobody takes it for alive: that is the coordinator's to say.
                _log.info(
                    "member %s could not take its name back: %s",
                    self._me.client,
                    error,
                    extra=event("kafka.name_not_taken_back", member=self._me.client),
                )

    async def abandon(self) -> None:
        """Be gone without settling anything, as a process that died is once the group has noticed; for tests."""
        self._steward.abandon()
        await asyncio.get_running_loop().run_in_executor(None, self.polling.stop)
        self._left = True


def _consumer_of(parts: Parts, group: str, client: str) -> GroupConsumer:
    options = parts.cluster.options
    protocol = options.group_protocol
    if protocol == "auto":
        protocol = parts.groups.protocol()
    fixed = {"group.id": group, "client.id": client, "auto.offset.reset": "error", "group.protocol": protocol}
    defaults = dict(_DEFAULTS)
    if protocol == "classic":
        fixed["partition.assignment.strategy"] = "cooperative-sticky"
    else:
        defaults = {name: value for name, value in defaults.items() if name not in _CLASSIC_ONLY}
    return GroupConsumer(parts.cluster.consumer(defaults, fixed), protocol == "classic")


def _refuse_others(parts: Parts, group: str) -> None:
    """Refuse a group that another program consumes in: it would be given partitions of ours, unseen."""
    for each in foreign_members(parts.groups.members(group)):
        raise SubscriptionConflict(
            f"Subscription {group!r} can't be served: a program that is none of Postline's, client {each.client!r} on"
            f" {each.host}, consumes in the group of that name on {parts.cluster.address}.",
            remedy="Stop it, or give it, or the subscription, another name.",
        )


async def join(
    parts: Parts, spec: GroupSpec, entry: SubscriptionEntry, owner: PartitionOwner, name: str
) -> KafkaMembership:
    """Join the group of a subscription that exists."""
    cluster: Cluster = parts.cluster
    await cluster.run(_refuse_others, parts, spec.subscription)
    instance = spec.instance or cluster.instance
    me = MemberEntry(
        subscription=spec.subscription,
        client=name,
        instance=instance,
        joined_ms=cluster.clock.now_ms(),
        formats=spec.formats,
        transactional_id=cluster.transactional_id(spec.subscription),
    )
    await cluster.run(parts.catalog.put, {me.key: written(me)})
    membership = KafkaMembership(parts, spec, entry, owner, me)
    await membership.enter()
    return membership
