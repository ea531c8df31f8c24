"""A context that is used after its handler returned: refused aloud, since nothing could come of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from postline import Context, Retry, UsageError
from tests.unit.runtime.shop import Order, Receipt, build, running

USES: dict[str, Callable[[Context], Any]] = {
    "publish": lambda ctx: ctx.publish(Receipt("late", "c")),
    "put": lambda ctx: ctx.state.put(1),
    "delete": lambda ctx: ctx.state.delete(),
    "get": lambda ctx: ctx.state.get(),
}


def keeping(way: str, kept: list[Context], fail: bool) -> Callable[..., Any]:
    """A handler that keeps its context, and fails after that if told to."""

    def keep(message: Any, ctx: Context) -> None:
        kept.append(ctx)
        if fail:
            raise ValueError

    async def keep_later(message: Any, ctx: Context) -> None:
        await asyncio.sleep(0)
        keep(message, ctx)

    return keep_later if way in ("async", "middleware", "batch") else keep


async def straight(call: Callable[..., Any], message: Any, ctx: Context) -> Any:
    return await call(message, ctx)


OPTIONS: dict[str, dict[str, Any]] = {
    "async": {},
    "plain": {},
    "middleware": {"middleware": [straight]},
    "plain under middleware": {"middleware": [straight]},
    "batch": {"batch": 10},
    "plain batch": {"batch": 10},
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("fail", [False, True], ids=["succeeded", "failed"])
@pytest.mark.parametrize("way", OPTIONS)
async def test_a_context_is_of_no_use_once_its_handler_has_ended(way: str, fail: bool, use: str):
    kept: list[Context] = []
    options: dict[str, Any] = {
        "retry": Retry(immediate=0, delays=()),
        "after": "continue",
        "state": int,
        **OPTIONS[way],
    }
    async with running(build(keeping(way, kept, fail), **options)) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        with pytest.raises(UsageError, match="after its handler had ended"):
            USES[use](kept[0])
        assert kept[0].key == b"c"
        assert t.published(Receipt) == []


async def test_a_task_that_outlives_its_handler_hears_that_it_is_too_late():
    heard: list[str] = []
    go_on = asyncio.Event()

    async def late(ctx: Context) -> None:
        await go_on.wait()
        try:
            ctx.publish(Receipt("late", "c"))
        except UsageError as error:
            heard.append(str(error))

    async def handle(order: Order, ctx: Context) -> None:
        tasks.append(asyncio.create_task(late(ctx)))

    tasks: list[asyncio.Task[None]] = []
    async with running(build(handle)) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        go_on.set()
        await tasks[0]
        assert len(heard) == 1
        assert t.audit()["sub"] == {"done": 1}
