"""Waiting for somebody on behalf of a client: no longer than it wants, and not after it has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from starlette.requests import Request

from postline.clock import Clock

__all__ = ["unless_gone", "unless_set", "within"]

ResultT = TypeVar("ResultT")


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """What the work gives; None if it is not done in time, and then it is cancelled."""
    task = asyncio.current_task()
    assert task is not None, "only tasks wait"
    before, late = task.cancelling(), False

    def give_up() -> None:
        nonlocal late
        late = True
        task.cancel()

    # In this very task, as asyncio's own timeout is: another one would cost more than what most requests wait for.
    timer = clock.call_later(seconds, give_up)
    try:
        return await work
    except asyncio.CancelledError:
        if late and task.uncancel() <= before:
            return None
        raise
    finally:
        timer.cancel()


async def unless_set(ending: asyncio.Event, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """What the work gives; None if the event is set before, and then it is cancelled."""
    return await _unless((ending.wait(),), work)


async def unless_gone(request: Request, ending: asyncio.Event, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """As `unless_set`, and None also if the client goes away before."""
    return await _unless((ending.wait(), _gone(request)), work)


async def _unless(others: Iterable[Coroutine[Any, Any, object]], work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    task: asyncio.Task[ResultT] = asyncio.ensure_future(work)
    waits: set[asyncio.Task[Any]] = {task, *map(asyncio.ensure_future, others)}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in waits:
            each.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
