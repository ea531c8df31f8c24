"""Periodic schedules: whoever owns the partition that a schedule's name belongs to plans its runs."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, overload

import msgspec

from postline.errors import UsageError
from postline.ids import derived_id
from postline.logs.events import event
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.entries import SCHEDULES, TimerEntry, pages_of
from postline.runtime.partition import OwnedPartition
from postline.schedules.rules import Rule
from postline.schedules.topic import ScheduledRun, SchedulesTopic

__all__ = ["Missed", "Periodic", "Periodics", "Planned", "Run", "read_planned"]

_log = logging.getLogger("postline")

#: What becomes of runs whose time passed while no worker was there: none, the last one, or each of them.
Missed: TypeAlias = Literal["skip", "once", "all"]

KIND = "schedule"
#: A run that is later than this was missed: a new owner is there sooner.
_LATE_MS = 60_000
#: Most runs of one schedule that are made up for at once.
_RUNS = 100


class Run:
    """One run of a schedule: what its function may ask and do. Valid while the function runs."""

    def __init__(self, context: Context[Any], name: str, planned_at: datetime) -> None:
        self.context = context
        self.name = name
        #: The time that it was planned for, in the schedule's zone; when it really runs may be later.
        self.planned_at = planned_at

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.context.attempt

    @property
    def resources(self) -> Any:
        """What `App(lifespan=…)` yielded."""
        return self.context.resources

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this run, and for no other run."""
        return self.context.idempotency_key

    @overload
    def publish(self, message: Any, *, headers: Mapping[str, str] | None = None) -> None: ...

    @overload
    def publish(self, message: Any, *, headers: Mapping[str, str] | None = None, delay: timedelta | float) -> str: ...

    @overload
    def publish(self, message: Any, *, headers: Mapping[str, str] | None = None, at: datetime) -> str: ...

    @overload
    def publish(
        self,
        message: Any,
        *,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> str | None: ...

    def publish(
        self,
        message: Any,
        *,
        headers: Mapping[str, str] | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> str | None:
        """As `Context.publish`: with this run's end, or not at all."""
        return self.context.publish(message, headers=headers, delay=delay, at=at)

    def cancel(self, token: str) -> None:
        """As `Context.cancel`."""
        self.context.cancel(token)


@dataclass(frozen=True)
class Periodic:
    """A function and when it runs."""

    name: str
    rule: Rule
    missed: Missed
    function: Callable[..., Any]
    is_async: bool
    wants_run: bool

    @staticmethod
    def of(function: Callable[..., Any], name: str, rule: Rule, missed: Missed) -> Periodic:
        """Raises UsageError for a function of a wrong shape, or a policy that isn't there."""
        if missed not in ("skip", "once", "all"):
            raise UsageError(
                f"Schedule {name!r}: missed={missed!r} says nothing.", remedy='Say "skip", "once" or "all".'
            )
        parameters = inspect.signature(function).parameters
        try:
            wants_run = bool(inspect.signature(function).bind(object()).args)
        except TypeError:
            wants_run = False
        if parameters and not wants_run:
            raise UsageError(
                f"Schedule {name!r}: {function!r:.80} has a signature that can't be called.",
                remedy="Write it as `def cleanup()` or `def cleanup(run)`.",
            )
        called = function if inspect.isroutine(function) else type(function).__call__
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
        return Periodic(name, rule, missed, function, is_async, wants_run)

    async def call(self, run: Run) -> Any:
        """Run the function; a plain one in a thread."""
        arguments = (run,) if self.wants_run else ()
        if self.is_async:
            return await self.function(*arguments)
        return await asyncio.to_thread(self.function, *arguments)


class Planned(msgspec.Struct, array_like=True, frozen=True):
    """What state keeps of a schedule: the rule that it follows, and when it runs next."""

    rule: str
    planned_ms: int
    format: int = 1


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Planned)


def read_planned(data: bytes) -> Planned:
    """What an entry of namespace `entries.SCHEDULES` says."""
    return _DECODER.decode(data)


class Periodics:
    """The schedules of one service, as its code declares them. The code of a partition's owner is what counts."""

    def __init__(self, topic: SchedulesTopic) -> None:
        self.by_name: dict[str, Periodic] = {}
        self._topic = topic

    def add(self, periodic: Periodic) -> None:
        """Raises UsageError if the name is taken."""
        if periodic.name in self.by_name:
            raise UsageError(f"There are two schedules named {periodic.name!r}.", remedy="Rename one.")
        self.by_name[periodic.name] = periodic

    async def taken_up(self, owned: OwnedPartition) -> None:
        """Plan what belongs to the partition by this code; let go of what the code does not have any more."""
        kept = {name.decode(): read_planned(data) for name, data in await _scan(owned)}
        for name, planned in kept.items():
            if name not in self.by_name:
                owned.unit.delete(SCHEDULES, name.encode())
                owned.timers.cancel(planned.planned_ms, _token(name))
                _log.info(
                    "schedule %s of service %s is not in this version: it stops",
                    name,
                    owned.plan.service,
                    extra=event("schedule.stopped", schedule=name, service=owned.plan.service),
                )
        route = owned.around.outlet.route(self._topic.run(key="", planned_ms=0))
        for periodic in self.by_name.values():
            if route.partition_of(periodic.name.encode()) == owned.partition:
                self._plan(owned, periodic, kept.get(periodic.name))

    def _plan(self, owned: OwnedPartition, periodic: Periodic, kept: Planned | None) -> None:
        """Begin where the last owner left, unless the rule has changed, or the clock was set back a good deal."""
        following = periodic.rule.after(owned.now_ms())
        if kept is not None:
            if kept.rule == periodic.rule.text and (following is None or kept.planned_ms <= following):
                return
            owned.timers.cancel(kept.planned_ms, _token(periodic.name))
        _set(owned, periodic, following)

    def fire(self, owned: OwnedPartition, entry: TimerEntry) -> None:
        """Let a schedule run that is due, and plan its next run, in one commit."""
        name = entry.payload.decode()
        periodic = self.by_name.get(name)
        if periodic is None:
            owned.unit.delete(SCHEDULES, name.encode())
            return
        runs, following = _due_runs(periodic, entry.due_ms, owned.now_ms())
        for planned_ms in runs:
            envelope = Envelope(
                id=derived_id(owned.subscription, "schedule", name, planned_ms),
                source=owned.plan.service,
                time_ms=planned_ms,
            )
            run = self._topic.run(key=name, planned_ms=planned_ms)
            owned.unit.appends.append(owned.around.outlet.relayed(run, envelope))
        _set(owned, periodic, following)

    async def run(self, message: ScheduledRun, context: Context[Any]) -> Any:
        """Handle one run: call its function."""
        periodic = self.by_name.get(message.key)
        if periodic is None:
            _log.warning(
                "schedule %s is not in this version: its run is left out",
                message.key,
                extra=event("schedule.left_out", schedule=message.key),
            )
            return None
        planned_at = datetime.fromtimestamp(message.planned_ms / 1000, UTC)
        if periodic.rule.zone is not None:
            planned_at = planned_at.astimezone(periodic.rule.zone)
        return await periodic.call(Run(context, periodic.name, planned_at))


def _due_runs(periodic: Periodic, planned_ms: int, now_ms: int) -> tuple[list[int], int | None]:
    """The runs to make now, and the next planned time after them."""
    rule = periodic.rule
    if periodic.missed == "all":
        runs = [planned_ms]
        while (following := rule.after(runs[-1])) is not None and following <= now_ms and len(runs) < _RUNS:
            runs.append(following)
        return runs, following
    last = rule.latest(now_ms)
    last = planned_ms if last is None else max(planned_ms, last)
    late = periodic.missed == "skip" and now_ms - last > _LATE_MS
    return [] if late else [last], rule.after(last)


def _set(owned: OwnedPartition, periodic: Periodic, planned_ms: int | None) -> None:
    name = periodic.name.encode()
    if planned_ms is None:
        owned.unit.delete(SCHEDULES, name)
        _log.error(
            "schedule %s has no more planned times",
            periodic.name,
            extra=event("schedule.ended", schedule=periodic.name),
        )
        return
    owned.unit.put(SCHEDULES, name, _ENCODER.encode(Planned(periodic.rule.text, planned_ms)))
    owned.timers.set(planned_ms, _token(periodic.name), KIND, name, home=name)


def _token(name: str) -> str:
    return f"schedule {name}"


async def _scan(owned: OwnedPartition) -> list[tuple[bytes, bytes]]:
    """The partition's schedules as its owner last wrote them, committed or not."""
    found: dict[bytes, bytes | None] = {}
    async for page in pages_of(owned, SCHEDULES):
        found |= dict(page)
    for unit in (owned.committing, owned.unit):
        for (namespace, key), data in unit.changes.items() if unit is not None else ():
            if namespace == SCHEDULES:
                found[key] = data
    return [(key, data) for key, data in found.items() if data is not None]
