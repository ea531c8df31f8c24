"""Priorities on every engine: the highest first, each its share, and nothing lost or doubled by who dies."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct

from postline import App, Context, Topic, UsageError
from tests.conformance.apps import INVOICES, NEVER, Gate, InvoiceIssued, World, eventually
from tests.conformance.harness import Engine

JOBS = Topic(
    "shop.jobs", owner="shop", key="customer", partitions=2, priorities={"high": 0.7, "normal": 0.2, "low": 0.1}
)
STRICT = Topic("shop.strict", owner="shop", key="customer", partitions=2, priorities={"high": 0, "normal": 0})
NAMES = ("work.high", "work", "work.low")


@JOBS.event("shop.Job")
class Job(Struct, frozen=True):
    """What is to be done, numbered within its priority."""

    customer: str
    number: int


@STRICT.event("shop.Task")
class Task(Struct, frozen=True):
    """As `Job`, where higher ones always come first."""

    customer: str
    number: int


class Work:
    """A subscription `work` that notes the priority of each attempt and leaves one invoice for each record."""

    def __init__(self, topic: Topic = JOBS, kind: type = Job, **options: Any) -> None:
        self.app = App("work", publishes_to=[INVOICES])
        self.gate = Gate()
        self.ran: list[tuple[str, str, int]] = []
        subscription = self.app.subscribe("work", topic, start="earliest", retry=NEVER, **{"concurrency": 1, **options})

        @subscription.on(kind)
        async def work(job: Any, ctx: Context) -> InvoiceIssued:
            await self.gate.pass_through()
            self.ran.append((ctx.topic, job.customer, job.number))
            return InvoiceIssued(f"{ctx.topic}/{job.customer}", job.number, 0)

    @property
    def fetched(self) -> int:
        """How many records are in hand."""
        return sum(owned.window.pending() for consumer in self.app.consumers for owned in consumer.owned.values())


async def flood(world: World, kind: type, count: int, *priorities: str) -> None:
    """So many of each priority, of four customers in turn."""
    for priority in priorities:
        await world.publisher.publish_many([kind(f"c{n % 4}", n // 4) for n in range(count)], priority=priority)


async def require_exactly_once(world: World, count: int) -> None:
    """Each record of each priority has left one invoice, in order, and the audits balance."""
    invoices = [placed.message for placed in await world.read(INVOICES)]
    assert len(invoices) == len({(each.customer, each.number) for each in invoices}) == count
    for customer in {each.customer for each in invoices}:
        numbers = [each.number for each in invoices if each.customer == customer]
        assert numbers == sorted(numbers)
    for name in NAMES:
        audit = await world.monitor.audit(name)
        assert audit.balanced
        assert audit.outcomes["done"] == count // 3


async def test_each_priority_has_its_share_while_all_have_work(engine: Engine) -> None:
    async with World(engine, JOBS) as world:
        work = Work()
        work.gate.shut()
        await flood(world, Job, 100, "low", "normal", "high")
        await world.start(work.app)
        await eventually(lambda: work.fetched == 300, "all is fetched")
        work.gate.open()
        for name in NAMES:
            await world.until_handled(name)
        first = [topic for topic, *_ in work.ran[:100]]
        assert abs(first.count("shop.jobs.high") - 70) <= 4
        assert abs(first.count("shop.jobs") - 20) <= 4
        assert abs(first.count("shop.jobs.low") - 10) <= 4
        await require_exactly_once(world, 300)


async def test_a_strict_priority_overtakes_a_flood_that_is_fetched(engine: Engine) -> None:
    async with World(engine, STRICT) as world:
        work = Work(STRICT, Task)
        work.gate.shut()
        await flood(world, Task, 200, "normal")
        await world.start(work.app)
        await eventually(lambda: work.fetched == 200 and work.gate.waiting, "the flood is fetched")
        await world.publisher.publish(Task("c0", 0), priority="high")
        await eventually(lambda: work.fetched == 201, "the one of a higher priority is fetched")
        work.gate.open()
        for name in ("work", "work.high"):
            await world.until_handled(name)
        # The attempt that ran goes first.
        assert [topic for topic, *_ in work.ran].index("shop.strict.high") == 1


async def test_a_process_that_dies_leaves_every_priority_to_the_next_one(engine: Engine) -> None:
    async with World(engine, JOBS) as world:
        first, second = Work(concurrency=4), Work(concurrency=4)
        first.gate.shut(passes=60)
        await flood(world, Job, 60, "low", "normal", "high")
        await world.start(first.app)
        await eventually(lambda: len(first.ran) >= 60, "a part is handled")
        await world.kill(first.app)
        await world.start(second.app)
        for name in NAMES:
            await world.until_handled(name)
        await require_exactly_once(world, 180)


async def test_two_processes_share_the_partitions_of_every_priority(engine: Engine) -> None:
    async with World(engine, JOBS) as world:
        first, second = Work(concurrency=2), Work(concurrency=2)
        await world.start(first.app)
        await world.start(second.app)
        await flood(world, Job, 60, "low", "normal", "high")
        for name in NAMES:
            await world.until_handled(name)
        await require_exactly_once(world, 180)


async def test_lag_tells_which_priority_a_subscription_is(engine: Engine) -> None:
    async with World(engine, JOBS) as world:
        work = Work()
        await world.start(work.app)
        for name, priority, share in (("work.high", "high", 0.7), ("work", "normal", 0.2), ("work.low", "low", 0.1)):

            async def told(name: str = name) -> object:
                return (await world.view(name)).priority

            await eventually(told, "its priority is kept")
            said = (await world.view(name)).priority
            assert said is not None
            assert (said.declared_as, said.name, said.share) == ("work", priority, share)


async def test_siblings_are_paused_and_resumed_by_their_own_names(engine: Engine) -> None:
    async with World(engine, JOBS) as world:
        work = Work()
        await world.start(work.app)
        for name in NAMES:
            await world.until_handled(name)
        await world.obeyed(await world.operations.pause("work.low"))
        await flood(world, Job, 20, "low", "high")
        await world.until_handled("work.high")
        assert (await world.view("work.low")).lag_records >= 20
        await world.obeyed(await world.operations.resume("work.low"))
        await world.until_handled("work.low")


async def test_a_priority_that_the_topic_has_not_is_refused(engine: Engine) -> None:
    async with World(engine, JOBS) as world:
        with pytest.raises(UsageError, match="no priority 'urgent'"):
            await world.publisher.publish(Job("c0", 0), priority="urgent")
