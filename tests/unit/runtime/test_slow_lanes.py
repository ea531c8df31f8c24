"""What a lane has settled becomes durable while its next record is still being handled."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from postline import App, Topic
from postline.testing import TestApp

topic = Topic("shop.orders", owner="shop", key="customer", partitions=1)


@topic.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    """What is handled."""

    customer: str


async def test_a_slow_record_does_not_keep_those_before_it_from_being_committed():
    passes = asyncio.Semaphore(3)
    app = App("shop", owns=[topic])

    @app.subscribe("billing", topic, start="earliest", timeout=86_400).on(OrderPlaced)
    async def bill(order: OrderPlaced) -> None:
        await passes.acquire()

    async with TestApp(app) as t:
        await t.publish_many([OrderPlaced("ann")] * 8)
        await t.advance(seconds=1)
        (info,) = await t.log.partitions("billing")
        assert info.position == 3
        for _ in range(5):
            passes.release()
        await t.settle()
        assert t.audit()["billing"] == {"done": 8}
