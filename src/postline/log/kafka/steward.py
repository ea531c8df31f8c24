"""`Steward`: takes partitions up and gives them back as the coordinator says, one event after another on the loop.

The polling thread reports; the steward calls the owner. A revocation blocks the polling thread until the owner has
settled, at most REVOKE_SECONDS, and the engine has written a last checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from postline.errors import LogCorrupt, LogError, LogUnavailable
from postline.log.kafka.cache import CacheBroken, remove_cache
from postline.log.kafka.feed import Cursor, Feed
from postline.log.kafka.ownership import Owned, Ownership
from postline.log.kafka.parts import Parts
from postline.log.kafka.polling import Polling
from postline.log.kafka.takeover import Takeover
from postline.log.kafka.units import UnitWriter
from postline.log.port import REVOKE_SECONDS, Assignment, PartitionCommit, PartitionOwner
from postline.logs.events import event

__all__ = ["Steward"]

T = TypeVar("T")

_log = logging.getLogger("postline.log.kafka")

_CHECKPOINT_SECONDS = 2.0
_METADATA_SECONDS = 1.0
#: Longer from one time to the next, until partitions are taken up.
_RETRY_SECONDS, _RETRY_SECONDS_MAX = 0.2, 1.0
#: Retention is checked by brokers every five minutes unless they are told otherwise.
_COPY_SECONDS = 60.0
#: Beyond what the owner and the checkpoint may take, for the loop to come round.
_SLACK_SECONDS = 1.0


class Steward:
    """The loop's side of one membership's coming and going; implements `polling.GroupEvents`."""

    def __init__(self, parts: Parts, owner: PartitionOwner, feed: Feed, ownership: Ownership) -> None:
        self._parts, self._owner, self._feed, self._ownership = parts, owner, feed, ownership
        self._loop = asyncio.get_running_loop()
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry_seconds = _RETRY_SECONDS
        self._committing = ThreadPoolExecutor(1, thread_name_prefix="postline kafka commit")
        #: Assignments that the owner has been told of.
        self._told: dict[int, Assignment] = {}
        self._leaving = False
        self.failure: LogError | Exception | None = None
        self.changed: Callable[[], None] = lambda: None
        #: How many partitions the subscription was made, or repartitioned, for.
        self.declared = 0
        self.polling: Polling
        self.takeover: Takeover
        self.writer: UnitWriter

    # -- told by the polling thread -----------------------------------------------------------

    def assigned(self, partitions: Sequence[int]) -> None:
        """These are granted; returns at once. Those beyond the declared number wait for a repartitioning."""
        declared = [each for each in partitions if each < self.declared]
        if len(declared) < len(partitions):
            _log.error(
                "subscription %s leaves partitions %s of %s alone: the topic was given more than the %d declared ones;"
                " `postline topics repartition` takes them in",
                *(self.writer.group, sorted(set(partitions) - set(declared)), self.takeover.topic, self.declared),
                extra=event(
                    "partitions.left_alone",
                    subscription=self.writer.group,
                    partitions=sorted(set(partitions) - set(declared)),
                ),
            )
        if declared:
            self._on_loop(lambda: self._begin(self._take_up(declared)))

    def revoked(self, partitions: Sequence[int]) -> None:
        """Give these up; returns when the owner has settled, or has had its time."""
        if not partitions:
            return
        if not self._leaving:
            done = threading.Event()
            self._on_loop(lambda: self._begin(self._give_back(list(partitions), done)))
            done.wait(REVOKE_SECONDS + _CHECKPOINT_SECONDS + _SLACK_SECONDS)
        self._ended(partitions, wait_seconds=_CHECKPOINT_SECONDS)

    def lost(self, partitions: Sequence[int]) -> None:
        """These have, or will have, another owner."""
        self._ended(partitions, wait_seconds=0)

    def _ended(self, partitions: Sequence[int], wait_seconds: float) -> None:
        gone = self._ownership.give_up(partitions, wait_seconds)
        self._feed.drop(partitions)
        _close_caches(gone)
        self._on_loop(lambda: self.tell_lost(partitions))

    def overtaken(self, cursor: Cursor) -> None:
        """Retention took what the cursor would read next; it goes on with what is left."""
        topics, partition = self._parts.topics, cursor.assignment.partition
        bounds = topics.bounds(cursor.topic)[partition]
        if cursor.next_offset > bounds.end:
            self.failed(_truncated(cursor, bounds.end))
            return
        onwards = Cursor(cursor.assignment, cursor.topic, bounds.start)
        onwards.log_start = bounds.start
        self._feed.open(onwards)
        self._feed.put(onwards, [], bounds.start)
        self.polling.consume([onwards])

    def failed(self, error: LogError) -> None:
        """The group can't be served any further: `fetch` raises it."""
        self._on_loop(lambda: self._fail(error))

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self.changed()

    def _on_loop(self, work: Callable[[], object]) -> None:
        # The loop may be gone already: then there is nobody to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)

    def begin(self) -> None:
        """Look after held records until the membership ends."""
        self._begin(self.keep_copies())

    def run_along(self, work: Awaitable[None]) -> None:
        """Run this, too, until the membership ends; an error in it ends the membership."""
        self._begin(work)

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error if isinstance(error, Exception) else RuntimeError(str(error)))

    # -- taking up ----------------------------------------------------------------------------

    async def _take_up(self, partitions: Sequence[int]) -> None:
        async with self._one_at_a_time:
            wanted = self._still_granted(partitions)
            if not wanted:
                return
            owned: list[Owned] = []
            try:
                owned = await self._parts.cluster.run(self.takeover.take, sorted(wanted))
                await self._tell_assigned(await self._in_commit_thread(lambda: self._acquire(owned, wanted)))
            except LogError as error:
                self._drop(owned)
                if not error.retryable:
                    raise
                _log.warning(
                    "subscription %s could not take up partitions %s and tries again: %s",
                    *(self.writer.group, [*wanted], error),
                    extra=event("partitions.not_taken_up", subscription=self.writer.group, partitions=[*wanted]),
                )
                self._begin(self._take_up_later([*wanted]))
            else:
                self._retry_seconds = _RETRY_SECONDS

    async def _take_up_later(self, partitions: Sequence[int]) -> None:
        seconds, self._retry_seconds = self._retry_seconds, min(2 * self._retry_seconds, _RETRY_SECONDS_MAX)
        await self._parts.cluster.clock.sleep(seconds)
        await self._take_up(partitions)

    def _still_granted(self, partitions: Sequence[int]) -> dict[int, int]:
        """Those of them that are granted and not taken up, with their grants' numbers."""
        granted, owned = self._ownership.granted, self._ownership.owned
        return {each: granted[each] for each in partitions if each in granted and each not in owned}

    def _acquire(self, owned: Sequence[Owned], wanted: Mapping[int, int]) -> list[Owned]:
        """Make restored partitions ours in the log, in the commit thread; those taken back meanwhile are left out.

        One that was taken back and granted again may have had an owner in between: what was read of it is out of date.
        """
        if not self.polling.classic:
            # The metadata of before the grant would be refused.
            number = self._ownership.metadata()[1]
            if not self._ownership.wait_fresher(number, _METADATA_SECONDS):
                raise LogUnavailable(
                    f"Subscription {self.writer.group!r} waits for its place in the group.", remedy="It is tried again."
                )
        with self._ownership.lock:
            granted = self._ownership.granted
            mine = [
                each for each in owned if granted.get(each.assignment.partition) == wanted[each.assignment.partition]
            ]
            self._ownership.owned.update({each.assignment.partition: each for each in mine})
        unit = [
            PartitionCommit(each.assignment, each.assignment.position, each.assignment.progress)
            for each in mine
            if each.assignment.reset_to is None  # its first commit is the reset, which must not be forgotten before
        ]
        if unit:
            self.writer.commit(unit, checkpoint=True)
        standing = [each for each in mine if self._ownership.stands(each.assignment)]
        _close_caches([each for each in owned if each not in standing])
        return standing

    async def _tell_assigned(self, owned: Sequence[Owned]) -> None:
        assignments = [each.assignment for each in owned]
        if not assignments:
            return
        for assignment in assignments:
            self._told[assignment.partition] = assignment
            self._feed.open(Cursor(assignment, assignment.topic, assignment.position))
        await self._owner.assigned(assignments)
        for assignment in assignments:
            if self._told.get(assignment.partition) == assignment and self._ownership.stands(assignment):
                self.polling.consume(self._feed.of(assignment))
                self._feed.activate(assignment, True)
        self.changed()

    def _drop(self, owned: Sequence[Owned]) -> None:
        """Let go of what could not be taken up; the coordinator's grant stays."""
        standing = [each.assignment.partition for each in owned if self._ownership.stands(each.assignment)]
        granted = {each: number for each, number in self._ownership.granted.items() if each in standing}
        self._ownership.give_up(standing, 0)
        self._ownership.granted |= granted
        _close_caches(owned)
        self._feed.drop(standing)
        self.tell_lost(standing)

    def retake(self, assignment: Assignment) -> None:
        """Take a partition up anew, under another epoch: its state can't be read here."""
        if self._ownership.stands(assignment):
            self.polling.release([assignment.partition])
            owned = self._ownership.owned[assignment.partition]
            self._drop([owned])
            remove_cache(owned.cache.path)
            self._begin(self._take_up_later([assignment.partition]))

    # -- giving back --------------------------------------------------------------------------

    async def _give_back(self, partitions: Sequence[int], done: threading.Event) -> None:
        try:
            async with self._one_at_a_time:
                await self.settle(partitions)
        finally:
            done.set()

    async def settle(self, partitions: Sequence[int]) -> None:
        """Let the owner settle and commit these, then write their last checkpoint."""
        assignments = [self._told[each] for each in partitions if each in self._told]
        if not assignments:
            return
        for assignment in assignments:
            self._feed.activate(assignment, False)
        try:
            async with asyncio.timeout(REVOKE_SECONDS):
                await self._owner.revoked(assignments)
        except TimeoutError:
            self._owner.lost(assignments)
        for assignment in assignments:
            if self._told.get(assignment.partition) == assignment:
                del self._told[assignment.partition]
        await self._checkpoint(assignments)

    async def _checkpoint(self, assignments: Sequence[Assignment]) -> None:
        """Position and counts as they are now, for when the group's offsets are gone one day."""
        try:
            async with asyncio.timeout(_CHECKPOINT_SECONDS):
                await self._in_commit_thread(lambda: self.writer.checkpoint(assignments))
        except (LogError, CacheBroken, TimeoutError) as error:
            _log.info(
                "the last checkpoint of %s could not be written: %s",
                self.writer.group,
                error,
                extra=event("state.checkpoint_failed", subscription=self.writer.group),
            )

    def tell_lost(self, partitions: Sequence[int]) -> None:
        """Tell the owner, once, that these are over."""
        gone = [self._told.pop(each) for each in partitions if each in self._told]
        if gone:
            self._owner.lost(gone)
            self.changed()

    async def retire(self) -> None:
        """Settle everything and stop taking part; the polling thread has to be stopped after it.

        What waits for a cluster that is away is not waited for any longer than owners have for settling.
        """
        try:
            async with asyncio.timeout(REVOKE_SECONDS):
                await self._one_at_a_time.acquire()
        except TimeoutError:
            self._leaving = True
            _log.warning(
                "subscription %s leaves with a commit or a takeover of unknown outcome: its next owner finds out",
                self.writer.group,
                extra=event("partitions.not_settled", subscription=self.writer.group),
            )
            self.tell_lost(sorted(self._told))
        else:
            try:
                self._leaving = True
                await self.settle(sorted(self._told))
            finally:
                self._one_at_a_time.release()
        for task in self._tasks:
            task.cancel()

    def abandon(self) -> None:
        """Take no part any more and tell nobody."""
        self._leaving = True
        self._told.clear()
        for task in self._tasks:
            task.cancel()
        _close_caches(self._ownership.give_up(list(self._ownership.owned), 0))

    # -- the commit thread --------------------------------------------------------------------

    async def commit(self, unit: list[PartitionCommit]) -> list[Assignment]:
        """Commit in the order of calls. A call that is cancelled goes on, before any later one."""
        refused = await self._in_commit_thread(lambda: self.writer.commit(unit))
        if refused:
            self.tell_lost([each.partition for each in refused if self._told.get(each.partition) == each])
        for part in unit:
            if self._ownership.stands(part.assignment) and self._cache_broken(part.assignment):
                self.retake(part.assignment)
        return refused

    def _cache_broken(self, assignment: Assignment) -> bool:
        return self._ownership.stands(assignment) and self._ownership.owned[assignment.partition].cache_broken

    async def keep_copies(self) -> None:
        """Again and again, copy held records that retention may take before long."""
        while True:
            await self._parts.cluster.clock.sleep(_COPY_SECONDS)
            try:
                await self._in_commit_thread(self.writer.copy_threatened)
            except LogError as error:
                _log.warning(
                    "subscription %s could not copy held records: %s",
                    self.writer.group,
                    error,
                    extra=event("held.copy_failed", subscription=self.writer.group),
                )

    async def _in_commit_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._committing, work)

    def close(self) -> None:
        """Let go of the commit thread, when what it does has ended."""
        self._committing.submit(self.writer.transactions.close)
        self._committing.shutdown(wait=False)


def _close_caches(owned: Sequence[Owned]) -> None:
    for each in owned:
        each.cache.close()


def _truncated(cursor: Cursor, end: int) -> LogError:
    return LogCorrupt(
        f"Position {cursor.next_offset} of {cursor.topic} partition {cursor.assignment.partition} lies beyond its end,"
        f" {end}:"
        " the topic was deleted and made again, or brokers lost records that they had acknowledged.",
        remedy="Find out which; then, while no worker runs, move the group's offset by `kafka-consumer-groups.sh "
        "--reset-offsets`, which is noticed and counted, or begin anew by `postline subscriptions remove`.",
    )
