"""A dry run of dead letters: what would become of them now, with nothing of it stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, NamedTuple

from postline.errors import DecodeError, Refused
from postline.log.port import Record
from postline.logs.handled import HANDLED
from postline.runtime.calls import HANDLING, Calls, publish_result
from postline.runtime.context import Context
from postline.runtime.desk import PartitionDesk
from postline.runtime.discretion import discreet
from postline.runtime.handlers import Handler
from postline.runtime.intents import Discard
from postline.runtime.places import Place, place_of
from postline.runtime.surroundings import Surroundings
from postline.runtime.unit import PendingUnit

__all__ = ["ReadState", "Rehearsal", "Rehearsed"]

#: succeeds, fails, filtered, discarded: as it would end. passes: its handler may not be run, and all that is checked
#: before it is sound. unserved: nobody handles its type.
Ending = Literal["succeeds", "fails", "filtered", "discarded", "passes", "unserved"]

#: Reads keyed state, as committed: of a partition and a key.
ReadState = Callable[[int, bytes], Awaitable[bytes | None]]


class Rehearsed(NamedTuple):
    """How one record would end."""

    ending: Ending
    #: Of one that fails.
    error: BaseException | None = None
    place: Place | None = None


class _Desk(PartitionDesk):
    """Checks what attempts publish and put, as always, and keeps none of it."""

    dry_run = True

    def __init__(self, around: Surroundings, partition: int) -> None:
        super().__init__(around, partition)
        #: What answers are put into; never committed.
        self.unit = PendingUnit()
        if (answering := around.plan.answering) is not None:
            self.answers = answering.open(self)

    async def progress(self, context: Context[Any], note: str) -> None:
        self._answering().progress(context, note)


class Rehearsal:
    """Runs records of one subscription through the present code: reading, contract and routing of all, and those
    handlers that were declared `dry_run=True`. Event loop only.

    State that a handler puts is seen by later records of its key, and by nobody else.
    """

    def __init__(self, around: Surroundings, executor: Executor, read_state: ReadState) -> None:
        self._around, self._plan, self._read_state = around, around.plan, read_state
        self._calls = Calls(self._plan, executor)
        self._desks: dict[int, _Desk] = {}

    async def rehearse(self, partition: int, record: Record) -> Rehearsed:
        """How the record would end. Raises LogError."""
        handler = self._plan.handler_of(record[3])
        if handler is None:
            return Rehearsed("unserved")
        await self._around.versions.learn([record])
        try:
            message = handler.read(record)
            if handler.where is not None and not handler.where(message):
                return Rehearsed("filtered")
            if not handler.dry_run:
                return Rehearsed("passes")
            desk = await self._desk(partition, record)
            await self._attempt(desk, handler, message, record)
        except Discard:
            return Rehearsed("discarded")
        except Exception as error:  # noqa: BLE001 - it is what the report is about
            if isinstance(error, DecodeError) and record[4] is None:
                return Rehearsed("filtered")  # a tombstone says nothing to an event handler
            place = place_of(error, handler.name_for(error))
            return Rehearsed("fails", discreet(error, handler, record), place)
        return Rehearsed("succeeds")

    async def _desk(self, partition: int, record: Record) -> _Desk:
        desk = self._desks.setdefault(partition, _Desk(self._around, partition))
        if self._plan.state is not None and (key := record[2]) is not None and key not in desk.states:
            desk.states[key] = await self._read_state(partition, key)
        return desk

    async def _attempt(self, desk: _Desk, handler: Handler, message: Any, record: Record) -> None:
        batched = self._plan.batch is not None
        keys = None if not batched or record[2] is None else frozenset({record[2]})
        context: Context[Any] = Context(desk, record, batch_keys=keys)
        token, handled = HANDLING.set(desk.subscription), HANDLED.set(context)
        try:
            limit = handler.timeout_seconds or self._plan.timeout_seconds
            async with asyncio.timeout(limit):
                result = await self._call(handler, [message] if batched else message, context)
            if desk.answers is not None:
                desk.answers.conclude(context, result)
            elif result is not None:
                publish_result(context, result)
        except Refused as refused:
            if desk.answers is None or not desk.answers.refuse(record, refused):
                raise
            return
        finally:
            HANDLING.reset(token)
            HANDLED.reset(handled)
            context.closed = True
        desk.states.update(context.staged or {})

    async def _call(self, handler: Handler, message: Any, context: Context[Any]) -> Any:
        call = self._calls.of(handler)
        arguments: Sequence[Any] = (message, context) if handler.wants_context else (message,)
        if call is None:
            return await self._calls.in_thread(handler.function, *arguments)
        return await (call(message, context) if self._calls.wrapped else call(*arguments))
