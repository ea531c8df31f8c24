"""Priorities of queues: what is urgent goes first, and what a queue promises holds for all of them together."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from msgspec import Struct

from postline import App, Context, ContractError, Rate, Topic, UsageError
from postline.testing import TestApp

STRICT = {"high": 0, "normal": 0, "low": 0}


@pytest.fixture
def app() -> App:
    return App("images")


async def test_a_call_has_the_priority_of_its_task_unless_its_sender_says_another(app: App) -> None:
    ran: list[str] = []
    work = app.queue("work", concurrency=1, priorities=STRICT)

    @app.task(queue=work)
    async def scale(path: str) -> None:
        ran.append(path)

    @app.task(queue=work, priority="low")
    async def tidy(path: str) -> None:
        ran.append(path)

    async with TestApp(app) as t:
        await tidy.options(priority="high").send("urgent")
        await scale.options(priority="high").send_many(scale.message(f"high-{n}") for n in range(2))
        await scale.send("usual")
        await tidy.send("later")
        await t.settle()
        assert sorted(ran) == ["high-0", "high-1", "later", "urgent", "usual"]
        assert t.audit()["images.work.high"] == {"done": 3}
        assert t.audit()["images.work"] == {"done": 1}
        assert t.audit()["images.work.low"] == {"done": 1}


async def test_a_unique_task_has_one_priority_whoever_sends_it(app: App) -> None:
    ran: list[str] = []
    uploads = Topic("images.uploads", owner="images", key="path")

    @uploads.event("images.Uploaded")
    class Uploaded(Struct, frozen=True):
        path: str

    app = App("images", owns=[uploads])
    work = app.queue("work", priorities=STRICT)

    @app.task(queue=work, priority="high", unique=timedelta(hours=1))
    async def index(path: str) -> None:
        ran.append(path)

    @app.subscribe("uploads", uploads, start="earliest").on(Uploaded)
    async def uploaded(event: Uploaded, ctx: Context) -> None:
        ctx.send(index.message(event.path))

    async with TestApp(app) as t:
        await index.request("a")
        await app.publish(Uploaded("a"))
        await index.options(priority="high").request("a")
        await t.settle()
        assert ran == ["a"]
        assert t.audit()["images.work.high"] == {"done": 1, "duplicate": 2}
        with pytest.raises(UsageError, match="is unique, so that it has one priority, 'high'"):
            await index.options(priority="low").send("a")


async def test_the_rate_of_a_queue_and_of_a_task_is_that_of_all_priorities(app: App) -> None:
    began: list[float] = []
    slow = app.queue("slow", rate=Rate(1, per_seconds=10), priorities=STRICT)
    rated = app.queue("rated", priorities=STRICT)

    @app.task(queue=slow)
    async def call(number: int) -> None:
        began.append(t.clock.monotonic())

    @app.task(queue=rated, rate=Rate(1, per_seconds=10))
    async def other(number: int) -> None:
        began.append(t.clock.monotonic())

    t = TestApp(app)
    async with t:
        for task in (call, other):
            began.clear()
            for priority in STRICT:
                await task.options(priority=priority).send(1)
            await t.advance(seconds=40)
            assert [later - earlier for earlier, later in pairwise(began)] == pytest.approx([10, 10])


async def test_a_delayed_call_leaves_with_its_priority() -> None:
    app = App("images", schedules=True)
    work = app.queue("work", priorities=STRICT)

    @app.task(queue=work)
    async def scale(path: str) -> str:
        return path

    async with TestApp(app) as t:
        ticket = await scale.options(delay=60, priority="high").send("a")
        await t.advance(minutes=2)
        assert await ticket.result() == "a"
        assert t.audit()["images.work.high"] == {"done": 1}


def test_a_priority_that_the_queue_has_not_is_refused_where_it_is_declared(app: App) -> None:
    with pytest.raises(UsageError, match=r"has the priority 'high', and its queue 'images\.tasks' has none"):

        @app.task(priority="high")
        async def scale() -> None:
            """Nothing."""

    with pytest.raises(ContractError, match='"normal"'):
        app.queue("odd", priorities={"high": 1, "low": 0})
