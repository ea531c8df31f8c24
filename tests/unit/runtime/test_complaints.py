"""What the log of a process says of failed records, and that it stays short."""

from __future__ import annotations

import logging

import pytest

from postline import Context, DeadLetter, Discard, Retry
from tests.unit.runtime.shop import Order, build, running, spread


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "postline.runtime"]


async def test_a_failing_record_is_told_when_it_is_retried_and_when_it_is_given_up(caplog):
    async def handle(order: Order, ctx: Context) -> None:
        raise ValueError("no")

    caplog.set_level(logging.INFO)
    async with running(build(handle, retry=Retry(immediate=1, delays=(10,), jitter=0))) as t:
        published = await t.publish(next(iter(spread(1, 1))))
        await t.advance(minutes=1)
    place = f"{published.topic} {published.partition}:{published.offset}"
    assert said(caplog) == [
        f"subscription sub retries {place} in 10 s, after attempt 2: ValueError: no",
        f"subscription sub gives up {place} after attempt 3; its key waits (`postline dlq list sub`): ValueError: no",
    ]


async def test_what_a_handler_decides_is_told(caplog):
    async def handle(order: Order, ctx: Context) -> None:
        raise Discard("a test order") if order.id == "0-0" else DeadLetter("look at it")

    caplog.set_level(logging.INFO)
    async with running(build(handle, after="continue")) as t:
        await t.publish_many(spread(2, 1))
        await t.settle()
    assert sorted(line.split()[2] for line in said(caplog)) == ["discards", "gives"]
    assert not any("its key waits" in line for line in said(caplog))


async def test_a_flood_of_failures_is_no_flood_of_lines(caplog):
    async def handle(order: Order, ctx: Context) -> None:
        raise DeadLetter("no")

    async with running(build(handle)) as t:
        await t.publish_many(spread(500, 1))
        await t.settle()
        assert len(said(caplog)) == 21
        assert said(caplog)[-1].startswith("subscription sub leaves out further lines like these")
        await t.advance(minutes=2)
        await t.publish(Order("late", "late"))
        await t.settle()
        assert [line for line in said(caplog) if "left out" in line] == [
            "subscription sub left out 480 lines like these"
        ]
        assert len(said(caplog)) == 23
        assert len(t.dead_letters("sub")) == 501
