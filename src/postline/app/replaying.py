"""Replays: records that were handled once, read again by a shadow subscription or a function; nobody else notices."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from postline.app.environment import Environment
from postline.app.prioritizing import crews_of
from postline.app.running import Declared, Lifespan, Running
from postline.errors import UsageError
from postline.log.port import Log, Record, StartAt
from postline.runtime.consumer import Consumer
from postline.runtime.entries import REPLAY
from postline.runtime.gates import Gates
from postline.runtime.outcomes import Outcome
from postline.runtime.plan import REPLAY_INFIX, Plan
from postline.runtime.progress import Progress
from postline.runtime.replaying import ReplayLog, Stretch
from postline.runtime.surroundings import Surroundings

__all__ = ["Replayed", "Replaying", "Span", "replay"]

_LOOK_SECONDS = 0.2
_READ_RECORDS = 1_000


class Span(NamedTuple):
    """Which records: by their times (wall-clock milliseconds), and their keys."""

    #: None for the first record that is kept.
    since_ms: int | None = None
    #: Records of this time and later are left out; None for what is there at the beginning.
    until_ms: int | None = None
    keys: Collection[bytes] | None = None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay has come."""

    subscription: str
    #: The subscription that reads again, with positions, state and dead letters of its own.
    shadow: str
    #: "running" or "done".
    status: str
    #: Offsets of the stretch, and how many of them are behind it.
    total: int
    passed: int
    #: By outcome, as the shadow's audit counts them; "gaps" are offsets without a record, or of other keys.
    outcomes: dict[str, int]
    #: By topic, what handlers published in this process and was not stored.
    dropped: dict[str, int]


class Replayable(Declared, Protocol):
    """An app, as far as a replay must know it."""

    lifespan: Lifespan | None


class _Shadowing(Running):
    """An app of which nothing runs but one shadow."""

    async def shadow(self, plan: Plan, lifespan: Lifespan | None, *, publishes: bool) -> Consumer:
        """Begin to read again, under the plan's name; of the app only its lifespan is entered."""
        await self.topology.look()
        await self.topology.make_own(plan)
        await self.topology.prepare_more([plan])
        if publishes:
            await self._enroll()
        else:
            self.gates = Gates(self.log, self._environment.clock, {})
        resources = await self._enter(lifespan) if lifespan else None
        self._crews = crews_of([plan], self._environment.clock, None)
        await self._start_consumer(plan, resources)
        return self.consumers[0]


class Replaying:
    """One replay into a shadow subscription; `async with` it, then `wait`. Event loop only.

    The shadow is a subscription of the same handlers with positions, state, dead letters and deduplication of its own,
    which begins with nothing. What handlers publish, and how commands end, is dropped unless it `publishes`; what they
    do elsewhere happens again. Stopped or killed at any moment, the same replay goes on where its last commit was.
    """

    def __init__(self, app: Replayable, environment: Environment, stretch: Stretch, since_ms: int | None) -> None:
        self._app, self._clock = app, environment.clock
        self.log = ReplayLog(environment.log, environment.clock, stretch)
        self._inner = environment.log
        self._stretch, self._since_ms = stretch, since_ms
        self._running = _Shadowing(app, replace(environment, log=cast(Log, self.log)), owns_log=False)
        start = StartAt("earliest") if since_ms is None else StartAt("time", since_ms)
        live = self._running.plan_named(stretch.name.rpartition(REPLAY_INFIX)[0])
        self._plan = replace(live, name=stretch.name, aliases=(), start=start)
        self._consumer: Consumer | None = None

    async def __aenter__(self) -> Replaying:
        """Join as the shadow, and begin. Raises UsageError where it can't, SettingsError, LogError."""
        try:
            await self._require_possible()
            app, publishes = self._app, self._stretch.publishes
            self._consumer = await self._running.shadow(self._plan, app.lifespan, publishes=publishes)
        except BaseException:
            await self._running.stop(0)
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._running.stop(10.0)

    async def _require_possible(self) -> None:
        log, name = self._inner, self._stretch.name
        exists = any(each.name == name for each in await log.subscriptions())
        if exists and await log.members(name):
            raise UsageError(
                f"{name!r} is being replayed by another process.",
                remedy="Wait for it, or give this one another --name.",
            )
        if exists and self._stretch.asked:
            await _require_same(log, self._stretch)
        _require_order(self._since_ms, self._stretch.until_ms)
        if self._since_ms is not None and not exists:
            await require_kept(log, self._plan.topic, self._since_ms)

    async def wait(self, told: Callable[[Replayed], None] = lambda replayed: None) -> Replayed:
        """Wait until all of it is handled, and nothing waits for a retry; `told` hears how far it is.

        Raises what the consumer fails with.
        """
        consumer = self._consumer
        assert consumer is not None
        assert consumer.failed is not None
        while True:
            now, waits = await self._now()
            told(now)
            if now.status == "done" and not waits:
                return now
            if consumer.failed.done():
                raise consumer.failed.result()
            await self._clock.sleep(_LOOK_SECONDS)

    async def now(self) -> Replayed:
        """How far it is, as committed."""
        return (await self._now())[0]

    async def _now(self) -> tuple[Replayed, int]:
        counts, total, passed, waits = Counter[str](), 0, 0, 0
        for each in await self._inner.partitions(self._stretch.name):
            progress = Progress.decode(each.progress, each.position)
            end = max(self.log.ends.get(each.partition, 0), progress.start)
            total, passed = total + end - progress.start, passed + each.position - progress.start
            counts.update({outcome.label: progress.counts[outcome] for outcome in Outcome if progress.counts[outcome]})
            counts["gaps"] += progress.gaps
            waits += progress.standing.retrying if progress.standing is not None else 0
        found = Replayed(
            subscription=self._stretch.name.rpartition(REPLAY_INFIX)[0],
            shadow=self._stretch.name,
            status="done" if self.log.ends and passed >= total else "running",
            total=total,
            passed=passed,
            outcomes=dict(counts),
            dropped=dict(self.log.dropped),
        )
        return found, waits


