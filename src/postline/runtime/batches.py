"""Batch handlers: many keys in one call, and the splitting that makes poison members stand alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from postline.logs.handled import HANDLED
from postline.runtime.calls import Calls, call_each, publish_result
from postline.runtime.context import Context
from postline.runtime.handlers import Handler
from postline.runtime.lanes import UNDECODED, Failed, Item, Lane
from postline.runtime.logged import Batch
from postline.runtime.outcomes import Outcome
from postline.runtime.partition import OwnedPartition

__all__ = ["Attempting", "Pool", "run_batch", "run_single_of_batch"]

Member = tuple[Item, Any]


class Attempting(Protocol):
    """The worker that runs a batch, as far as a batch must know it."""

    attempt: int
    #: Set while its attempt looks whether a backend is back.
    probing: Any


class Pool(Protocol):
    """The pool that runs batches, as far as they must know it."""

    calls: Calls

    def failed(self, owned: OwnedPartition, lane: Lane, error: BaseException, worker: Any = None) -> bool:
        """Decide what becomes of the lane's first record; whether the lane may go on at once."""

    def awaits_backend(self, worker: Any, handler: Handler | None, error: BaseException) -> bool:
        """Whether the records of a failed attempt wait for their backend, as if there had been no attempt."""

    def succeeded(self, handler: Handler) -> None:
        """An attempt of this handler ended well."""

    def finish(self, owned: OwnedPartition, lane: Lane, outcome: Outcome) -> None:
        """Settle the lane's first record with an outcome that needs no more handling."""

    def over_time(self, worker: Any, cancelled: asyncio.CancelledError) -> Exception:
        """The error of an attempt that its time limit, or something in it, cancelled."""

    def settled(self, owned: OwnedPartition, worker: Any, number: int) -> None:
        """So many records were settled."""


async def run_batch(pool: Pool, worker: Attempting, owned: OwnedPartition, lane: Lane) -> None:
    """Run the next batch of the partition's bulk lane."""
    members = _collect(pool, owned, lane, 1 if worker.probing is not None else owned.plan.batch or 1)
    if members:
        owned.in_batch = frozenset(item[2][2] for item, _ in members if item[2][2] is not None)
        waiting = await _run(pool, worker, owned, members)
        lane.items.extendleft(item for item, _ in reversed(waiting))
        owned.in_batch = frozenset()


def _collect(pool: Pool, owned: OwnedPartition, lane: Lane, number: int) -> list[Member]:
    """Take the next records of one type; those that can't join go to their own key's lane."""
    members: list[Member] = []
    first: Handler | None = None
    while lane.items and len(members) < number:
        item = lane.items[0]
        handler = item[3]
        if handler is not None and first is not None and handler is not first:
            break
        lane.items.popleft()
        key = owned.lane_key(item[2])
        if handler is None or (key is not None and key in owned.lanes):
            _hand_over(owned, item)
            continue
        message = _decoded(pool, handler, item)
        if type(message) is Failed:
            _hand_over(owned, (*item[:4], message))
        elif message is Outcome.FILTERED:
            owned.settle(item, Outcome.FILTERED)
        else:
            first = handler
            members.append((item, message))
    return members


def _decoded(pool: Pool, handler: Handler, item: Item) -> Any:
    if item[4] is not UNDECODED:
        return item[4]
    try:
        message = handler.read(item[2])
        wanted = handler.where is None or handler.where(message)
    except Exception as error:  # noqa: BLE001 - the record's own lane makes a retry decision of it
        return Failed(error)
    return message if wanted else Outcome.FILTERED


def _hand_over(owned: OwnedPartition, item: Item) -> None:
    """Give a record to its own key's lane, behind what is there."""
    lane = owned.lane_for(item)
    if lane.free:
        lane.items.append(item)
        owned.enqueue(lane)
    else:
        owned.holding.park_last(lane, item)


async def _run(pool: Pool, worker: Attempting, owned: OwnedPartition, members: Sequence[Member]) -> Sequence[Member]:
    """Call the handler for all members; on failure for each half, until a poison one stands alone.

    Gives those that wait for their backend.
    """
    waiting: list[Member] = []
    handler = members[0][0][3]
    context: Context[Any] = Context(owned, members[0][0][2], batch_keys=owned.in_batch)
    error = await _call(pool, worker, owned, members, context)
    if owned.halted:
        return waiting
    if error is None:
        assert handler is not None
        pool.succeeded(handler)
        for item, _ in members:
            owned.settle(item, Outcome.DONE)
        owned.keep_outputs(context)
        pool.settled(owned, worker, len(members))
    elif pool.awaits_backend(worker, handler, error):
        return members
    elif len(members) == 1:
        item = members[0][0]
        lane = owned.lane_for(item)
        lane.items.appendleft(item)
        if pool.failed(owned, lane, error):
            owned.enqueue(lane)
        owned.retire(lane)
    else:
        middle = len(members) // 2
        for half in (members[:middle], members[middle:]):
            if waiting:  # it opened meanwhile
                waiting += half
            elif joined := _without_held(owned, half):
                waiting += await _run(pool, worker, owned, joined)
            if owned.draining:
                return waiting
    return waiting


def _without_held(owned: OwnedPartition, members: Sequence[Member]) -> list[Member]:
    """The members whose key did not fail meanwhile; the others wait in their key's lane."""
    joined: list[Member] = []
    for item, message in members:
        key = owned.lane_key(item[2])
        if key is not None and key in owned.lanes:
            _hand_over(owned, item)
        else:
            joined.append((item, message))
    return joined


async def _call(
    pool: Pool, worker: Attempting, owned: OwnedPartition, members: Sequence[Member], context: Context[Any]
) -> BaseException | None:
    handler = members[0][0][3]
    assert handler is not None
    messages = [message for _, message in members]
    worker.attempt += 1
    HANDLED.set(Batch(owned.plan, context, [item[2] for item, _ in members]) if len(members) > 1 else context)
    try:
        if not handler.is_async:
            _, error = await pool.calls.in_thread(call_each, handler, [(messages, context)], owned)
            return error
        call = handler.function(messages, context) if handler.wants_context else handler.function(messages)
        result = await call
        if result is not None:
            publish_result(context, result)
    except asyncio.CancelledError as cancelled:
        return pool.over_time(worker, cancelled)
    except Exception as error:  # noqa: BLE001 - every failure of a handler becomes a retry decision
        return error
    finally:
        context.closed = True
    return None


async def run_single_of_batch(pool: Pool, worker: Attempting, owned: OwnedPartition, lane: Lane) -> None:
    """Attempt the first record of a key's own lane as a batch of one."""
    item = lane.items[0]
    handler = item[3]
    assert handler is not None
    message = _decoded(pool, handler, item)
    if type(message) is Failed:
        pool.failed(owned, lane, message.error)
        return
    if message is Outcome.FILTERED:
        pool.finish(owned, lane, Outcome.FILTERED)
        return
    keys = frozenset() if item[2][2] is None else frozenset([item[2][2]])
    context: Context[Any] = Context(owned, item[2], lane.attempts + 1, batch_keys=keys)
    error = await _call(pool, worker, owned, [(item, message)], context)
    if owned.halted:
        return
    if error is None:
        pool.succeeded(handler)
        owned.keep_outputs(context)
        pool.finish(owned, lane, Outcome.DONE)
    else:
        pool.failed(owned, lane, error, worker)
