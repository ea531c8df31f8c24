"""Failures: quick retries, delays, types of exceptions, intents, and what other records do meanwhile."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta

import pytest

from postline import Context, DeadLetter, Discard, Retry, RetryLater
from tests.unit.runtime.shop import Order, Receipt, build, in_order, running, spread


def failing(times: int, error: Callable[[], BaseException] = lambda: ValueError("no"), of: str = "0-0"):
    """A handler that fails so many times for one order; what was handled, and the attempts as (time, number)."""
    handled: list[Order] = []
    attempts: list[tuple[int, int]] = []

    async def handle(order: Order, ctx: Context) -> None:
        if order.id == of:
            attempts.append((handle.now(), ctx.attempt))  # type: ignore[attr-defined]
            if len(attempts) <= times:
                raise error()
        handled.append(order)

    return handle, handled, attempts


async def test_quick_retries_come_first_then_each_delay_then_the_dead_letters():
    handle, handled, attempts = failing(99)
    retry = Retry(immediate=2, delays=(10, timedelta(minutes=1)), jitter=0)
    async with running(build(handle, retry=retry)) as t:
        start = t.clock.now_ms()
        handle.now = lambda: (t.clock.now_ms() - start) // 1000
        await t.publish_many(spread(2, 3))
        await t.settle()
        assert attempts == [(0, 1), (0, 2), (0, 3)]
        assert len(handled) == 3, "the other key flows"
        assert t.audit()["sub"] == {"done": 3, "held": 3}
        await t.advance(hours=1)
        assert attempts[3:] == [(10, 4), (70, 5)]
        (letter,) = t.dead_letters("sub")
        assert (letter.attempts, letter.error) == (5, "ValueError: no")
        assert retry.attempts_max == 5


async def test_a_record_that_succeeds_late_lets_its_key_go_on_in_order():
    handle, handled, _ = failing(3)
    async with running(build(handle, retry=Retry(immediate=0, delays=(1, 1, 1)))) as t:
        handle.now = t.clock.now_ms
        await t.publish_many(spread(3, 4))
        await t.settle()
        await t.publish_many([Order(f"{c}-4", f"c{c}", 4) for c in range(3)])
        await t.settle()
        assert len(handled) == 10
        await t.advance(minutes=1)
        assert len(handled) == 15
        assert in_order(handled)
        assert t.audit()["sub"] == {"done": 15}


async def test_jitter_only_lengthens_a_delay():
    times = []
    for seed in range(10):
        handle, _, attempts = failing(1)
        async with running(build(handle, retry=Retry(immediate=0, delays=(100,), jitter=0.5)), seed=seed) as t:
            start = t.clock.now_ms()
            handle.now = lambda t=t, start=start: t.clock.now_ms() - start
            await t.publish(Order("0-0", "c"))
            await t.advance(seconds=151)
            times.append(attempts[1][0])
    assert all(100_000 <= time <= 150_000 for time in times)
    assert len(set(times)) > 5


async def test_exception_types_have_policies_of_their_own():
    errors: list[BaseException] = []
    tried: list[str] = []

    async def handle(order: Order) -> None:
        tried.append(order.id)
        raise {"lookup": KeyError, "os": FileNotFoundError, "value": ValueError}[order.id]("no")

    retry = Retry(
        immediate=0,
        delays=(10,),
        never=(KeyError,),
        by_type={OSError: Retry(immediate=3, delays=()), FileNotFoundError: Retry(immediate=1, delays=())},
    )
    async with running(build(handle, retry=retry)) as t:
        await t.publish_many([Order("lookup", "a"), Order("os", "b"), Order("value", "c")])
        await t.settle()
        assert sorted(tried) == ["lookup", "os", "os", "value"]
        await t.advance(minutes=1)
        assert sorted(tried) == ["lookup", "os", "os", "value", "value"]
        assert errors == []
        assert len(t.dead_letters("sub")) == 3


async def test_retry_later_says_when_itself_and_counts_as_an_attempt():
    handle, handled, attempts = failing(99, lambda: RetryLater(timedelta(seconds=7), "not yet"))
    async with running(build(handle, retry=Retry(immediate=1, delays=(1000,)))) as t:
        start = t.clock.now_ms()
        handle.now = lambda: (t.clock.now_ms() - start) // 1000
        await t.publish_many(spread(1, 2))
        await t.advance(minutes=5)
        assert attempts == [(0, 1), (7, 2), (14, 3)]
        assert handled == []
        assert t.dead_letters("sub")[0].error == "RetryLater: not yet"


@pytest.mark.parametrize("delay", [math.inf, math.nan, 1e20, timedelta.max])
async def test_a_delay_that_never_ends_is_a_failed_attempt_of_its_record_alone(delay: float | timedelta):
    async def handle(order: Order, ctx: Context) -> None:
        if order.id == "0-0":
            raise RetryLater(delay)

    async with running(build(handle, retry=Retry(immediate=1, delays=()))) as t:
        await t.publish_many(spread(2, 2))
        await t.settle()
        (letter,) = t.dead_letters("sub")
        assert (letter.attempts, letter.error.split(":")[0]) == (2, "UsageError")
        assert t.audit()["sub"]["done"] == 2


class NamedLater(RetryLater):
    """A subclass that forgets its base."""

    def __init__(self) -> None:
        Exception.__init__(self, "somehow")


async def test_an_intent_that_says_no_delay_waits_none():
    handle, handled, attempts = failing(1, NamedLater)
    async with running(build(handle)) as t:
        handle.now = t.clock.now_ms
        await t.publish_many(spread(1, 2))
        await t.advance(seconds=1)
        assert len(attempts) == 2
        assert in_order(handled)


async def test_a_restart_does_not_shorten_what_a_handler_asked_to_wait():
    handle, handled, attempts = failing(1, lambda: RetryLater(timedelta(hours=2)))
    app = build(handle, retry=Retry(immediate=3, delays=()))
    async with running(app) as t:
        start = t.clock.now_ms()
        handle.now = lambda: (t.clock.now_ms() - start) // 1000
        await t.publish(Order("0-0", "c0"))
        await t.advance(hours=1)
        await t.crash(app)
        await t.start(app)
        await t.advance(minutes=59)
        assert len(attempts) == 1
        await t.advance(minutes=2)
        assert attempts == [(0, 1), (7200, 2)]
        assert len(handled) == 1


async def test_discard_gives_a_record_up_and_its_key_flows_on():
    handle, handled, attempts = failing(99, lambda: Discard("no use"))
    async with running(build(handle)) as t:
        handle.now = t.clock.now_ms
        await t.publish_many(spread(1, 3))
        await t.settle()
        assert len(attempts) == 1
        assert [order.total for order in handled] == [1, 2]
        assert t.audit()["sub"] == {"done": 2, "discarded": 1}
        assert t.dead_letters("sub") == []


async def test_dead_letter_gives_a_record_up_without_further_attempts():
    handle, handled, attempts = failing(99, lambda: DeadLetter("broken"))
    async with running(build(handle)) as t:
        handle.now = t.clock.now_ms
        await t.publish_many(spread(1, 3))
        await t.settle()
        assert len(attempts) == 1
        assert handled == []
        assert t.dead_letters("sub")[0].error == "DeadLetter: broken"


@pytest.mark.parametrize("intent", [ValueError("x"), RetryLater(5), Discard("x"), DeadLetter("x")])
async def test_what_a_failed_attempt_published_is_dropped(intent: BaseException):
    async def handle(order: Order, ctx: Context) -> None:
        ctx.publish(Receipt(order.id, order.customer))
        raise intent

    async with running(build(handle)) as t:
        await t.publish(Order("1", "c"))
        await t.advance(days=1)
        assert t.published(Receipt) == []


async def test_outputs_of_all_attempts_and_replays_have_the_same_ids_and_belong_to_one_conversation():
    seen: list[str] = []
    fail = [2]

    async def handle(order: Order, ctx: Context) -> list[Receipt]:
        seen.append(ctx.idempotency_key)
        ctx.publish(Receipt("a", "x"))
        ctx.publish(Receipt("b", "x"))
        ctx.publish(Receipt("b", "y"))
        ids.append([append.envelope.id for append in ctx.outbox or []])
        if fail[0]:
            fail[0] -= 1
            raise ValueError
        return [Receipt("c", "x")]

    ids: list[list[str]] = []
    async with running(build(handle)) as t:
        published = await t.publish(Order("1", "c"))
        await t.settle()
        assert len(ids) == 3
        assert ids[0] == ids[1] == ids[2]
        assert len(set(ids[0])) == 3
        assert len(set(seen)) == 1
        envelopes = [envelope for _, envelope in t.envelopes(Receipt)]
        assert len({envelope.id for envelope in envelopes}) == 4
        assert {(e.correlation_id, e.causation_id, e.source) for e in envelopes} == {
            (published.id, published.id, "shop")
        }


async def test_retries_survive_a_crash_with_their_attempts_and_times():
    handle, handled, attempts = failing(3)
    app = build(handle, retry=Retry(immediate=0, delays=(10, 20, 30), jitter=0))
    async with running(app) as t:
        start = t.clock.now_ms()
        handle.now = lambda: (t.clock.now_ms() - start) // 1000
        await t.publish_many(spread(2, 3))
        await t.advance(seconds=11)
        await t.crash(app)
        await t.advance(seconds=5)
        await t.start(app)
        await t.advance(minutes=2)
        assert attempts == [(0, 1), (10, 2), (30, 3), (60, 4)]
        assert in_order(handled)
        assert t.audit()["sub"] == {"done": 6}


async def test_a_wall_clock_that_jumps_back_makes_a_restored_retry_wait_no_longer_than_its_ladder():
    handle, handled, attempts = failing(1)
    app = build(handle, retry=Retry(immediate=0, delays=(10,), jitter=0))
    async with running(app) as t:
        handle.now = t.clock.now_ms
        await t.publish(Order("0-0", "c"))
        await t.settle()
        await t.stop(app)
        t.clock.jump_wall(-86_400)
        await t.start(app)
        await t.advance(seconds=11)
        assert len(attempts) == 2
        assert len(handled) == 1


async def test_an_attempt_over_its_time_limit_fails_and_the_next_may_succeed():
    tries: list[tuple[str, int]] = []

    async def handle(order: Order, ctx: Context) -> None:
        tries.append((order.id, ctx.attempt))
        if order.id == "1" and ctx.attempt == 1:
            await t.clock.sleep(3600)

    app = build(handle, timeout=timedelta(seconds=4), retry=Retry(immediate=0, delays=(1,), jitter=0))
    async with running(app) as t:
        await t.publish_many([Order("1", "c"), Order("2", "c"), Order("3", "d")])
        await t.advance(seconds=3.9)
        assert sorted(tries) == [("1", 1), ("3", 1)]
        await t.advance(seconds=1.2)
        assert t.audit()["sub"] == {"done": 1, "held": 2}
        await t.advance(seconds=1)
        assert sorted(tries) == [("1", 1), ("1", 2), ("2", 1), ("3", 1)]
        assert t.audit()["sub"] == {"done": 3}


async def test_an_attempt_that_always_takes_too_long_ends_as_a_dead_letter():
    async def handle(order: Order) -> None:
        await t.clock.sleep(3600)

    async with running(build(handle, timeout=1, retry=Retry(immediate=1, delays=()))) as t:
        await t.publish(Order("1", "c"))
        await t.advance(minutes=1)
        (letter,) = t.dead_letters("sub")
        assert letter.error == "TimeoutError: the attempt took longer than its limit of 1 s"
        assert letter.attempts == 2


async def test_a_cancellation_that_the_handler_makes_itself_is_a_failure_like_others():
    async def handle(order: Order) -> None:
        raise asyncio.CancelledError

    async with running(build(handle, retry=Retry(immediate=0, delays=()))) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        assert t.dead_letters("sub")[0].error_type == "RuntimeError"
