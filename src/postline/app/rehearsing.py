"""Dry runs of dead letters by an app's own declarations, in whatever process asks for one."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Protocol

import msgspec

from postline.app.environment import Environment
from postline.app.running import HANDLER_THREAD, Declared, Lifespan, Running
from postline.log.port import Log
from postline.monitor import DeadLetterGroup
from postline.monitor.deadletters import Failure, Groups, Opened
from postline.runtime.deadletters import describe
from postline.runtime.entries import USER_STATE
from postline.runtime.plan import Plan
from postline.runtime.rehearsal import ReadState, Rehearsal, Rehearsed
from postline.runtime.surroundings import Surroundings

__all__ = ["DryRun", "rehearse"]

_THREADS = 4
_STATES = 10


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of dead letters now; nothing was stored."""

    subscription: str
    letters: int
    #: Their handlers ran, and returned.
    succeed: int
    #: Their handlers don't want them any more (`where=`), or discard them.
    filtered: int
    discarded: int
    #: How the others fail, the largest group first; most of what is read wrongly fails before any handler.
    fails: list[DeadLetterGroup]
    #: Sound as far as reading, contract and routing go; their handlers are not declared `dry_run=True`, so they were
    #: not run. By type.
    not_run: dict[str, int]
    #: Nobody handles them; by type.
    unserved: dict[str, int]
    #: The log does not have them any more.
    lost: int

    @property
    def failed(self) -> int:
        """How many fail."""
        return sum(each.count for each in self.fails)


class Rehearsable(Declared, Protocol):
    """An app, as far as a dry run must know it."""

    lifespan: Lifespan | None


async def rehearse(
    app: Rehearsable, environment: Environment, name: str, pages: AsyncIterator[Sequence[Opened]]
) -> DryRun:
    """Run dead letters of a subscription, by its full name, through the app's present code, and store nothing.

    The app is not started: nothing is registered, made or joined; only its lifespan is entered, if any of the
    handlers may be run. Raises UsageError if it has no such subscription, SettingsError, LogError.
    """
    running = Running(app, environment, owns_log=False)
    plan = running.plan_named(name)
    await running.topology.look()
    report = _Report(name)
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(_THREADS, thread_name_prefix=app.name + HANDLER_THREAD))
        stack.push_async_callback(running.registry.close)
        may_run = any(handler.dry_run for handler in plan.handlers.values())
        resources = await stack.enter_async_context(app.lifespan(app)) if may_run and app.lifespan else None
        rehearsal = Rehearsal(
            _around(running, environment, plan, resources), executor, _state_of(environment.log, name)
        )
        async for page in pages:
            for opened in page:
                await _one(rehearsal, opened, report)
    return report.told()


def _around(running: Running, environment: Environment, plan: Plan, resources: Any) -> Surroundings:
    plan = running.commanding.answering(running.by_full_name(plan.declared_as), plan)
    log, clock, random = environment.log, environment.clock, environment.random
    around = Surroundings(plan, log, clock, running.outlet, random, running.registry)
    around.resources, around.later = resources, running.later
    return around


def _state_of(log: Log, name: str) -> ReadState:
    async def read(partition: int, key: bytes) -> bytes | None:
        # A little before the key: what follows is there to be paged through, for there is no look-up from outside.
        after = key[:-1] + (bytes([key[-1] - 1]) + b"\xff" * 64 if key[-1:] > b"\0" else b"")
        while page := await log.peek_state(name, partition, USER_STATE, after=after, limit=_STATES):
            for found, data in page:
                if found >= key:
                    return data if found == key else None
            after = page[-1][0]
        return None

    return read


async def _one(rehearsal: Rehearsal, opened: Opened, report: _Report) -> None:
    if opened.record is None:
        report.lost += 1
        report.letters += 1
        return
    report.add(opened, await rehearsal.rehearse(opened.letter.partition, opened.record))


class _Report:
    """Counts how letters would end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.letters = self.lost = 0
        self._endings = Counter[str]()
        self._fails = Groups()
        self._not_run, self._unserved = Counter[str](), Counter[str]()

    def add(self, opened: Opened, rehearsed: Rehearsed) -> None:
        """One more."""
        entry = opened.letter.entry
        self.letters += 1
        self._endings[rehearsed.ending] += 1
        if rehearsed.ending == "passes":
            self._not_run[entry.type] += 1
        elif rehearsed.ending == "unserved":
            self._unserved[entry.type] += 1
        elif rehearsed.error is not None and rehearsed.place is not None:
            group, place, kind = rehearsed.place.group, rehearsed.place.text, type(rehearsed.error).__qualname__
            self._fails.add(opened.letter, Failure(group, kind, place, describe(rehearsed.error)))

    def told(self) -> DryRun:
        """The report."""
        return DryRun(
            subscription=self._name,
            letters=self.letters,
            succeed=self._endings["succeeds"],
            filtered=self._endings["filtered"],
            discarded=self._endings["discarded"],
            fails=self._fails.largest_first(),
            not_run=dict(sorted(self._not_run.items())),
            unserved=dict(sorted(self._unserved.items())),
            lost=self.lost,
        )
