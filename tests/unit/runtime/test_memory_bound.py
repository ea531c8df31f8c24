"""What a subscription keeps in memory is bounded by records and by bytes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from postline import Context
from postline.app import Environment
from postline.clock import SystemClock
from postline.log.sqlite.log import SqliteLog
from postline.settings import load_settings
from tests.unit.runtime.shop import Order, build


@pytest.mark.parametrize(
    ("options", "variable"),
    [({"in_flight_records_max": 50}, {}), ({}, {"POSTLINE_SUBSCRIPTION_SUB_IN_FLIGHT_BYTES_MAX": "100kB"})],
    ids=["records", "bytes"],
)
async def test_nothing_more_is_fetched_while_handlers_keep_the_bound_full(options, variable):
    gate, waiting = asyncio.Event(), 0

    async def handle(order: Order, ctx: Context) -> None:
        nonlocal waiting
        waiting += 1
        await gate.wait()

    log = SqliteLog(None, clock=SystemClock())
    await log.start()
    settings = load_settings({"POSTLINE_URL": "sqlite://", **variable}, Path("/"))
    app = build(handle, concurrency=10_000, **options)
    await app.start(Environment(log, settings))
    (consumer,) = app.consumers
    fetched: list[int] = []
    assert consumer.membership is not None
    fetch = consumer.membership.fetch

    async def counting(max_records, max_bytes, wait_seconds):
        batches = await fetch(25, max_bytes, wait_seconds)
        fetched.append(sum(len(batch.records) for batch in batches))
        return batches

    consumer.membership.fetch = counting  # type: ignore[method-assign]
    await app.publish_many([Order(f"{n:01000d}", f"c{n}") for n in range(2_000)])
    while waiting < 50:
        await asyncio.sleep(0)
    for _ in range(200):
        await asyncio.sleep(0)
    assert waiting == sum(fetched) < 300
    gate.set()
    while not await app.caught_up():
        await asyncio.sleep(0)
    assert waiting == 2_000
    await app.stop()
    await log.close()
