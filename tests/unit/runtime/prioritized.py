"""What the tests of priorities and limits share: a topic with priorities, and a subscription that notes its order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from postline import App, Context, Topic
from postline.testing import TestApp

SHARES = {"high": 0.6, "normal": 0.3, "low": 0.1}


class Job(Struct, frozen=True):
    key: str
    number: int


def jobs_topic(shares: Mapping[str, float], name: str = "jobs") -> Topic:
    """A topic of `Job` with these priorities."""
    topic = Topic(name, owner="shop", key="key", partitions=2, priorities=shares)
    topic.event("shop.Job")(Job)
    return topic


class Noting:
    """A subscription `work` whose handler notes (priority, job) as each attempt begins."""

    def __init__(self, topic: Topic, **options: Any) -> None:
        self.shop = App("shop", owns=[topic])
        self.app = App("worker")
        self.seen: list[tuple[str, Job]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.sub = self.app.subscribe("work", topic, start="earliest", **{"concurrency": 1, **options})
        self.sub.on(Job)(self.handle)

    async def handle(self, job: Job, ctx: Context) -> None:
        self.seen.append((ctx.topic.removeprefix("jobs").removeprefix(".") or "normal", job))
        await self.open.wait()

    def first(self, count: int) -> dict[str, int]:
        """How many of the first so many were of each priority."""
        names = [name for name, _ in self.seen[:count]]
        return {name: names.count(name) for name in ("high", "normal", "low")}


async def fetched(t: TestApp, app: App) -> None:
    """Start an app and wait until it has fetched all there is; its handlers are to stand still meanwhile."""
    await t.start(app)
    for _ in range(200):
        await asyncio.sleep(0)
        owned = [each for consumer in app.consumers for each in consumer.owned.values()]
        ends = [(await consumer.around.log.bounds(consumer.plan.topic)) for consumer in app.consumers]
        total = sum(bounds.end for each in ends for bounds in each)
        if owned and sum(each.window.fetched_to for each in owned) == total:
            return
    raise AssertionError("not everything was fetched")


async def publish(t: TestApp, count: int, *priorities: str, keys: int = 20) -> None:
    """So many jobs of each of these priorities."""
    for priority in priorities:
        await t.publish_many([Job(f"k{n % keys}", n) for n in range(count)], priority=priority)
