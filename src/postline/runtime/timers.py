"""Timers of one owned partition: what happens at a time, kept in its state and fired into its commits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeAlias

from postline.clock import Timer
from postline.errors import LogError
from postline.log.port import Assignment, Membership
from postline.logs.events import event
from postline.runtime.delays import DelayToken, Waiting, offset_in, unpack_append
from postline.runtime.entries import DEAD, HELD, TIMERS, TimerEntry, decode_entry, encode_entry, offset_key
from postline.runtime.plan import Plan
from postline.runtime.revoked import Revoked
from postline.runtime.surroundings import Surroundings
from postline.runtime.unit import PendingUnit
from postline.runtime.upcoming import PAGE_ENTRIES, Upcoming, timer_key
from postline.runtime.wall import WallWatch
from postline.runtime.window import Window

__all__ = ["APPEND", "TimerKind", "TimerOwner", "Timers"]

_log = logging.getLogger("postline.runtime")

#: The kind of timers that append a record, packed by `pack_append`.
APPEND = "append"

#: Most that fire into one commit.
_BATCH = 500
_RETRY_SECONDS = 0.2
_RETRY_SECONDS_MAX = 5.0


class TimerOwner(Protocol):
    """What timers are kept for: an owned partition, as far as they must know it."""

    around: Surroundings
    plan: Plan
    assignment: Assignment
    membership: Membership
    topic: str
    partition: int
    window: Window
    unit: PendingUnit
    committing: PendingUnit | None
    draining: bool

    async def read_entry(self, namespace: str, key: bytes) -> bytes | None:
        """A state entry as this owner last wrote it, committed or not."""


#: Called when a timer of its kind is due: puts its effects into the partition's pending unit, and waits for nothing.
TimerKind: TypeAlias = Callable[[Any, TimerEntry], None]


class Timers:
    """Sets, cancels and fires the timers of one assignment. Event loop only.

    Setting, cancelling and firing go into the next commit of the partition, whatever else that holds, so that a timer
    fires once whoever owns the partition by then. Those of a kind that nobody registered stay until a version comes
    that knows it.
    """

    def __init__(self, owned: TimerOwner, kinds: Mapping[str, TimerKind]) -> None:
        self._owned = owned
        self._kinds = kinds
        #: For each question to state that is under way, what fires meanwhile: the answer may be from before.
        self._asking: list[set[bytes]] = []
        #: A topic that something goes to, which the log is to be asked for.
        self._asks_for = ""
        self._clock = owned.around.clock
        self.upcoming = Upcoming(self._clock)
        #: Changes since a read of state began, which it may not have seen; None while none is under way.
        self._since: dict[bytes, TimerEntry | None] | None = None
        self._wake: Callable[[], None] | None = None
        self._fail: Callable[[BaseException], None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._rings_at = 0.0
        #: The wall clock was set: what is planned by it is to be planned again.
        self._looks_again = False
        self._committed = asyncio.Event()
        self.revoked = Revoked(owned)
        self._watch = WallWatch(self._clock, self._wall_clock_changed)

    async def load(self) -> None:
        """Take up what the last owner left."""
        await self.revoked.load()
        await self._read_more()

    def begin(self, wake: Callable[[], None], fail: Callable[[BaseException], None]) -> None:
        """Fire from now on; `wake` has commits looked for, `fail` hears what can't be gone on with."""
        self._wake, self._fail = wake, fail
        self._arm()

    @property
    def busy(self) -> bool:
        """Whether something is being fired, or read for it."""
        return self._pump is not None

    # -- setting and cancelling ---------------------------------------------------------------

    def set(
        self,
        due_ms: int,
        token: str,
        kind: str,
        payload: bytes,
        *,
        home: bytes | None = None,
        delay_ms: int = 0,
    ) -> None:
        """Have `kind` called with `payload` at `due_ms`, from the next commit on; set again, the last counts.

        `home` is the key whose partition it must lie in, for when a topic gets more partitions. One with `delay_ms`
        waits no longer than that, be the wall clock set back. Millions may wait.
        """
        self._put(TimerEntry(due_ms, token, kind, payload, home, delay_ms))

    def _put(self, entry: TimerEntry) -> None:
        key = timer_key(entry.due_ms, entry.order, entry.token)
        self._owned.unit.put(TIMERS, key, encode_entry(entry))
        self._changed(key, entry)

    def put_off(self, waiting: Waiting) -> None:
        """Let a message leave when it is due, unless it was cancelled before it came here."""
        if self.revoked.take(waiting.id):
            return
        (due_ms, delay_ms), order = waiting.due, waiting.order
        if waiting.noted:
            self.revoked.note(waiting.id, due_ms, order)
        self._put(TimerEntry(due_ms, waiting.id, APPEND, waiting.packed, None, delay_ms, order, waiting.noted))

    async def revoke(self, token: DelayToken) -> bool:
        """Cancel a message, be it one that is still to be put off; False if it has left.

        Either is kept for whoever asked, so that asking again gives the same answer.
        """
        entry = await self._find(token.due_ms, token.order, token.id)
        if entry is None and (noted := await self.revoked.place_of(token.id)) is not None:
            entry = await self._find(*noted, token.id)
        done = entry is not None or await self.revoked.told(token.id)
        if entry is not None:
            self.cancel(entry.due_ms, token.id, order=entry.order)
            self.revoked.forget(token.id)
        elif not done and await self._is_to_come(offset_in(token.order)):
            done = True
            self.revoked.add(token.id, token.due_ms)
        self.revoked.tell(token.id, done)
        return done

    async def _is_to_come(self, offset: int) -> bool:
        """Whether the record whose handling delays something has yet to be handled."""
        owned, key = self._owned, offset_key(offset)
        if not owned.window.settled(offset):
            return True
        return bool(await owned.read_entry(HELD, key) or await owned.read_entry(DEAD, key))

    def cancel(self, due_ms: int, token: str, *, order: int = 0) -> None:
        """Let the timer not fire; nothing happens if there is none."""
        key = timer_key(due_ms, order, token)
        self._owned.unit.delete(TIMERS, key)
        self._changed(key, None)

    async def find(self, due_ms: int, token: str) -> TimerEntry | None:
        """The timer as it is set now, committed or not; None if it has fired, was cancelled, or never was."""
        return await self._find(due_ms, 0, token)

    async def _find(self, due_ms: int, order: int, token: str) -> TimerEntry | None:
        key = timer_key(due_ms, order, token)
        fired: set[bytes] = set()
        self._asking.append(fired)
        try:
            data = await self._owned.read_entry(TIMERS, key)
        finally:
            self._asking.remove(fired)
        return None if data is None or key in fired else decode_entry(data, TimerEntry)

    def _changed(self, key: bytes, entry: TimerEntry | None) -> None:
        if self._since is not None:
            self._since[key] = entry
        if not self.upcoming.covers(key):
            return
        if entry is None:
            self.upcoming.discard(key)
        else:
            self.upcoming.add(key, entry)
        self._arm()

    # -- firing -------------------------------------------------------------------------------

    def _arm(self) -> None:
        """See to it that something happens when the next timer is due."""
        if self._wake is None or self._pump is not None or self._owned.draining:
            return
        left = self.upcoming.next_seconds()
        if self._looks_again or self.upcoming.wants_more or (left is not None and left <= 0):
            self._pump = asyncio.get_running_loop().create_task(self._run(), name=f"{self._owned.plan.name} timers")
            self._pump.add_done_callback(self._ended)
            return
        if left is None:
            self._watch.stop()
            return
        self._watch.start()
        rings_at = self._clock.monotonic() + left
        if self._timer is None or rings_at < self._rings_at:
            self._stop_timer()
            self._rings_at = rings_at
            self._timer = self._clock.call_later(left, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._arm()

    def _wall_clock_changed(self) -> None:
        self.upcoming.wall_clock_changed()
        self._looks_again = self._owned.plan.taken_up is not None
        self._stop_timer()
        self._arm()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ended(self, pump: asyncio.Task[None]) -> None:
        self._pump = None
        if pump.cancelled():
            return
        if (error := pump.exception()) is not None:
            if self._fail is not None:
                self._fail(error)
            return
        self._arm()

    async def _run(self) -> None:
        """Fire all that is due, batch by batch, each after the commit of the one before has ended."""
        owned, upcoming, wake = self._owned, self.upcoming, self._wake
        assert wake is not None
        if self._looks_again and owned.plan.taken_up is not None:
            self._looks_again = False
            await self._until_done(partial(owned.plan.taken_up, owned))
            wake()
        while True:
            if upcoming.wants_more:
                await self._until_done(self._read_more)
            if self._asks_for:
                await self._until_done(partial(owned.around.destinations.look, self._asks_for))
                self._asks_for = ""
            due = [] if owned.draining else upcoming.take_due(_BATCH)
            for key, entry in due:
                self._fire(key, entry)
            if not due:
                return
            self._committed.clear()
            wake()
            if owned.unit:
                await self._committed.wait()

    def _fire(self, key: bytes, entry: TimerEntry) -> None:
        if entry.kind == APPEND:
            self._fire_append(key, entry)
        elif (kind := self._kinds.get(entry.kind)) is not None:
            self._settle(key, entry)
            kind(self._owned, entry)
        else:
            self._leave(entry, f"is of kind {entry.kind!r}, which this version does not know")

    def _fire_append(self, key: bytes, entry: TimerEntry) -> None:
        append, partitions = unpack_append(entry.payload)
        destinations = self._owned.around.destinations
        if not destinations.knows(append.topic):
            self._asks_for = append.topic
            self.upcoming.put_back(key, entry)
        elif destinations.place(append, partitions):
            self._settle(key, entry)
            self._owned.unit.appends.append(append)
        else:
            self._leave(entry, f"goes to topic {append.topic!r}, which is gone: make it, and restart the service")

    def _settle(self, key: bytes, entry: TimerEntry) -> None:
        for fired in self._asking:
            fired.add(key)
        self._owned.unit.delete(TIMERS, key)
        if entry.noted:
            self.revoked.forget(entry.token)

    def _leave(self, entry: TimerEntry, why: str) -> None:
        """Let it stay in state, for whoever takes the partition up next."""
        plan = self._owned.plan
        _log.error(
            "subscription %s keeps timer %s, which is due but %s",
            plan.name,
            entry.token,
            why,
            extra=event("timer.kept", subscription=plan.name),
        )

    def committed(self) -> None:
        """A commit of the partition is durable."""
        self._committed.set()

    def stop(self) -> None:
        """The partition goes to another owner: fire nothing any more."""
        self._stop_timer()
        self._watch.stop()
        if self._pump is not None:
            self._pump.cancel()

    # -- reading from state -------------------------------------------------------------------

    async def _until_done(self, read: Callable[[], Awaitable[None]]) -> None:
        delay = _RETRY_SECONDS
        while True:
            try:
                return await read()
            except LogError as error:
                if not error.retryable:
                    raise
                _log.warning(
                    "subscription %s can't read its timers, tries again: %s",
                    self._owned.plan.name,
                    error,
                    extra=event("log.unavailable", subscription=self._owned.plan.name, partition=self._owned.partition),
                )
                await self._clock.sleep(delay)
                delay = min(delay * 2, _RETRY_SECONDS_MAX)

    async def _read_more(self) -> None:
        """Bring the next page of state into memory, under what has changed since it was committed."""
        owned, upcoming = self._owned, self.upcoming
        after = upcoming.horizon
        if after is None:
            return
        self._since = {}
        for unit in (owned.committing, owned.unit):
            for (namespace, key), data in unit.changes.items() if unit is not None else ():
                if namespace == TIMERS:
                    self._since[key] = None if data is None else decode_entry(data, TimerEntry)
        try:
            found = await owned.membership.scan_state(owned.assignment, TIMERS, after, PAGE_ENTRIES)
            horizon = found[-1][0] if len(found) == PAGE_ENTRIES else None
            page = {key: decode_entry(data, TimerEntry) for key, data in found}
            for key, entry in self._since.items():
                if entry is None:
                    page.pop(key, None)
                elif key > after and (horizon is None or key <= horizon):
                    page[key] = entry
        finally:
            self._since = None
        if upcoming.horizon == after:  # else so many were set meanwhile that this page lies beyond what is known
            upcoming.extend(sorted(page.items()), horizon)