async def _require_same(log: Log, stretch: Stretch) -> None:
    """Raise UsageError if the shadow that is there replays something else: its answer would be another question's."""
    for each in await log.partitions(stretch.name):
        for _, asked in await log.peek_state(stretch.name, each.partition, REPLAY, limit=1):
            if asked.decode() != stretch.asked:
                raise UsageError(
                    f"{stretch.name!r} was begun as `{asked.decode()}`, not as `{stretch.asked}`.",
                    remedy=f"Say the same to go on with it, give this one another --name, or give it up by"
                    f" `postline subscriptions remove {stretch.name}`.",
                )


def _require_order(since_ms: int | None, until_ms: int | None) -> None:
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise UsageError("The replay would end before it begins.", remedy="Let it end after the time it begins at.")


async def require_kept(log: Log, topic: str, since_ms: int) -> None:
    """Raise UsageError if retention has, or may have, taken records of that time."""
    for number, bounds in enumerate(await log.bounds(topic)):
        left = await log.read(topic, number, bounds.start, limit=1)
        if bounds.start and not (left and left[0][1] <= since_ms):
            raise UsageError(
                f"Topic {topic} may not keep all records of that time any more: partition {number} begins at offset"
                f" {bounds.start:,}, with a later one or none.",
                remedy="Begin later, or replay what is left: --from earliest.",
            )


async def replay(
    app: Replayable,
    environment: Environment,
    name: str,
    function: Callable[[Any, Record], Awaitable[None]],
    span: Span = Span(),  # noqa: B008 - immutable
) -> int:
    """Give a subscription's records, read as its handlers read them, to a function; how many it was given.

    `name` is the full one. The function is awaited with each message and its record, partition by partition, in the
    order of their offsets, and what it raises ends the replay. Nothing is stored, no handler runs, and no position is
    touched. Raises UsageError for an unknown subscription, for times in the wrong order and for one of which records
    may be gone; DecodeError, LogError.
    """
    _require_order(span.since_ms, span.until_ms)
    running, given = Running(app, environment, owns_log=False), 0
    try:
        plan = running.plan_named(name)
        if span.since_ms is not None:
            await require_kept(environment.log, plan.topic, span.since_ms)
        around = Surroundings(
            plan, environment.log, environment.clock, running.outlet, environment.random, running.registry
        )
        async for page in _pages(environment, plan.topic, span):
            await around.versions.learn(page)
            for record in page:
                handler = plan.handler_of(record[3])
                if handler is not None and record[4] is not None:
                    await function(handler.read(record), record)
                    given += 1
    finally:
        await running.stop(0)
    return given


async def _pages(environment: Environment, topic: str, span: Span) -> AsyncIterator[list[Record]]:
    log = environment.log
    for number, bounds in enumerate(await log.bounds(topic)):
        end = bounds.end if span.until_ms is None else await log.offset_at(topic, number, span.until_ms)
        at = bounds.start if span.since_ms is None else await log.offset_at(topic, number, span.since_ms)
        while at < end:
            records = await log.read(topic, number, at, limit=_READ_RECORDS)
            if not records:
                break
            at = records[-1][0] + 1
            yield [each for each in records if each[0] < end and (span.keys is None or each[2] in span.keys)]
