"""One member's part in its group: it takes over, gives back, and notices what it has lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from postline.errors import LogError
from postline.log.port import REVOKE_SECONDS, Assignment, PartitionOwner
from postline.log.sqlite.connection import translated
from postline.log.sqlite.fetching import Feed
from postline.log.sqlite.groups import Group, Handover, MemberRow, depart, read_group, settle
from postline.log.sqlite.storage import Storage
from postline.logs.events import event

__all__ = ["Steward"]

_RETRY_SECONDS = 0.5

_logger = logging.getLogger("postline.log.sqlite")


class Steward:
    """Keeps one member's assignments as the file has them; `run` is its task, everything else is synchronous.

    There is no coordinator: each member reads the group, removes the dead, and writes who shall have
    what. Owners let go of what others shall have, and those take what is free.
    """

    def __init__(
        self,
        storage: Storage,
        me: MemberRow,
        place: tuple[str, str],
        owner: PartitionOwner,
        feed: Feed,
        changed: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._me = me
        self._subscription, self._topic = place
        self._owner = owner
        self._feed = feed
        self._changed = changed
        self._held: dict[int, Assignment] = {}
        #: Those of them that `assigned` is at work on.
        self._arriving: list[Assignment] = []
        self._poked = asyncio.Event()
        self._poked.set()

    async def run(self) -> None:
        """Put the group in order whenever it may have changed; ends only by being cancelled or by an error."""
        while True:
            await self._poked.wait()
            self._poked.clear()
            try:
                await self._round()
            except LogError as error:
                if not error.retryable:
                    raise
                _logger.warning(
                    "member %s of %s can't take part now: %s",
                    self._me.member,
                    self._subscription,
                    error,
                    extra=event("member.waits", subscription=self._subscription, member=self._me.member),
                )
                self._storage.clock.call_later(_RETRY_SECONDS, self.poke)

    def poke(self) -> None:
        """The group may have changed."""
        self._poked.set()

    def lose(self, assignments: Sequence[Assignment]) -> None:
        """These were refused or have another owner: tell the owner, once."""
        lost = [each for each in assignments if self._held.get(each.partition) == each]
        if not lost:
            return
        self._forget(lost)
        self._owner.lost(lost)
        self._changed()
        self.poke()

    async def retire(self) -> None:
        """Give everything back and leave the group. `run` must have ended."""
        arriving, self._arriving = self._arriving, []
        self.lose(arriving)
        try:
            await self._revoke(list(self._held.values()))
        finally:
            # Whatever came of settling, others must not wait for this member.
            await self._depart()

    async def _depart(self) -> None:
        me, salt = self._me, self._subscription
        await self._storage.writer.submit(lambda connection: depart(connection, me.member, me.subscription_id, salt))
        self._forget(list(self._held.values()))
        self._storage.presence.announce_group()

    async def _round(self) -> None:
        self._storage.require_started()
        with translated(self._storage.address):
            group = read_group(self._storage.reader.connection, self._me.subscription_id)
        self._see(group)
        unwanted = [
            each for row in group.rows if row.wanted != self._me.member and (each := self._held.get(row.partition))
        ]
        await self._revoke(unwanted)
        # Some may have been lost while they were being settled.
        released = [each for each in unwanted if self._held.get(each.partition) == each]
        gone = self._gone(group.members)
        if released or self._is_in_disorder(group, gone):
            await self._settle(gone, released)

    async def _settle(self, gone: frozenset[str], released: Sequence[Assignment]) -> None:
        held = {each.partition: each.epoch for each in self._held.values()}
        freed = {each.partition: each.epoch for each in released}
        handover = Handover(self._subscription, gone, held, freed)
        me = self._me
        group = await self._storage.writer.submit(lambda connection: settle(connection, me, handover))
        self._forget(released)
        self._storage.presence.announce_group()
        self._see(group)
        await self._take_over(group)

    def _see(self, group: Group) -> None:
        """Take note of what this one has lost."""
        epochs = {row.partition: row.epoch for row in group.rows if row.owner == self._me.member}
        self.lose([each for each in self._held.values() if epochs.get(each.partition) != each.epoch])

    def _gone(self, members: dict[str, float]) -> frozenset[str]:
        is_gone = self._storage.presence.liveness.is_gone
        with translated(self._storage.address):
            return frozenset(
                name for name, lease in members.items() if name != self._me.member and is_gone(name, lease)
            )

    def _is_in_disorder(self, group: Group, gone: frozenset[str]) -> bool:
        """Whether this member has something to write."""
        if not group.rows:
            return False
        if gone or self._me.member not in group.members:
            return True
        goal = group.goal(self._subscription, ())
        for row in group.rows:
            mine = row.wanted == self._me.member and row.partition not in self._held
            if row.wanted != goal[row.partition] or (mine and (not row.owner or row.owner == self._me.member)):
                return True
        return False

    async def _take_over(self, group: Group) -> None:
        arriving = [
            Assignment(self._subscription, self._topic, row.partition, row.epoch, row.position, row.progress)
            for row in group.rows
            if row.owner == self._me.member and row.partition not in self._held
        ]
        if not arriving:
            return
        for each in arriving:
            self._held[each.partition] = each
            self._feed.open(each)
        self._arriving = arriving
        try:
            await self._owner.assigned(arriving)
        except LogError:
            # Not taken up, so not held either: the next round acquires them anew.
            self._arriving = []
            self._forget(arriving)
            self._owner.lost(arriving)
            raise
        self._arriving = []
        for each in arriving:
            self._feed.activate(each, True)
        self._changed()

    async def _revoke(self, assignments: Sequence[Assignment]) -> None:
        """Let the owner settle these, for a bounded time; they stay this member's until it releases them."""
        if not assignments:
            return
        for each in assignments:
            self._feed.activate(each, False)
        self._changed()
        settling = asyncio.ensure_future(self._owner.revoked(assignments))
        limit = self._storage.clock.call_later(REVOKE_SECONDS, lambda: _cancel(settling))
        try:
            await asyncio.wait({settling})
        finally:
            limit.cancel()
            settling.cancel()
        if settling.cancelled():
            _logger.warning(
                "%s did not settle its partitions in time: %s",
                self._subscription,
                assignments,
                extra=event("partitions.not_settled", subscription=self._subscription),
            )
            self._owner.lost([each for each in assignments if self._held.get(each.partition) == each])
        else:
            settling.result()

    def _forget(self, assignments: Sequence[Assignment]) -> None:
        for each in assignments:
            if self._held.get(each.partition) == each:
                del self._held[each.partition]
                self._feed.drop(each)


def _cancel(task: asyncio.Future[None]) -> None:
    task.cancel()
