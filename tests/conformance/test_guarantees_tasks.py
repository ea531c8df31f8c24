"""Tasks on every engine: shared by workers that compete, run once whoever dies, unique, expired and retried."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from postline import App, HandlerFault, ReplyOutcome, RequestTimeout, Topic
from postline.contracts.cloudevents import REQUEST_ID
from tests.conformance.apps import NEVER, Gate, World, all_records, eventually
from tests.conformance.harness import Engine

RESULTS = "images.work.tickets"


class Images:
    """A worker, or a client, of the service: each is an app of its own with the same tasks."""

    def __init__(self, gate: Gate | None = None) -> None:
        app = self.app = App("images")
        #: What began here, by the tasks' arguments.
        self.ran: list[str] = []
        work = app.queue("work", partitions=4, retry=NEVER)

        @app.task(queue=work)
        async def resize(path: str, fails: bool = False) -> str:
            if gate is not None:
                await gate.pass_through()
            self.ran.append(path)
            if fails:
                raise RuntimeError("told to fail")
            return path.upper()

        @app.task(queue=work, unique=timedelta(days=7))
        async def index(path: str) -> int:
            if gate is not None:
                await gate.pass_through()
            self.ran.append(path)
            return len(self.ran)

        @app.task(queue=work, unique="until-done")
        async def refresh(path: str, fails: bool = False) -> int:
            if gate is not None:
                await gate.pass_through()
            self.ran.append(path)
            if fails:
                raise RuntimeError("told to fail")
            return len(self.ran)

        self.refresh = refresh
        self.resize = resize
        self.index = index


class Ranked:
    """As `Images`, with priorities; what is unique has the highest."""

    def __init__(self, gate: Gate) -> None:
        app = self.app = App("images")
        work = app.queue("work", partitions=2, retry=NEVER, priorities={"high": 0.6, "normal": 0.3, "low": 0.1})

        @app.task(queue=work)
        async def resize(path: str) -> str:
            await gate.pass_through()
            return path.upper()

        @app.task(queue=work, unique=timedelta(days=7), priority="high")
        async def index(path: str) -> str:
            await gate.pass_through()
            return path.upper()

        self.resize, self.index = resize, index


@pytest.fixture
def world(engine: Engine) -> World:
    """A log on which tasks are sent."""
    return World(engine, Topic("shop.nothing", owner="shop"))


async def client(world: World) -> Images:
    """A process that sends and handles nothing."""
    images = Images()
    await images.app.start(world._environment(world.log), consume=False)
    return images


async def test_workers_share_a_queue_and_each_call_is_run_once(world: World) -> None:
    async with world:
        workers = [Images(), Images()]
        for each in workers:
            await world.start(each.app)
        sending = await client(world)
        tickets = await sending.resize.send_many(sending.resize.message(f"p{n}") for n in range(200))
        assert await asyncio.gather(*(ticket.result(60) for ticket in tickets)) == [f"P{n}" for n in range(200)]
        ran = Counter(path for each in workers for path in each.ran)
        assert ran == Counter(f"p{n}" for n in range(200))
        await world.until_handled("images.work")
        await world.balanced("images.work", done=200)
        await sending.app.stop()


async def test_calls_of_a_worker_that_dies_are_run_by_others_with_one_outcome_each(world: World) -> None:
    async with world:
        gate = Gate()
        workers = [Images(gate)]
        await world.start(workers[0].app)
        sending = await client(world)
        gate.shut(passes=7)
        tickets = await sending.resize.send_many(sending.resize.message(f"p{n}") for n in range(40))
        await gate.until_somebody_waits()
        await world.kill(workers[0].app)
        gate.open()
        workers.append(Images(gate))
        await world.start(workers[1].app)
        outcomes = await asyncio.gather(*(ticket.ended(60) for ticket in tickets))
        assert {each.outcome for each in outcomes} == {ReplyOutcome.SUCCESS}
        await world.until_handled("images.work")
        await world.balanced("images.work", done=40)
        found = [world.log.envelope(record) for _, record in await all_records(world.log, RESULTS)]
        assert len({each.id for each in found}) == len(found) == 40
        await sending.app.stop()


async def test_equal_calls_of_one_window_are_run_once_whoever_sends_and_dies(world: World) -> None:
    async with world:
        gate = Gate()
        workers = [Images(gate)]
        await world.start(workers[0].app)
        clients = [await client(world), await client(world)]
        gate.shut()
        first = [await each.index.send("cat") for each in clients]
        await gate.until_somebody_waits()
        await world.kill(workers[0].app)
        gate.open()
        workers.append(Images(gate))
        await world.start(workers[1].app)
        assert [await ticket.result(60) for ticket in first] == [1, 1]
        assert await clients[0].index.request("cat") == 1
        assert await clients[0].index.request("dog") == 2
        assert [each.ran for each in workers] == [[], ["cat", "dog"]]
        await world.until_handled("images.work")
        await world.balanced("images.work", done=2, duplicate=2)
        for each in clients:
            await each.app.stop()


async def test_of_calls_that_are_unique_until_done_one_is_under_way_whoever_sends_and_dies(world: World) -> None:
    async with world:
        gate = Gate()
        workers = [Images(gate)]
        await world.start(workers[0].app)
        clients = [await client(world), await client(world)]
        gate.shut()
        first = [await each.refresh.send("cat") for each in clients]
        await gate.until_somebody_waits()
        await world.kill(workers[0].app)
        first.append(await clients[0].refresh.send("cat"))
        gate.open()
        workers.append(Images(gate))
        await world.start(workers[1].app)
        assert [await ticket.result(60) for ticket in first] == [1, 1, 1]
        assert await clients[1].refresh.request("cat") == 2
        with pytest.raises(HandlerFault, match="told to fail"):
            await clients[0].refresh.request("cat", fails=True)
        assert await clients[0].refresh.request("cat") == 4
        assert workers[1].ran == ["cat"] * 4
        await world.until_handled("images.work", dead=1)
        await world.balanced("images.work", done=3, duplicate=2, dead_lettered=1)
        for each in clients:
            await each.app.stop()


async def test_failed_and_expired_calls_end_as_such_and_a_redrive_mends_the_result(world: World) -> None:
    async with world:
        worker = Images()
        await world.start(worker.app)
        sending = await client(world)
        failing = await sending.resize.send("bad", fails=True)
        with pytest.raises(HandlerFault, match="told to fail"):
            await failing.result(60)
        late = await sending.resize.options(expires=0).send("late")
        with pytest.raises(RequestTimeout, match="expired"):
            await late.result(60)
        await world.until_handled("images.work", dead=1)
        await world.balanced("images.work", dead_lettered=1, expired=1)
        await world.redrive_all("images.work")
        await eventually(lambda: worker.ran == ["bad", "bad"], "the call was tried again")
        await world.until_handled("images.work", dead=1)
        assert (await failing.status()).state == "failed"
        await sending.app.stop()


async def test_what_a_queue_promises_holds_over_its_priorities_whoever_dies(world: World) -> None:
    async with world:
        gate = Gate()
        workers = [Ranked(gate)]
        await world.start(workers[0].app)
        sending, other = Ranked(gate), Ranked(gate)
        for each in (sending, other):
            await each.app.start(world._environment(world.log), consume=False)
        gate.shut()
        tickets = [
            await sending.resize.options(priority=priority, request_id=f"r-{n}").send(f"p{n}")
            for n, priority in enumerate(["high", "normal", "low"] * 6)
        ]
        unique = [await each.index.send("cat") for each in (sending, other)]
        again = [await other.resize.options(priority="low", request_id=f"r-{n}").send(f"p{n}") for n in range(6)]
        await gate.until_somebody_waits()
        await world.kill(workers[0].app)
        gate.open()
        workers.append(Ranked(gate))
        await world.start(workers[1].app)
        outcomes = await asyncio.gather(*(ticket.result(60) for ticket in (*tickets, *again)))
        assert outcomes == [f"P{n}" for n in (*range(18), *range(6))]
        assert [await ticket.result(60) for ticket in unique] == ["CAT", "CAT"]
        for name, done, duplicate in (("images.work.high", 7, 3), ("images.work", 6, 2), ("images.work.low", 6, 2)):
            await world.until_handled(name)
            await world.balanced(name, done=done, duplicate=duplicate)
        found = [world.log.envelope(record) for _, record in await all_records(world.log, "images.work.replies")]
        assert set(Counter(each.headers[REQUEST_ID] for each in found).values()) == {1}
        for each in (sending, other):
            await each.app.stop()
