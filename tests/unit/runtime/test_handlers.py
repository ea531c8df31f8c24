"""Handlers: async or plain, their signatures, what they return, middleware, and what they may not do."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import pytest

from postline import App, Context, EncodeError, Retry, Topic, UsageError
from postline.errors import MessageTooLarge
from tests.unit.runtime.shop import Note, Order, Receipt, build, in_order, orders, running, spread, subscribe

NEVER = Retry(immediate=0, delays=())


async def test_plain_handlers_run_in_threads_and_keep_the_order_of_keys():
    handled: list[Order] = []
    threads: set[str] = set()

    def handle(order: Order) -> None:
        threads.add(threading.current_thread().name)
        handled.append(order)

    async with running(build(handle)) as t:
        await t.publish_many(spread(5, 100))
        await t.settle()
        assert t.audit()["sub"] == {"done": 500}
    assert in_order(handled)
    assert threading.current_thread().name not in threads


async def test_a_plain_handler_that_fails_in_the_middle_of_its_keys_records_repeats_none_that_succeeded():
    handled: list[Order] = []
    fail = [2]

    def handle(order: Order, ctx: Context) -> Receipt:
        if order.total == 7 and fail[0]:
            fail[0] -= 1
            raise ValueError
        handled.append(order)
        return Receipt(order.id, order.customer, order.total)

    async with running(build(handle, retry=Retry(immediate=0, delays=(1, 1)))) as t:
        await t.publish_many(spread(2, 20))
        await t.advance(minutes=1)
        assert in_order(handled)
        assert len(handled) == 40
        assert len(t.published(Receipt)) == 40


async def test_plain_handlers_have_filters_tombstones_and_undecodable_records_in_their_midst():
    handled: list[str] = []

    def handle(order: Order) -> None:
        handled.append(order.id)

    async with running(build(handle, retry=NEVER, after="continue", where=lambda order: order.total != 3)) as t:
        await t.publish_many(spread(1, 6))
        await t.settle()
        assert handled == ["0-0", "0-1", "0-2", "0-4", "0-5"]
        assert t.audit()["sub"] == {"done": 5, "filtered": 1}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("many", [False, True])
async def test_what_a_handler_returns_is_published(plain: bool, many: bool):
    def result(order: Order) -> Any:
        one = Receipt(order.id, order.customer)
        return [one, Receipt("second", order.customer)] if many else one

    async def handle(order: Order) -> Any:
        return result(order)

    async with running(build(result if plain else handle)) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        assert [receipt.order for receipt in t.published(Receipt)] == (["1", "second"] if many else ["1"])


async def test_trace_headers_follow_the_chain_and_others_do_not():
    async def handle(order: Order, ctx: Context) -> None:
        ctx.publish(Receipt(order.id, order.customer), headers={"own": "1"})

    trace = {"traceparent": "00-a-b-01", "tracestate": "x=y", "tenant": "north"}
    async with running(build(handle)) as t:
        await t.publish(Order("1", "c"), headers=trace)
        await t.settle()
        ((_, envelope),) = t.envelopes(Receipt)
        assert envelope.headers == {"traceparent": "00-a-b-01", "tracestate": "x=y", "own": "1"}


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (Receipt("1", ""), "EncodeError"),
        (Receipt(1, "c"), "EncodeError"),  # type: ignore[arg-type]
        (Receipt("x" * 2_000_000, "c"), "MessageTooLarge"),
        ("text", "UsageError"),
    ],
)
async def test_publishing_what_its_contract_refuses_fails_the_attempt(message: Any, error: str):
    async def handle(order: Order, ctx: Context) -> None:
        ctx.publish(message)

    async with running(build(handle, retry=NEVER)) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        assert t.dead_letters("sub")[0].error_type == error
        assert t.published(Receipt) == []


@pytest.mark.parametrize("way", ["directly", "in a child task", "in a thread", "from a plain handler"])
async def test_publishing_through_the_app_in_a_handler_is_refused(way: str):
    async def handle(order: Order) -> None:
        if way == "directly":
            await app.publish(Note("1"))
        elif way == "in a child task":
            await asyncio.create_task(app.publish_many([Note("1")]))
        else:
            await asyncio.to_thread(asyncio.run, app.publish(Note("1")))

    def handle_plainly(order: Order) -> None:
        asyncio.run(app.publish(Note("1")))

    app = build(handle_plainly if way == "from a plain handler" else handle, retry=NEVER)
    async with running(app) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        (letter,) = t.dead_letters("sub")
        assert letter.error.startswith(
            "UsageError: app.publish was called in a handler of subscription 'sub', or in a task that one began."
        )
        assert t.published(Note) == []


async def test_a_task_that_the_lifespan_began_may_publish_while_handlers_run():
    async def handle(order: Order) -> None:
        """Whatever."""

    app = build(handle)
    async with running(app) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        await app.publish(Note("outside"))
        assert t.published(Note) == [Note("outside")]


async def test_middleware_runs_from_the_outermost_in_and_sees_results_and_exceptions():
    steps: list[str] = []

    def middleware(name: str) -> Any:
        async def around(call_next: Any, message: Any, ctx: Context) -> Any:
            steps.append(f"{name} in")
            try:
                return await call_next(message, ctx)
            except ValueError as error:
                steps.append(f"{name} {error}")
                raise
            finally:
                steps.append(f"{name} out")

        return around

    async def handle(order: Order) -> Receipt:
        steps.append("handler")
        if order.id == "2":
            raise ValueError("broken")
        return Receipt(order.id, order.customer)

    app = build(handle, middleware=[middleware("a"), middleware("b")], retry=NEVER)
    async with running(app) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        assert steps == ["a in", "b in", "handler", "b out", "a out"]
        assert t.published(Receipt) == [Receipt("1", "c")]
        steps.clear()
        await t.publish(Order("2", "c"))
        await t.settle()
        assert steps == ["a in", "b in", "handler", "b broken", "b out", "a broken", "a out"]
        assert len(t.dead_letters("sub")) == 1


async def test_middleware_may_answer_for_the_handler_and_change_what_it_gets():
    handled: list[Order] = []

    async def around(call_next: Any, message: Order, ctx: Context) -> Any:
        if message.id == "skip":
            return None
        return await call_next(Order(message.id.upper(), message.customer), ctx)

    def handle(order: Order, ctx: Context) -> None:
        handled.append(order)

    async with running(build(handle, middleware=[around])) as t:
        await t.publish_many([Order("skip", "c"), Order("run", "c")])
        await t.settle()
        assert handled == [Order("RUN", "c")]
        assert t.audit()["sub"] == {"done": 2}


async def test_resources_come_from_the_lifespan_and_end_with_the_app():
    from contextlib import asynccontextmanager

    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App):
        events.append("open")
        yield {"rate": 3}
        events.append("closed")

    async def handle(order: Order, ctx: Context) -> Receipt:
        return Receipt(order.id, order.customer, ctx.resources["rate"])

    app = App("shop", owns=[orders, Topic("x", owner="shop")], lifespan=lifespan)
    receipts = Topic("shop.receipts2", owner="shop", key="customer")
    receipts.event("shop.Receipt")(Receipt)
    app.owns = (orders, receipts)
    subscribe(app, handle)
    async with running(app) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        assert t.published(Receipt)[0].total == 3
        assert events == ["open"]
    assert events == ["open", "closed"]


def two_and_more(message: Any, ctx: Context, more: int) -> None: ...
def by_name(message: Any, *, ctx: Context) -> None: ...
def nothing() -> None: ...
def generator(message: Any):
    yield message


async def async_generator(message: Any):
    yield message


@pytest.mark.parametrize("wrong", [two_and_more, by_name, nothing, generator, async_generator, "no function"])
def test_a_handler_of_a_wrong_signature_is_refused_where_it_is_declared(wrong: Any):
    with pytest.raises(UsageError, match="Subscription 'sub'"):
        build(wrong)


class Callable:
    async def __call__(self, order: Order, ctx: Context) -> None: ...


async def with_default(order: Order, ctx: Context, rate: int = 3) -> None: ...
async def variadic(*args: Any) -> None: ...


@pytest.mark.parametrize(
    "right",
    [Callable(), with_default, variadic, functools.partial(with_default, rate=4), lambda order: None],
)
async def test_handlers_may_be_objects_partials_and_lambdas(right: Any):
    async with running(build(right, retry=NEVER)) as t:
        await t.publish(Order("1", "c"))
        await t.settle()
        assert t.audit()["sub"] == {"done": 1}


def test_two_handlers_of_one_type_and_types_of_other_topics_are_refused():
    app = build(lambda order: None)
    with pytest.raises(UsageError, match=r"two handlers for 'shop\.Order'"):
        app.subscriptions["sub"].on(Order)(lambda order: None)
    with pytest.raises(Exception, match="declares no message type Note"):
        app.subscriptions["sub"].on(Note)(lambda note: None)


async def test_publishing_refuses_keyless_mistyped_oversized_and_undeclared_messages():
    async with running(build(lambda order: None)) as t:
        for wrong, error in (
            (Order("1", ""), EncodeError),
            (Order("1", None), EncodeError),  # type: ignore[arg-type]
            (Order(1, "c"), EncodeError),  # type: ignore[arg-type]
            (Order("x" * 2_000_000, "c"), MessageTooLarge),
            (object(), UsageError),
        ):
            with pytest.raises(error):
                await t.publish(wrong)
        for id in ("", 5, b"order-1", "half of \ud800", ["order-1"]):
            with pytest.raises(UsageError, match="an id must be text"):
                await t.publish(Order("1", "c"), id=id)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="an id must be text"):
                await t.apps[0].publish_many([Order("1", "c")], id_of=lambda _, id=id: id)  # type: ignore[misc]
        with pytest.raises(EncodeError):
            await t.apps[0].publish_many([Order("1", "c"), Order("2", "")])
        assert t.published(Order) == []
