"""The gates before topics that have a bound: who publishes at the edge passes, waits for room, or is refused."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import partial

from postline.clock import Clock
from postline.contracts import Bound
from postline.errors import BackPressure, LogError, LogUnavailable, MissingCapability, UnknownSubscription
from postline.log.port import Append, Bounds, Capability, Log
from postline.logs.events import event
from postline.runtime.lagging import Flow, Lag, lag_of
from postline.runtime.weighing import Weights

__all__ = ["LOOK_SECONDS", "RELEASED", "Gate", "Gates", "nap"]

_log = logging.getLogger("postline.runtime")

#: How old a look at the positions may be before there is another; only while somebody publishes.
LOOK_SECONDS = 0.25
_LOOK_SECONDS_MIN = 0.05
#: A look this old lets nobody in any more before the next one.
_STALE_SECONDS = 1.0
#: A topic that was over its bound is open again below this part of it, so that it does not swing.
RELEASED = 0.9
#: What is too large to fit ever passes below this part of the bound.
_OVERSIZE = 0.5
_RETRY_AFTER_SECONDS = (0.1, 3_600.0)


class _Waiter:
    """A call that waits for room."""

    __slots__ = ("future", "late", "number", "since")

    def __init__(self, number: int, since: float) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.number = number
        self.since = since
        #: Its time is up; it gets its answer with the next look.
        self.late = False


class Gate:
    """One topic's gate. Event loop only.

    It looks at the positions of the required subscriptions a few times a second, only while somebody publishes, and
    counts what this process adds between. Calls pass in the order in which they came.
    """

    def __init__(self, log: Log, clock: Clock, topic: str, bound: Bound) -> None:
        self.topic, self.bound = topic, bound
        self._log, self._clock = log, clock
        #: How far each required subscription was behind at the last look; those that don't exist are left out.
        self._lags: dict[str, Lag] = {}
        self._weights = None if bound.bytes is None else Weights(log, topic, bound.bytes)
        self._flows = {name: Flow() for name in bound.subscriptions}
        #: Records that this process has let pass since then.
        self._added = 0
        self._looked_at = float("-inf")
        #: Of those, what passed while it was being looked, and may be counted twice.
        self._unsure = 0
        #: The last look failed.
        self._blind = False
        self._one_look = asyncio.Lock()
        self._shut = False
        self._waiters: deque[_Waiter] = deque()
        self._watching: asyncio.Task[None] | None = None
        self._warned: set[str] = set()

    # -- passing ------------------------------------------------------------------------------

    async def room(self, number: int) -> None:
        """Return once so many records may be stored, as one. Raises BackPressure after the bound's limit."""
        now = self._clock.monotonic()
        age = now - self._looked_at
        if not self._waiters and not self._shut and age < _STALE_SECONDS and self._fits(number):
            self._added += number
            if age >= LOOK_SECONDS:
                self._watch()
            return
        await self._wait(_Waiter(number, now))

    def count(self, number: int) -> None:
        """So many records were stored without asking, by handlers."""
        self._added += number

    async def _wait(self, waiter: _Waiter) -> None:
        self._waiters.append(waiter)
        timer = self._clock.call_later(self.bound.wait_seconds, partial(self._too_late, waiter))
        self._watch()
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
        finally:
            timer.cancel()

    def _too_late(self, waiter: _Waiter) -> None:
        """Refuse it, if the last look is young enough to go by; else after the next."""
        waiter.late = True
        if not waiter.future.done() and self._looked_at >= waiter.since - LOOK_SECONDS:
            self._refuse(waiter)

    def _refuse(self, waiter: _Waiter) -> None:
        self._waiters.remove(waiter)
        if not waiter.future.done():
            waiter.future.set_exception(self._pressure(waiter))

    def _admit(self) -> None:
        """Let in who waits, in order, as far as there is room."""
        used = self.used()
        self._shut = used > 1.0 or (self._shut and used > RELEASED)
        while self._waiters and not self._shut:
            waiter = self._waiters[0]
            if self._fits(waiter.number):
                self._waiters.popleft()
                if not waiter.future.done():
                    self._added += waiter.number
                    waiter.future.set_result(None)
            elif self._unsure and self._fits(waiter.number - self._unsure):
                break  # the next look tells
            else:
                self._shut = True
        for waiter in [each for each in self._waiters if each.late]:
            self._refuse(waiter)

    def _fits(self, number: int) -> bool:
        bound = self.bound
        if bound.bytes is not None and self.used() >= 1.0:
            return False
        if bound.records is None or not self._lags:
            return True
        if number > bound.records:
            return self._records() <= bound.records * _OVERSIZE
        return self._records() + number <= bound.records

    # -- figures of the last look ---------------------------------------------------------------

    def due(self) -> bool:
        """Whether the last look is too old, or what was added since reaches the bound."""
        return self._clock.monotonic() - self._looked_at >= LOOK_SECONDS or (self._added > 0 and self.used() >= 1.0)

    def used(self) -> float:
        """How much of the bound the slowest required subscription uses: 1.0 is all of it."""
        return max(map(self.used_by, self._lags), default=0.0)

    def used_by(self, subscription: str) -> float:
        """How much of the bound this subscription uses; 0 if it is not required, so that nobody waits for it."""
        lag = self._lags.get(subscription)
        if lag is None:
            return 0.0
        mean = lag.bytes / lag.records if lag.records else 0.0  # what was added since is taken to be like the rest
        return self.bound.used(lag.records + self._added, lag.age_seconds, lag.bytes + self._added * mean)

    def _records(self) -> int:
        return max(lag.records for lag in self._lags.values()) + self._added

    # -- looking ------------------------------------------------------------------------------

    async def look(self, older_than: float = 0.0) -> None:
        """Look at the positions, unless the last look is younger than so many seconds. Raises what can't be retried."""
        async with self._one_look:
            if self._clock.monotonic() - self._looked_at >= older_than:
                try:
                    await self._measure()
                except LogError as error:
                    if not error.retryable:
                        raise
                    self._go_by_what_it_knew(error)
                else:
                    self._blind = False
                self._looked_at = self._clock.monotonic()

    def _go_by_what_it_knew(self, error: LogError) -> None:
        """A bound makes nothing less available than the log is."""
        log = _log.debug if self._blind else _log.warning
        log("topic %s: can't see how far its subscriptions lag: %s", self.topic, error)
        self._blind = True

    async def _measure(self) -> None:
        before, at = self._added, self._clock.monotonic()
        self._lags = await self._lags_behind(await self._log.bounds(self.topic), at)
        self._added -= before  # what passed meanwhile may have been seen or not: it counts
        self._unsure = self._added

    async def _lags_behind(self, bounds: list[Bounds], at: float) -> dict[str, Lag]:
        found, age_at_ms = {}, None if self.bound.age is None else self._clock.now_ms()
        for name in self.bound.subscriptions:
            try:
                if name not in self._lags:
                    await self._require_reads_it(name)
                found[name] = lag = await lag_of(
                    *(self._log, self.topic, name, bounds), age_at_ms=age_at_ms, weights=self._weights
                )
                self._flows[name].note(at, lag.passed, lag.records)
            except UnknownSubscription:
                self._bounds_nothing(name)
        return found

    async def _require_reads_it(self, name: str) -> None:
        if not any((info.name, info.topic) == (name, self.topic) for info in await self._log.subscriptions()):
            raise UnknownSubscription(f"Topic {self.topic!r} has no subscription {name!r}.")

    def _bounds_nothing(self, name: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            _log.warning(
                "topic %s is bounded by subscription %s, which does not exist or reads another topic: nobody waits for "
                "it until it does",
                *(self.topic, name),
                extra=event("bound.unknown_subscription", topic=self.topic, subscription=name),
            )

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._look_on(), name=f"{self.topic} gate")

    async def _look_on(self) -> None:
        """Look, and let in, until nobody waits any more."""
        try:
            fresh = self._pause() - (self._clock.monotonic() - self._looked_at)
            if self._shut and fresh > 0:
                await nap(self._clock, fresh)
            while True:
                await self.look()
                self._admit()
                if not self._waiters:
                    return
                await nap(self._clock, self._pause())
        except Exception as error:  # noqa: BLE001 - told to everybody who waits
            self.fail(error)
        finally:
            self._watching = None

    def fail(self, error: Exception) -> None:
        """Give everybody who waits this error."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def close(self) -> None:
        """Look no more; who waits is told that nothing was stored."""
        if self._watching is not None:
            self._watching.cancel()
        self.fail(
            LogUnavailable(
                f"The app stopped while a publish waited for room in topic {self.topic!r}; nothing was stored.",
                remedy="Publish again once it runs.",
            )
        )

    # -- forecasts ----------------------------------------------------------------------------

    def _slowest(self) -> str:
        return max(self._lags, key=self.used_by, default="")

    def _seconds_until(self, number: int) -> float | None:
        """When so many may pass, as the slowest has drained lately; None if it does not."""
        name, bound = self._slowest(), self.bound
        rate = self._flows[name].drained_per_second if name else None
        if not rate:
            return None
        lag, excess = self._lags[name], 0.0
        if bound.records is not None:
            fitting = bound.records * _OVERSIZE if number > bound.records else bound.records - number
            excess = self._records() - min(fitting, bound.records * RELEASED)
        if bound.age is not None and lag.age_seconds:
            released = bound.age.total_seconds() * RELEASED
            excess = max(excess, lag.records * (1 - released / lag.age_seconds))
        if bound.bytes is not None and lag.bytes:
            excess = max(excess, lag.records * (1 - bound.bytes * RELEASED / lag.bytes))
        return max(0.0, excess) / rate

    def _pause(self) -> float:
        seconds = self._seconds_until(self._waiters[0].number if self._waiters else 1)
        return LOOK_SECONDS if seconds is None else min(max(seconds / 2, _LOOK_SECONDS_MIN), LOOK_SECONDS)

    def _pressure(self, waiter: _Waiter) -> BackPressure:
        name = self._slowest()
        seconds = self._seconds_until(waiter.number)
        least, most = _RETRY_AFTER_SECONDS
        after = min(max(max(1.0, self.bound.wait_seconds) if seconds is None else seconds, least), most)
        waited = self._clock.monotonic() - waiter.since
        return BackPressure(
            f"Topic {self.topic!r} takes no more for now: subscription {name!r} is behind by {self._behind(name)}, and "
            f"there was no room within {waited:.1f} s. Nothing was stored.",
            remedy=f"Publish again in about {after:.1f} s. If it comes often, give the subscription more workers or "
            f"concurrency (`postline lag {name}` shows how it drains), or the topic a wider bound.",
            topic=self.topic,
            subscription=name,
            retry_after_seconds=after,
        )

    def _behind(self, name: str) -> str:
        lag, bound, told = self._lags.get(name, Lag(0, 0)), self.bound, []
        if bound.records is not None:
            told.append(f"{lag.records + self._added:,} of at most {bound.records:,} records")
        if bound.age is not None:
            told.append(f"{lag.age_seconds:.1f} of at most {bound.age.total_seconds():g} s")
        if bound.bytes is not None:
            told.append(f"{lag.bytes:,} of at most {bound.bytes:,} bytes")
        return " and ".join(told)


class Gates:
    """The gates of an app, by the full names of their topics; none where no topic has a bound."""

    def __init__(self, log: Log, clock: Clock, bounds: Mapping[str, Bound]) -> None:
        self._log = log
        self._gates = {topic: Gate(log, clock, topic, bound) for topic, bound in bounds.items()}
        #: False where no topic has a bound: then nobody need ask for room.
        self.bounded = bool(self._gates)
        limits = [bound.records for bound in bounds.values() if bound.records is not None]
        #: So many records at most are asked room for at once by who can choose: they fit whenever a gate is open.
        self.records_at_once = max(1, min(limits, default=1 << 40) // 10)

    def check(self) -> None:
        """Raise MissingCapability for a bound that the engine can't keep."""
        for topic, gate in self._gates.items():
            if gate.bound.bytes is not None and Capability.SIZES not in self._log.capabilities:
                raise MissingCapability(
                    f"Topic {topic!r} has a bound in bytes, and {self._log.address} can't tell how many bytes a "
                    "subscription is behind.",
                    remedy="Bound it by records= or age=.",
                )

    def of(self, topic: str) -> Gate | None:
        """The topic's gate; None if it has no bound."""
        return self._gates.get(topic)

    async def room(self, topic: str, number: int) -> None:
        """Return once so many records may be stored in the topic, at once if it has no bound.

        For publishing at the edge: handlers never ask. The records are counted from then on, so that whoever asks
        stores them now. Raises BackPressure after the bound's limit, with nothing counted.
        """
        gate = self._gates.get(topic)
        if gate is not None:
            await gate.room(number)

    async def room_for(self, appends: Sequence[Append]) -> None:
        """As `room`, for records of several topics."""
        for topic, number in Counter(append.topic for append in appends).items():
            await self.room(topic, number)

    def close(self) -> None:
        """Look no more; whoever waits gets LogUnavailable."""
        for gate in self._gates.values():
            gate.close()


async def nap(clock: Clock, seconds: float) -> None:
    """Let so much of the clock's time pass. By a timer: a sleeper would look like a handler that sleeps."""
    over = asyncio.Event()
    timer = clock.call_later(seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
