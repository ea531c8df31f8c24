"""What goes wrong around handlers: commits that fail, cancellations that are swallowed, limits in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from postline import Context, Retry
from postline.clock import SystemClock
from postline.errors import LogError, LogFull, LogUnavailable
from postline.log.port import Assignment, CommitUnit
from postline.testing import TestApp
from tests.unit.runtime.shop import Order, Receipt, build, in_order, running, spread

NEVER = Retry(immediate=0, delays=())


def fail_commits(t: TestApp, errors: list[LogError]) -> None:
    """Let the next commits of the first app fail with these errors, nothing stored."""
    membership = t.apps[0].consumers[0].membership
    assert membership is not None
    commit = membership.commit

    async def failing(unit: CommitUnit) -> Sequence[Assignment]:
        if errors:
            raise errors.pop(0)
        return await commit(unit)

    membership.commit = failing  # type: ignore[method-assign, assignment]


async def test_a_commit_that_fails_for_a_passing_reason_is_made_again_without_running_handlers_again():
    handled: list[Order] = []

    async def handle(order: Order) -> Receipt:
        handled.append(order)
        return Receipt(order.id, order.customer)

    async with running(build(handle)) as t:
        await t.settle()
        fail_commits(t, [LogFull("full"), LogUnavailable("locked"), LogFull("full")])
        await t.publish_many(spread(3, 3))
        await t.advance(seconds=5)
        assert len(handled) == 9
        assert len(t.published(Receipt)) == 9
        assert t.audit()["sub"] == {"done": 9}


async def test_a_commit_that_can_not_be_mended_ends_the_subscription_with_its_error():
    async def handle(order: Order) -> None:
        """Whatever."""

    async with running(build(handle), settled=False) as t:
        await t.settle()
        fail_commits(t, [LogError("broken for good")])
        await t.publish(Order("1", "c"))
        with pytest.raises(LogError, match="broken for good"):
            await t.settle()


async def test_a_handler_that_swallows_its_time_limit_succeeds_and_later_attempts_are_limited_still():
    seen: list[tuple[str, int]] = []

    async def handle(order: Order, ctx: Context) -> None:
        seen.append((order.id, ctx.attempt))
        try:
            await t.clock.sleep(3600)
        except asyncio.CancelledError:
            if order.id != "1":
                raise

    async with running(build(handle, timeout=1, concurrency=1, retry=NEVER)) as t:
        await t.publish_many([Order("1", "c"), Order("2", "c"), Order("3", "c")])
        await t.advance(minutes=1)
        assert seen == [("1", 1), ("2", 1)]
        assert t.audit()["sub"] == {"done": 1, "dead-lettered": 1, "held": 1}
        await t.discard("sub")
        await t.advance(minutes=1)


async def test_a_batch_over_its_time_limit_is_split_like_one_that_failed():
    done: list[Order] = []

    async def handle(batch: list[Order]) -> None:
        if any(order.id == "1-0" for order in batch):
            await t.clock.sleep(3600)
        done.extend(batch)

    async with running(build(handle, timeout=1, batch=10, retry=NEVER)) as t:
        await t.apps[0].publish_many(spread(4, 2))
        await t.advance(minutes=1)
        assert len(done) == 6
        assert in_order(done)
        assert t.dead_letters("sub")[0].error_type == "TimeoutError"


async def test_held_records_are_bounded_by_bytes_too(caplog: pytest.LogCaptureFixture):
    broken = {"0-0"}
    handled: list[Order] = []

    async def handle(order: Order) -> None:
        if order.id[:3] in broken:
            raise ValueError
        handled.append(order)

    app = build(handle, retry=NEVER)
    async with running(app) as t:
        app.consumers[0].plan.held_bytes_max = 10_000
        for n in range(6):
            await t.publish(Order(f"0-{n}" + "x" * 4_000, "c0", n))
            await t.settle()
        assert "redrive or discard" in caplog.text
        assert sum(t.audit()["sub"].values()) < 6
        broken.clear()
        await t.redrive("sub")
        await t.settle()
        assert in_order(handled)
        assert len(handled) == 6


async def test_a_handler_in_a_thread_that_outlives_a_crash_settles_nothing():
    import threading

    entered, leave = threading.Event(), threading.Event()
    runs: list[int] = []

    def handle(order: Order, ctx: Context) -> Receipt:
        runs.append(1)
        if len(runs) == 1:
            entered.set()
            leave.wait(10)
        return Receipt(order.id, order.customer)

    app = build(handle)
    async with running(app, patience_seconds=0.25) as t:
        await t.publish(Order("1", "c"))
        with pytest.raises(AssertionError):
            await t.settle()
        assert entered.is_set()
        await t.crash(app)
        await t.start(app)
        await t.settle()
        leave.set()
        await t.settle()
        assert len(t.published(Receipt)) == 1
        assert t.audit()["sub"] == {"done": 1}


async def test_a_graceful_stop_lets_attempts_end_and_commits_them():
    release = asyncio.Event()
    runs: list[str] = []

    async def handle(order: Order) -> Receipt:
        runs.append(order.id)
        await release.wait()
        return Receipt(order.id, order.customer)

    app = build(handle)
    async with running(app, patience_seconds=0.25) as t:
        await t.publish_many([Order("1", "c"), Order("2", "c")])
        with pytest.raises(AssertionError):
            await t.settle()
        owned = list(app.consumers[0].owned.values())
        stopping = asyncio.ensure_future(t.stop(app))
        while not all(each.draining for each in owned):
            await SystemClock().sleep(0)
        release.set()
        await stopping
        assert [receipt.order for receipt in t.published(Receipt)] == ["1"], "no further one was begun"
        await t.start(app)
        await t.settle()
        assert runs == ["1", "2"]


@pytest.mark.parametrize("result", [3, "text", [Receipt("1", "c"), 3]])
async def test_a_result_that_is_no_message_fails_the_attempt(result: Any):
    async def handle(order: Order) -> Any:
        return result

    async with running(build(handle, retry=NEVER)) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        assert t.dead_letters("sub")[0].error_type == "UsageError"
        assert t.published(Receipt) == []
