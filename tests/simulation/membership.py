"""A simulated process's place in a group: heartbeats, coming and going of partitions, fetching, committing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from postline.errors import LogError, UnknownTopic, UsageError
from postline.log.port import Assignment, CommitUnit, Fetched, GroupSpec, PartitionOwner
from tests.simulation.cluster import Member, StoredPartition, Subscription, size_of, wake_future

if TYPE_CHECKING:
    from tests.simulation.engine import SimulatedLog

__all__ = ["SimulatedMembership"]


class _Cursor:
    """How far one owned partition was fetched."""

    __slots__ = ("assignment", "live", "offsets", "paused")

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        #: Next offset of the subscribed topic and of each sibling.
        self.offsets = {assignment.topic: assignment.position}
        self.paused = False
        #: Between the end of `assigned` and the beginning of `revoked`.
        self.live = False


class SimulatedMembership:
    """`postline.log.port.Membership` on a simulated cluster; joins anew when its lease ran out."""

    def __init__(self, log: SimulatedLog, subscription: Subscription, spec: GroupSpec, owner: PartitionOwner) -> None:
        self._log = log
        self._cluster = log.cluster
        self._subscription = subscription
        self._spec = spec
        self._owner = owner
        self._member = ""
        self._cursors: dict[int, _Cursor] = {}
        self._turn = 0
        self._leaving = False
        self._hung = False
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        #: The work task waits for `_changed`, a fetch for `_bell`; `_interrupted` ends that fetch.
        self._changed: asyncio.Future[None] | None = None
        self._bell: asyncio.Future[None] | None = None
        self._interrupted = False
        self._woken = False
        self._committing: asyncio.Future[list[Assignment]] | None = None
        self._commits = self._log.new_writes()
        self._heartbeat: asyncio.TimerHandle | None = None

    # Life in the group.

    def begin(self) -> None:
        """Enter the group and start the task that talks to the owner."""
        self._enter()
        self._beat()
        self._task = self._loop.create_task(
            self._work(), name=f"{self._log.name}/membership of {self._spec.subscription}"
        )
        self._task.add_done_callback(lambda _: self._interrupt())

    def abandon(self) -> None:
        """The process died: the group finds out after a while."""
        if self._log.process is None and self._task is not None:
            self._task.cancel()
        self._loop.call_later(
            self._cluster.death_seconds * self._log.faults.fraction(),
            self._subscription.remove_member,
            self._member,
            context=self._cluster.environment,
        )

    async def leave(self) -> None:
        """Settle what is owned, give it up and leave; idempotent."""
        self._leaving = True
        self._ring()
        self._interrupt()
        if self._task is not None:
            await asyncio.wait([self._task])

    def hang(self) -> None:
        """Stop heartbeats and work where there is no simulated process to hang."""
        self._hung = True

    def go_on(self) -> None:
        """End what `hang` began."""
        self._hung = False
        self._beat()

    def _enter(self) -> None:
        self._member = f"{self._log.name}#{self._cluster.number()}"
        now = self._loop.time()
        member = Member(
            self._member, self._spec, self._log.clock.now_ms(), now, lambda: self._log.notify_later(self._ring)
        )
        self._subscription.members[self._member] = member
        self._cluster.trace("joined", self._member, self._subscription.info.name)
        self._subscription.balance()

    def _ring(self) -> None:
        if self._changed is not None and not self._hung:
            wake_future(self._changed)

    def _interrupt(self) -> None:
        self._interrupted = True
        if self._bell is not None:
            wake_future(self._bell)

    def _beat(self) -> None:
        """Renew the lease, end others' that ran out, and find out whether this one still stands."""
        if self._log.dead or self._hung or (self._leaving and not self._cursors):
            return
        now = self._loop.time()
        if (member := self._subscription.members.get(self._member)) is not None:
            member.last_seen = now
        self._cluster.expire(self._subscription, now, self._log.faults.coin())
        self._ring()
        self._heartbeat = self._loop.call_later(self._cluster.lease_seconds / 4, self._beat)

    async def _work(self) -> None:
        while True:
            self._changed = self._loop.create_future()
            await self._follow_group()
            if self._leaving and not self._cursors:
                break
            if not self._leaving:
                await self._changed
            await self._log.pause("membership")
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self._subscription.remove_member(self._member)
        self._cluster.trace("left", self._member)

    async def _follow_group(self) -> None:
        """Drop what was lost, give back what others should have, take what is free."""
        self._drop_lost()
        if self._leaving:
            await self._revoke(list(self._cursors))
            return
        if self._member not in self._subscription.members:
            self._enter()
        targets = self._subscription.targets
        await self._revoke([index for index in self._cursors if targets[index] != self._member])
        claimed = self._subscription.claim(self._member)
        if claimed and not self._leaving:
            await self._assign(claimed)
        elif claimed:
            self._subscription.release(self._member, claimed)

    def _drop_lost(self) -> None:
        lost = []
        for index, cursor in list(self._cursors.items()):
            if not self._subscription.is_owner(self._member, index, cursor.assignment.epoch) or (
                self._subscription.slots[index].free
            ):
                lost.append(self._cursors.pop(index).assignment)
        if lost:
            self._cluster.trace("lost", self._member, [(a.partition, a.epoch) for a in lost])
            self._interrupt()
            self._owner.lost(lost)

    async def _assign(self, partitions: Sequence[int]) -> None:
        assignments = [self._subscription.assignment(index) for index in partitions]
        self._cluster.trace("assigned", self._member, [(a.partition, a.epoch, a.position) for a in assignments])
        for assignment in assignments:
            self._cursors[assignment.partition] = _Cursor(assignment)
        try:
            await self._owner.assigned(assignments)
        except LogError as error:
            if not error.retryable:
                raise
            self._give_back(assignments)
            return
        for assignment in assignments:
            cursor = self._cursors.get(assignment.partition)
            if cursor is not None and cursor.assignment is assignment:
                cursor.live = True
        self._interrupt()

    def _give_back(self, assignments: Sequence[Assignment]) -> None:
        """What could not be taken up comes again, under new epochs."""
        for assignment in assignments:
            self._cursors.pop(assignment.partition, None)
        self._owner.lost(assignments)
        self._subscription.release(self._member, [assignment.partition for assignment in assignments])

    async def _revoke(self, partitions: Sequence[int]) -> None:
        cursors = [self._cursors[index] for index in partitions]
        if not cursors:
            return
        assignments = [cursor.assignment for cursor in cursors]
        for cursor in cursors:
            cursor.live = False
        self._interrupt()
        self._cluster.trace("revoking", self._member, [(a.partition, a.epoch) for a in assignments])
        try:
            await asyncio.wait_for(self._owner.revoked(assignments), self._cluster.revoke_seconds)
        except TimeoutError:
            self._cluster.trace("overran", self._member)
            self._owner.lost([cursor.assignment for cursor in cursors if cursor.assignment.partition in self._cursors])
        released = [index for index in partitions if self._cursors.pop(index, None) is not None]
        self._cluster.trace("released", self._member, released)
        self._subscription.release(self._member, released)

    # Fetching.

    async def fetch(self, max_records: int, max_bytes: int, wait_seconds: float) -> list[Fetched]:
        """Records of owned, unpaused partitions; nothing moves before it returns them."""
        require(self._bell is None, "two fetches of one membership at once.")
        if self._task is not None and self._task.done() and not self._task.cancelled():
            # What the owner's callbacks raised.
            self._task.result()
        deadline = self._loop.time() + wait_seconds
        self._interrupted = False
        self._bell = self._loop.create_future()
        number = self._cluster.number()
        waiters = {}
        timer = self._loop.call_later(wait_seconds, self._interrupt)
        try:
            await self._log.read_pause("fetch")
            while True:
                self._bell = self._loop.create_future()
                for topic in {topic: None for cursor in self._cursors.values() for topic in cursor.offsets}:
                    waiters[topic] = self._cluster.topic(topic).waiters
                    waiters[topic][number] = self._ring_fetch
                found = self._collect(max(1, max_records), max_bytes)
                if found or self._interrupted or self._woken or self._loop.time() >= deadline:
                    self._woken = False
                    return found
                await self._bell
        finally:
            timer.cancel()
            self._bell = None
            for waiting in waiters.values():
                waiting.pop(number, None)

    def _ring_fetch(self) -> None:
        deaf = self._cluster.mutant == "lost_wake_up" and self._log.faults.coin()
        if self._bell is not None and not deaf:
            self._log.ring_later(wake_future, self._bell)

    def _collect(self, max_records: int, max_bytes: int) -> list[Fetched]:
        """Take an even share from each partition that has something, beginning with another each time."""
        sources = []
        for cursor in self._cursors.values():
            if not cursor.live:
                continue
            for topic, offset in cursor.offsets.items():
                partition = self._cluster.topic(topic).partitions[cursor.assignment.partition]
                skipped = cursor.paused and topic == cursor.assignment.topic
                if not skipped and offset < partition.end:
                    sources.append((cursor, topic, partition))
        self._turn += 1
        first = self._turn % len(sources) if sources else 0
        found: list[Fetched] = []
        for index, (cursor, topic, partition) in enumerate(sources[first:] + sources[:first]):
            remaining = len(sources) - index
            share = -(-max_records // remaining)
            if max_records <= 0 or (max_bytes <= 0 and found):
                break
            taken = self._take(cursor, topic, partition, share, max(1, max_bytes // remaining), bool(found))
            if taken is not None:
                found.append(taken)
                max_records -= len(taken.records)
                max_bytes -= sum(map(size_of, taken.records))
        return found

    def _take(
        self, cursor: _Cursor, topic: str, partition: StoredPartition, share: int, max_bytes: int, more: bool
    ) -> Fetched | None:
        offset = max(cursor.offsets[topic], partition.start)
        records, next_offset = partition.read(offset, self._log.faults.shortened(share), max_bytes)
        if more and records and size_of(records[0]) > max_bytes:
            # The first partition may exceed the limit by one record, so that it ever gets through; others wait.
            return None
        cursor.offsets[topic] = next_offset
        if records:
            self._cluster.trace("fetched", self._member, topic, cursor.assignment.partition, records[0][0], next_offset)
        return Fetched(cursor.assignment, topic, records, next_offset, partition.start)

    def wake(self) -> None:
        """Make a waiting `fetch` return now; if none is waiting, the next one does not wait."""
        self._woken = True
        self._interrupt()

    def _cursor(self, assignment: Assignment) -> _Cursor | None:
        cursor = self._cursors.get(assignment.partition)
        return cursor if cursor is not None and cursor.assignment.epoch == assignment.epoch else None

    def pause(self, assignment: Assignment) -> None:
        """Fetch nothing more of the subscribed topic here."""
        if (cursor := self._cursor(assignment)) is not None:
            cursor.paused = True

    def resume(self, assignment: Assignment) -> None:
        """Undo `pause`."""
        if (cursor := self._cursor(assignment)) is not None:
            cursor.paused = False
            self._refresh()

    def seek(self, assignment: Assignment, offset: int) -> None:
        """Go on from `offset` of the subscribed topic."""
        if (cursor := self._cursor(assignment)) is not None:
            cursor.offsets[assignment.topic] = offset
            self._refresh()

    def follow(self, assignment: Assignment, topic: str, offset: int) -> None:
        """Fetch the same partition of a sibling too."""
        if assignment.partition >= len(self._cluster.topic(topic).partitions):
            raise UnknownTopic(
                f"topic {topic!r} has no partition {assignment.partition}.", remedy="Give both topics as many."
            )
        if (cursor := self._cursor(assignment)) is not None:
            cursor.offsets[topic] = offset
            self._refresh()

    def _refresh(self) -> None:
        """Let a waiting fetch look again, without ending it."""
        if self._bell is not None:
            wake_future(self._bell)

    # State and commits.

    async def get_state(self, assignment: Assignment, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The committed entries among `keys`."""
        await self._log.read_pause("get_state")
        entries = self._subscription.slots[assignment.partition].state.get(namespace, {})
        return {key: entries[key] for key in keys if key in entries}

    async def scan_state(
        self, assignment: Assignment, namespace: str, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Committed entries above `after`, in key order."""
        await self._log.read_pause("scan_state")
        return self._cluster.scan(self._subscription, assignment.partition, namespace, after, limit)

    async def commit(self, unit: CommitUnit) -> list[Assignment]:
        """Apply the unit; gives the refused assignments."""
        self._check_unit(unit)

        def apply() -> list[Assignment]:
            refused = self._cluster.commit(
                self._subscription, self._member, unit, self._log.clock.now_ms(), self._log.faults.gap
            )
            for part in unit:
                verb = "refused" if part.assignment in refused else "commit"
                where = f"{part.assignment.partition}@{part.assignment.epoch}"
                self._cluster.trace(verb, self._member, where, part.position, len(part.puts), len(part.appends))
            return refused

        self._committing = self._log.submit(self._commits, "commit", apply)
        try:
            refused = await self._committing
        finally:
            self._committing = None
        if refused and self._log.faults.coin():
            # An engine may tell the owner before the commit's caller hears of it, or later.
            self._drop_lost()
        return refused

    def _check_unit(self, unit: CommitUnit) -> None:
        """What the port asks of its caller; a violation is a bug of the runtime, found here."""
        require(self._committing is None, "two commits of one membership at once.")
        partitions = [part.assignment.partition for part in unit]
        require(len(set(partitions)) == len(partitions), "a partition is twice in one commit unit.")
        for part in unit:
            both = {(namespace, key) for namespace, key, _ in part.puts} & set(part.deletes)
            require(not both, f"entries in puts and in deletes of one commit: {both}.")
            end = self._cluster.topic(part.assignment.topic).partitions[part.assignment.partition].end
            require(0 <= part.position <= end, f"position {part.position} is beyond the end, {end}.")


def require(condition: bool, problem: str) -> None:
    """Raise UsageError unless the caller keeps to the port."""
    if not condition:
        raise UsageError(problem, remedy="See postline.log.port.")
