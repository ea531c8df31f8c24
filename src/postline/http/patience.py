"""Waiting for somebody on behalf of a client: no longer than it wants, and not after it has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from postline.clock import Clock

__all__ = ["unless_gone", "within"]

ResultT = TypeVar("ResultT")


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """What the work gives; None if it is not done in time, and then it is cancelled."""
    task = asyncio.ensure_future(work)

    def give_up() -> None:
        task.cancel()

    timer = clock.call_later(seconds, give_up)
    try:
        await asyncio.wait({task})
    finally:
        timer.cancel()
        task.cancel()
    return None if task.cancelled() else task.result()


async def unless_gone(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """What the work gives; None if the client goes away before, and then it is cancelled."""
    task: asyncio.Future[ResultT] = asyncio.ensure_future(work)
    going = asyncio.ensure_future(_gone(request))
    both: set[Awaitable[Any]] = {task, going}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        return task.result() if task.done() else None
    finally:
        task.cancel()
        going.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
