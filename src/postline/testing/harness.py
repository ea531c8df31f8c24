"""`TestApp`: apps running in memory on a virtual clock, and what a test asks of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

from postline.app import App, Environment, Published
from postline.app.prioritizing import sibling_of
from postline.contracts import Kind, Topic
from postline.errors import UnknownTopic, UsageError
from postline.events import Subscription
from postline.log.sqlite import SqliteLog
from postline.message import Envelope
from postline.runtime.consumer import Consumer
from postline.runtime.control import ControlOp, control_record
from postline.runtime.entries import USER_STATE
from postline.runtime.plan import CONTROL_SUFFIX
from postline.settings import LogUrl, Settings
from postline.testing.clocks import HousekeepingClock, TestClock
from postline.testing.ledger import DeadLetterView, audit, dead_letters, entries, instantly, records
from postline.testing.settling import Settling

__all__ = ["TestApp"]

MessageT = TypeVar("MessageT")

#: Who publishes what a test publishes and none of its apps owns.
_OUTSIDE = "outside"
_STEPS_MAX = 100_000
_DEFAULT_START_MS = 1_700_000_000_000


class TestApp:
    """Runs apps together on one log in memory: `async with TestApp(shop, billing) as t:`.

    Time stands still but for `advance`, so retries and delays take no real time and every run is the
    same (`seed` decides ids and jitter). `topics` names further topics to publish to, such as the
    ones that an app has a `ForeignTopic` of. Leaving it stops the apps. Nothing hangs: `settle`
    raises AssertionError, naming what is busy, when nothing has happened for `patience_seconds` of
    real time, or when more than `attempts_max` records were handled.
    """

    #: Not a test class, whatever its name says to pytest.
    __test__ = False

    def __init__(
        self,
        *apps: App,
        topics: Iterable[Topic] = (),
        start_ms: int = _DEFAULT_START_MS,
        seed: int = 0,
        settings: Settings | None = None,
        patience_seconds: float = 5.0,
        attempts_max: int = 100_000,
    ) -> None:
        self.apps = list(apps)
        self.clock = TestClock(start_ms)
        self.log = SqliteLog(None, clock=HousekeepingClock(self.clock))
        self._settings = settings or Settings(url=LogUrl("sqlite"))
        self._random = random.Random(seed)
        self._extra = list(topics)
        self._outside = App(_OUTSIDE, publishes_to=self._extra)
        self._anybody: App | None = None
        self._running: list[App] = []
        self._settling = Settling(
            self.clock, self._consumers, patience_seconds=patience_seconds, attempts_max=attempts_max
        )

    async def __aenter__(self) -> TestApp:
        await self.log.start()
        try:
            await self._outside.start(self.environment(), consume=False)
            await self._start_all()
        except BaseException:
            await self._end(abort=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(abort=error is not None)

    # -- apps come and go -----------------------------------------------------------------------

    def environment(self) -> Environment:
        """What apps run on here, for starting one by hand."""
        return Environment(
            self.log, self._settings, self.clock, random.Random(self._random.getrandbits(64)), watches=False
        )

    async def start(self, app: App) -> None:
        """Start an app beside those that run: a new version, or one that was stopped or crashed."""
        await app.start(self.environment())
        self._running.append(app)

    async def _start_all(self) -> None:
        """Start the apps; one that needs a topic that isn't there yet comes after its owner."""
        waiting, error = list(self.apps), None
        while waiting:
            later: list[App] = []
            for app in waiting:
                try:
                    await self.start(app)
                except UnknownTopic as unknown:
                    later.append(app)
                    error = unknown
            if len(later) == len(waiting) and error is not None:
                raise error
            waiting = later

    async def stop(self, app: App) -> None:
        """Stop an app as a deployment does: attempts that run may end, then it commits and leaves."""
        await self._settling.see_through(asyncio.ensure_future(app.stop()))
        self._running.remove(app)

    async def crash(self, app: App) -> None:
        """End an app as SIGKILL does: nothing more is committed, and others take its partitions over."""
        for consumer in app.consumers:
            if consumer.membership is not None:
                await consumer.membership.abandon()  # type: ignore[attr-defined]
        await app.abort()
        self._running.remove(app)

    # -- doing things ---------------------------------------------------------------------------

    async def publish(
        self,
        message: Any,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> Published:
        """Publish as the running app that owns the message's topic does, else as somebody outside.

        Where a bound makes it wait, apps go on and time passes until there is room, or the bound's limit is over.
        """
        publisher = await self._publisher(type(message))
        told: dict[str, Any] = {"id": id, "headers": headers, "priority": priority, "delay": delay, "at": at}
        if not any(topic.bound for topic in self._topics()):
            return await publisher.publish(message, **told)
        return await self._settling.until_done(asyncio.ensure_future(publisher.publish(message, **told)))

    async def publish_many(
        self,
        messages: Iterable[Any],
        *,
        id_of: Callable[[Any], str] | None = None,
        priority: str | None = None,
    ) -> list[Published]:
        """Publish messages in order; all are stored when this returns."""
        return [
            await self.publish(message, id=id_of(message) if id_of else None, priority=priority) for message in messages
        ]

    async def settle(self) -> None:
        """Run until every subscription has settled or held all there is; time stands still.

        Raises what an app failed with, and AssertionError if it can't get there.
        """
        await self._settling.settle()

    async def advance(
        self, by: timedelta | None = None, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let virtual time pass, stopping at every retry and timer on the way to settle what it sets off.

        Raises as `settle` does, except that attempts with a time limit, or that sleep on this
        clock, may go on.
        """
        span = (by or timedelta()) + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if span <= timedelta():
            raise UsageError("advance was given no time to pass.", remedy="Say advance(minutes=5), or a timedelta.")
        end = self.clock.monotonic() + span.total_seconds()
        await self._settling.pass_by()
        for _ in range(_STEPS_MAX):
            due = self.clock.next_step(self._settling.attempts_run())
            if due is None or due > end:
                break
            self.clock.move_to(due)
            await self._settling.pass_by()
        else:
            raise AssertionError(f"Timers came due {_STEPS_MAX} times; advance by less at a time.")
        self.clock.move_to(end)
        await self._settling.pass_by()

    async def redrive(self, subscription: Subscription | str, *letters: DeadLetterView) -> int:
        """Ask for dead letters to be run again, all of the subscription if none is given; how many. Then `settle`."""
        return await self._ask(subscription, "redrive", letters, "")

    async def discard(self, subscription: Subscription | str, *letters: DeadLetterView, reason: str = "test") -> int:
        """Ask for dead letters to be given up for good, all if none is given; how many. Then `settle`."""
        return await self._ask(subscription, "discard", letters, reason)

    async def control(self, subscription: Subscription | str, op: ControlOp, partition: int | None = None) -> None:
        """Ask the owners of a subscription (of one partition, or of all) for something. Then `settle`."""
        name = self._full(self._subscription(subscription))
        chosen = [info.partition for info in instantly(self.log.partitions(name))] if partition is None else [partition]
        await self.log.append([self._control_record(name, each, op) for each in chosen])

    # -- looking at the result --------------------------------------------------------------------

    def published(self, kind: type[MessageT], *, topic: Topic | str | None = None) -> list[MessageT]:
        """All messages of a type that lie in its topic (or in the one given), oldest first.

        Within one moment they come partition by partition, each partition in its order.
        """
        return [message for message, _ in self.envelopes(kind, topic=topic)]

    def envelopes(self, kind: type[MessageT], *, topic: Topic | str | None = None) -> list[tuple[MessageT, Envelope]]:
        """As `published`, each message with its envelope."""
        contract = next(
            (each for topic in self._topics() for each in topic.contracts.values() if each.cls is kind), None
        )
        if contract is None:
            raise UsageError(f"No topic of this test declares {kind.__qualname__}.", remedy="Name it in topics=[…].")
        name = topic.name if isinstance(topic, Topic) else topic or contract.topic
        return [
            (contract.decode(record[4]), self.log.envelope(record))
            for record in records(self.log, self._settings.full_name(name))
            if record[3] == contract.name and record[4] is not None
        ]

    def log_records(self, topic: Topic | str) -> list[tuple[bytes | None, Envelope]]:
        """The values of all records of a topic as stored, each with its envelope; partition by partition."""
        name = topic.name if isinstance(topic, Topic) else topic
        return [(record[4], self.log.envelope(record)) for record in records(self.log, self._settings.full_name(name))]

    def dead_letters(self, subscription: Subscription | str) -> list[DeadLetterView]:
        """What the subscription has given up on and nobody has redriven or discarded."""
        found = self._subscription(subscription)
        return dead_letters(self.log, self._full(found), self._settings.full_name(found.topic.name))

    def state(self, subscription: Subscription | str, key: bytes | str | int) -> Any:
        """What the handlers have stored for a key, as committed; None if there is nothing."""
        found = self._subscription(subscription)
        place = key if isinstance(key, bytes) else str(key).encode()
        if found.policy.state is None:
            raise UsageError(
                f"Subscription {found.name!r} keeps no state.", remedy="Declare it: subscribe(…, state=Type)."
            )
        name = self._full(found)
        for info in instantly(self.log.partitions(name)):
            for stored, data in entries(self.log, name, info.partition, USER_STATE):
                if stored == place:
                    return Kind(found.policy.state).read(data)
        return None

    def audit(self) -> dict[str, dict[str, int]]:
        """How records have ended, by subscription; AssertionError if a record is unaccounted for."""
        faults: list[str] = []
        counts = audit(self.log, faults.append)
        if faults:
            raise AssertionError("The audit does not balance:\n" + "\n".join(faults))
        return counts

    # -- inside -----------------------------------------------------------------------------------

    def _consumers(self) -> list[Consumer]:
        return [consumer for app in self._running for consumer in app.consumers]

    def _subscription(self, named: Subscription | str) -> Subscription:
        if isinstance(named, Subscription):
            return named
        for app in [*self._running, *self.apps]:
            if named in app.subscriptions:
                return app.subscriptions[named]
            if (found := sibling_of(app.subscriptions, named)) is not None:
                return found
        raise UsageError(f"No app of this test has a subscription named {named!r}.", remedy="Correct the name.")

    def _full(self, subscription: Subscription) -> str:
        return self._settings.full_name(subscription.name)

    def _topics(self) -> list[Topic]:
        """All topics that the apps and the test know, each name once."""
        apps = [*self._running, *self.apps]
        subscribed = [
            each.topic for app in apps for each in app.subscriptions.values() if isinstance(each.topic, Topic)
        ]
        owned = [topic for app in apps for topic in (*app.owns, *app.publishes_to)]
        return list({topic.name: topic for topic in (*subscribed, *owned, *self._extra)}.values())

    async def _publisher(self, kind: type) -> App:
        for app in self._running:
            if any(kind in topic.classes for topic in app.owns):
                return app
        if any(kind in topic.classes for topic in self._extra):
            return self._outside
        if self._anybody is None:
            # Not before it is needed: what contradicts itself between apps shall be reported by them.
            anybody = App(_OUTSIDE, publishes_to=self._topics())
            await anybody.start(self.environment(), consume=False)
            self._anybody = anybody
        return self._anybody

    async def _ask(
        self, subscription: Subscription | str, op: str, letters: Sequence[DeadLetterView], reason: str
    ) -> int:
        asked = letters or self.dead_letters(subscription)
        for letter in asked:
            wanted = ControlOp(op=op, offset=letter.offset, reason=reason)  # type: ignore[arg-type]
            await self.control(subscription, wanted, letter.partition)
        return len(asked)

    def _control_record(self, name: str, partition: int, op: ControlOp) -> Any:
        envelope = Envelope(id=f"{self._random.getrandbits(64):x}", source=_OUTSIDE, time_ms=self.clock.now_ms())
        return control_record(name + CONTROL_SUFFIX, partition, op, envelope)

    async def _end(self, *, abort: bool) -> None:
        for app in list(self._running):
            await (app.abort() if abort else self.stop(app))
        self._running.clear()
        await self._outside.abort()
        if self._anybody is not None:
            await self._anybody.abort()
        await self.log.close()
