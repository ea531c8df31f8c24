"""`TestApp`: apps in memory, settled without waiting, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec import Struct

from postline import App, Context, ForeignTopic, Retry, Topic, UsageError
from postline.clock import SystemClock
from postline.testing import TestApp

orders = Topic("shop.orders", owner="shop", key="customer")
invoices = Topic("billing.invoices", owner="billing", key="customer")


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    id: str
    customer: str
    total: int = 1


@invoices.event("billing.Invoice")
class Invoice(Struct, frozen=True):
    order: str
    customer: str
    running: int


def build_billing(retry: Retry | None = None, fails: int = 0) -> App:
    app = App("billing", owns=[invoices])
    billing = app.subscribe("billing", orders, start="earliest", state=int, retry=retry)
    failures = [fails]

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced, ctx: Context) -> Invoice:
        if order.total == 13 and failures[0]:
            failures[0] -= 1
            raise ValueError("unlucky")
        total = (ctx.state.get() or 0) + order.total
        ctx.state.put(total)
        return Invoice(order.id, order.customer, total)

    return app


async def test_what_one_app_publishes_another_handles_within_one_settle():
    seen: list[Invoice] = []
    mail = App("mail")
    mailing = mail.subscribe("mail", invoices, start="earliest")

    @mailing.on(Invoice)
    def send(invoice: Invoice) -> None:
        seen.append(invoice)

    async with TestApp(build_billing(), mail) as t:
        await t.publish_many([OrderPlaced(str(i), f"c{i % 3}", i) for i in range(30)])
        await t.settle()
        assert sorted(seen, key=lambda i: int(i.order)) == sorted(t.published(Invoice), key=lambda i: int(i.order))
        assert len(seen) == 30
        assert t.state("billing", "c0") == sum(range(0, 30, 3))
        assert t.state("billing", "nobody") is None
        assert t.audit() == {"billing": {"done": 30}, "mail": {"done": 30}}


async def test_advance_goes_through_retries_in_no_real_time():
    app = build_billing(Retry(immediate=0, delays=(60, 3600), jitter=0), fails=2)
    async with TestApp(app) as t:
        await t.publish(OrderPlaced("1", "c", 13))
        await t.settle()
        assert t.published(Invoice) == []
        assert t.audit() == {"billing": {"held": 1}}
        await t.advance(minutes=1)
        assert t.published(Invoice) == []
        await t.advance(timedelta(hours=1))
        assert t.published(Invoice) == [Invoice("1", "c", 13)]
        assert t.audit() == {"billing": {"done": 1}}


async def test_a_week_passes_with_timers_and_housekeeping():
    async with TestApp(build_billing(Retry(immediate=0, delays=(1,)))) as t:
        before = t.clock.now_ms()
        await t.advance(days=7)
        assert t.clock.now_ms() - before == 7 * 86_400_000


async def test_dead_letters_are_listed_redriven_and_discarded():
    app = build_billing(Retry(immediate=1, delays=()), fails=4)
    async with TestApp(app) as t:
        await t.publish_many([OrderPlaced("1", "c", 13), OrderPlaced("2", "c", 2)])
        await t.settle()
        (letter,) = t.dead_letters("billing")
        assert (letter.type, letter.error_type, letter.attempts, letter.holds) == (
            "shop.OrderPlaced",
            "ValueError",
            2,
            True,
        )
        assert t.audit() == {"billing": {"dead-lettered": 1, "held": 1}}
        assert await t.redrive("billing") == 1
        await t.settle()
        assert t.audit() == {"billing": {"dead-lettered": 1, "held": 1}}
        assert await t.discard("billing", *t.dead_letters("billing"), reason="no use") == 1
        await t.settle()
        assert t.dead_letters("billing") == []
        assert t.published(Invoice) == [Invoice("2", "c", 2)]
        assert t.audit() == {"billing": {"discarded": 1, "done": 1}}


async def test_settle_names_the_subscription_whose_handler_never_ends():
    app = App("billing")
    stuck = app.subscribe("stuck", orders, start="earliest")

    @stuck.on(OrderPlaced)
    async def wait(order: OrderPlaced) -> None:
        await asyncio.Event().wait()

    async with TestApp(app, patience_seconds=0.25) as t:
        await t.publish(OrderPlaced("1", "c"))
        with pytest.raises(AssertionError, match=r"subscription 'stuck' owns 8 partitions, has 1 attempts running"):
            await t.settle()


async def test_settle_gives_up_on_apps_that_feed_each_other_for_ever():
    app = App("shop", owns=[orders])
    loop = app.subscribe("loop", orders, start="earliest")

    @loop.on(OrderPlaced)
    async def again(order: OrderPlaced) -> OrderPlaced:
        return order

    async with TestApp(app, attempts_max=100) as t:
        await t.publish(OrderPlaced("1", "c"))
        with pytest.raises(AssertionError, match="More than 100 records were handled"):
            await t.settle()


async def test_settle_raises_what_an_app_failed_with():
    app = build_billing()
    async with TestApp(app) as t:
        await t.settle()
        failed = app.consumers[0].failed
        assert failed is not None
        failed.set_result(UsageError("broken"))
        with pytest.raises(UsageError, match="broken"):
            await t.settle()


async def test_handlers_may_sleep_on_the_tests_clock():
    app = App("shop", owns=[orders])
    slow = app.subscribe("slow", orders, start="earliest")
    woken: list[str] = []
    t = TestApp(app)

    @slow.on(OrderPlaced)
    async def wait(order: OrderPlaced) -> None:
        await t.clock.sleep(30)
        woken.append(order.id)

    async with t:
        await t.publish(OrderPlaced("1", "c"))
        await t.advance(seconds=29)
        assert woken == []
        await t.advance(seconds=2)
        assert woken == ["1"]


async def test_slow_handlers_are_waited_for_in_real_time():
    app = App("shop", owns=[orders])
    slow = app.subscribe("slow", orders, start="earliest")

    @slow.on(OrderPlaced)
    async def wait(order: OrderPlaced) -> None:
        await SystemClock().sleep(0.05)

    async with TestApp(app) as t:
        await t.publish(OrderPlaced("1", "c"))
        await t.settle()
        assert t.audit() == {"slow": {"done": 1}}


async def test_a_stopped_app_goes_on_where_it_was_and_a_crashed_one_repeats_nothing_committed():
    app = build_billing()
    async with TestApp(app) as t:
        await t.publish(OrderPlaced("1", "c", 1))
        await t.settle()
        await t.stop(app)
        await t.publish(OrderPlaced("2", "c", 2))
        await t.start(app)
        await t.settle()
        await t.crash(app)
        await t.publish(OrderPlaced("3", "c", 3))
        await t.start(app)
        await t.settle()
        assert [i.running for i in t.published(Invoice)] == [1, 3, 6]
        assert t.audit() == {"billing": {"done": 3}}


async def test_the_audit_names_what_does_not_balance():
    async with TestApp(app := build_billing()) as t:
        await t.publish(OrderPlaced("1", "c", 1))
        await t.settle()
        t.audit()
        owned = next(o for o in app.consumers[0].owned.values() if o.window.position)
        owned.window.progress.counts[1] += 1
        await t.publish(OrderPlaced("2", "c", 1))
        await t.settle()
        with pytest.raises(AssertionError, match="-1 records below position 2 have no outcome"):
            t.audit()


async def test_the_same_seed_gives_the_same_ids_and_times():
    runs = []
    for _ in range(2):
        async with TestApp(build_billing(), seed=3) as t:
            await t.publish(OrderPlaced("1", "c", 1))
            await t.settle()
            runs.append(t.envelopes(OrderPlaced) + t.envelopes(Invoice))
    assert runs[0] == runs[1]


async def test_advance_without_a_time_is_refused():
    async with TestApp(build_billing()) as t:
        with pytest.raises(UsageError, match="no time to pass"):
            await t.advance()


async def test_apps_start_in_whatever_order_they_are_given():
    view = ForeignTopic("billing.invoices")

    @view.reads("billing.Invoice")
    class InvoiceView(Struct):
        running: int

    seen: list[int] = []
    mail = App("mail")

    @mail.subscribe("mail", view, start="earliest").on(InvoiceView)
    async def send(invoice: InvoiceView) -> None:
        seen.append(invoice.running)

    async with TestApp(mail, build_billing()) as t:
        await t.publish(OrderPlaced("1", "c", 5))
        await t.settle()
        assert seen == [5]


async def test_types_that_no_topic_of_the_test_declares_are_named():
    async with TestApp(build_billing()) as t:
        with pytest.raises(UsageError, match="No topic of this test declares int"):
            t.published(int)
        with pytest.raises(UsageError, match="No topic of this app declares the message type int"):
            await t.publish(3)
        with pytest.raises(UsageError, match="has a subscription named"):
            t.dead_letters("unknown")
