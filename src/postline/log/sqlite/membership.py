"""`SqliteMembership`: one process's place in a subscription's group, and how it is joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import apsw

from postline.clock import Alarm
from postline.errors import LogError
from postline.log.port import Assignment, CommitUnit, Fetched, GroupSpec, MemberInfo, PartitionOwner
from postline.log.sqlite.appending import Appended
from postline.log.sqlite.connection import fetch, translated
from postline.log.sqlite.fetching import Feed
from postline.log.sqlite.groups import (
    MemberRow,
    add_member,
    decoded_formats,
    encoded_formats,
    ensure_subscription,
    read_group,
    remove_subscription,
)
from postline.log.sqlite.marking import require_standing
from postline.log.sqlite.presence import instance_name
from postline.log.sqlite.state import get_entries, scan_entries
from postline.log.sqlite.statements import statements
from postline.log.sqlite.steward import Steward
from postline.log.sqlite.storage import Storage
from postline.logs.events import event

__all__ = ["SqliteMembership", "dead_members", "join", "live_members", "remove_group"]

_logger = logging.getLogger("postline.log.sqlite")


class SqliteMembership:
    """The port's Membership on a file or in memory. Made by `join`; the event loop's property.

    Its owner's callbacks run in a task of their own, one after another. An error that they raise
    ends that task and comes out of the next `fetch`.
    """

    def __init__(self, storage: Storage, me: MemberRow, spec: GroupSpec, owner: PartitionOwner) -> None:
        self._storage = storage
        self._me = me
        self._feed = Feed(storage.reader)
        self._steward = Steward(
            storage, me, (spec.subscription, spec.topic), owner, self._feed, self._assignment_changed
        )
        self._waiting: asyncio.Future[bool] | None = None
        self._patience = Alarm(storage.clock, lambda: self._let_fetch_go(True))
        self._woken = False
        self._left = False
        self._leaving = asyncio.Lock()
        storage.presence.add(self)
        storage.on_close.append(self._leave_at_close)
        self._task = asyncio.ensure_future(self._steward.run())
        self._task.add_done_callback(lambda task: self._let_fetch_go(True))

    @property
    def member(self) -> str:
        """Its name in the group; another one for every membership."""
        return self._me.member

    # Fetching.

    async def fetch(self, max_records: int, max_bytes: int, wait_seconds: float) -> list[Fetched]:
        """Records of owned, unpaused partitions in turn; [] after `wait_seconds`, or when woken."""
        self._storage.require_started()
        clock = self._storage.clock
        end = clock.monotonic() + wait_seconds
        leave_now = False
        while True:
            self._raise_failure()
            with translated(self._storage.address):
                found = self._feed.take(max_records, max_bytes)
            left = end - clock.monotonic()
            if found or leave_now or self._woken or left <= 0:
                self._woken = False
                return found
            leave_now = await self._wait(left)

    def wake(self) -> None:
        """Make a waiting `fetch` return now; the next one, if none is waiting."""
        self._woken = True
        self._let_fetch_go(True)

    def pause(self, assignment: Assignment) -> None:
        """Fetch nothing more of the subscribed topic for this partition; siblings go on."""
        self._feed.pause(assignment, True)

    def resume(self, assignment: Assignment) -> None:
        """Undo `pause`."""
        self._feed.pause(assignment, False)
        self._look_again()

    def seek(self, assignment: Assignment, offset: int) -> None:
        """Go on from `offset` of the subscribed topic at the next fetch."""
        self._feed.seek(assignment, assignment.topic, offset)
        self._look_again()

    def follow(self, assignment: Assignment, topic: str, offset: int) -> None:
        """Fetch the same partition of a sibling topic too, from `offset`. Raises UnknownTopic."""
        self._feed.seek(assignment, topic, offset)
        self._look_again()

    # State and commits.

    async def get_state(self, assignment: Assignment, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The committed entries among `keys`; absent ones are left out."""
        self._storage.require_started()
        connection = self._storage.reader.connection
        with translated(self._storage.address):
            return get_entries(connection, self._me.subscription_id, assignment.partition, namespace, keys)

    async def scan_state(
        self, assignment: Assignment, namespace: str, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Committed entries with keys above `after`, in key order."""
        self._storage.require_started()
        connection = self._storage.reader.connection
        with translated(self._storage.address):
            return scan_entries(connection, self._me.subscription_id, assignment.partition, namespace, after, limit)

    async def commit(self, unit: CommitUnit) -> list[Assignment]:
        """Commit the unit atomically and durably; `lost` has been called for what it gives back."""
        self._storage.require_started()
        refused = await self._storage.commit(self._me.subscription_id, unit)
        if refused:
            self._steward.lose(refused)
        return refused

    # Leaving.

    async def leave(self) -> None:
        """Give up what is owned (after `revoked`) and leave the group. Idempotent.

        Raises LogError if that could not be written; then it may be called again. Not to be
        awaited inside the owner's callbacks, which it would wait for.
        """
        async with self._leaving:
            if self._left:
                return
            await self._stop()
            await self._steward.retire()
            self._detach()

    async def abandon(self) -> None:
        """Stop without a word, as if the process had died; for a log in memory, in tests."""
        async with self._leaving:
            await self._stop()
            self._detach()
            self._storage.presence.announce_group()

    # What the presence tells.

    def records_appended(self, appended: Appended | None) -> None:
        """Something may be there to be fetched."""
        self._feed.mark(appended)
        self._look_again()

    def group_changed(self) -> None:
        """Members or assignments may have changed."""
        self._steward.poke()

    def tick(self) -> None:
        """Time to look for the dead, and at the group even if nobody rang: a round that finds order only reads."""
        self._steward.poke()

    async def _wait(self, seconds: float) -> bool:
        """Wait for news; says whether `fetch` shall return whatever it finds."""
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        self._patience.set(self._storage.clock.monotonic() + seconds)
        try:
            return await waiting
        finally:
            self._patience.clear()
            self._waiting = None

    def _let_fetch_go(self, leave_now: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(leave_now)

    def _look_again(self) -> None:
        if self._waiting is not None and self._feed.readable():
            self._let_fetch_go(False)

    def _assignment_changed(self) -> None:
        self._let_fetch_go(True)

    def _raise_failure(self) -> None:
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def _stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    def _detach(self) -> None:
        self._left = True
        self._patience.stop()
        self._storage.presence.discard(self)
        self._storage.presence.liveness.depart(self._me.member)
        if self._leave_at_close in self._storage.on_close:
            self._storage.on_close.remove(self._leave_at_close)
        self._let_fetch_go(True)

    async def _leave_at_close(self) -> None:
        try:
            await self.leave()
        except LogError as error:
            # The others see it all the same: the sign of life goes with the log.
            _logger.warning(
                "member %s could not leave its group: %s",
                self._me.member,
                error,
                extra=event("member.leave_failed", member=self._me.member),
            )


async def join(storage: Storage, spec: GroupSpec, owner: PartitionOwner) -> SqliteMembership:
    """Join a subscription's group, creating the subscription if it is new.

    Raises UnknownTopic, SubscriptionConflict. Partitions come later, through `owner.assigned`.
    """
    name = storage.presence.new_member()
    now_ms, address = storage.clock.now_ms(), storage.address
    lease_ms = int(storage.settings.lease_seconds * 1000)
    instance, formats = spec.instance or instance_name(), encoded_formats(spec.formats)

    dead = frozenset(name for alias in spec.aliases for name in dead_members(storage, alias))

    def enter(connection: apsw.Connection) -> MemberRow:
        require_standing(connection, address)
        subscription_id = ensure_subscription(connection, spec, now_ms, address, dead)
        row = MemberRow(name, subscription_id, instance, now_ms, lease_ms, formats)
        add_member(connection, row)
        return row

    storage.presence.liveness.enter(name)
    entering = storage.writer.submit(enter)
    try:
        me = await entering
    except BaseException:
        # Whether it entered is unknown: the others must not wait for it while this process lives.
        storage.presence.liveness.depart(name)
        _withdraw(storage, name)
        raise
    return SqliteMembership(storage, me, spec, owner)


def live_members(storage: Storage, subscription: str) -> list[MemberInfo]:
    """The live members of a subscription's group, in the order in which they joined."""
    with translated(storage.address):
        connection = storage.reader.connection
        found = fetch(connection, statements("groups")["subscription"], (subscription,))
        rows = fetch(connection, statements("groups")["member_infos"], (found[0][0],)) if found else []
    is_gone = storage.presence.liveness.is_gone
    with translated(storage.address):
        return [
            MemberInfo(member=member, instance=instance, joined_ms=joined, formats=decoded_formats(formats))
            for member, lease_ms, instance, joined, formats in rows
            if not is_gone(member, lease_ms / 1000)
        ]


def dead_members(storage: Storage, subscription: str) -> frozenset[str]:
    """Members that are still written down but live no more; none if there is no such subscription."""
    with translated(storage.address):
        connection = storage.reader.connection
        found = fetch(connection, statements("groups")["subscription"], (subscription,))
        written = read_group(connection, int(found[0][0])).members.keys() if found else frozenset()
    return frozenset(written) - {info.member for info in live_members(storage, subscription)}


async def remove_group(storage: Storage, subscription: str, subscription_id: int) -> None:
    """Delete the subscription, but for its state. Raises UsageError while members live."""
    dead = dead_members(storage, subscription)
    # Checked inside the transaction: somebody may be about to join.
    await storage.writer.submit(lambda connection: remove_subscription(connection, subscription_id, subscription, dead))


def _withdraw(storage: Storage, member: str) -> None:
    remove = statements("groups")["remove_member"]
    removal = storage.writer.submit(lambda connection: connection.execute(remove, (member,)).close())

    def removed(done: asyncio.Future[None]) -> None:
        # If it couldn't be written, the row dies with this process.
        if not done.cancelled() and done.exception() is None:
            storage.presence.announce_group()

    removal.add_done_callback(removed)
