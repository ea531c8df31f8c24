"""Priorities: shares, strictness, order, and what siblings have of their own."""

from __future__ import annotations

import asyncio

import pytest

from postline import App, ContractError, Priorities, SettingsError, Topic, UsageError
from postline.contracts import Catalog
from postline.testing import TestApp
from tests.unit.runtime.prioritized import SHARES, Job, Noting, fetched, jobs_topic, publish


async def test_each_priority_has_its_share_of_a_thousand_records() -> None:
    work = Noting(jobs_topic(SHARES))
    async with TestApp(work.shop) as t:
        await publish(t, 1_000, "low", "normal", "high")
        work.open.clear()
        await fetched(t, work.app)
        work.open.set()
        await t.settle()
        counts = t.audit()
    first = work.first(1_000)
    assert abs(first["high"] - 600) < 10
    assert abs(first["normal"] - 300) < 10
    assert abs(first["low"] - 100) < 10
    assert {name: each["done"] for name, each in counts.items()} == {"work": 1000, "work.high": 1000, "work.low": 1000}


async def test_what_nobody_is_guaranteed_goes_to_the_highest() -> None:
    work = Noting(jobs_topic({"high": 0, "normal": 0.1, "low": 0.05}))
    async with TestApp(work.shop) as t:
        await publish(t, 600, "low", "normal", "high")
        work.open.clear()
        await fetched(t, work.app)
        work.open.set()
        await t.settle()
    first = work.first(600)
    assert abs(first["normal"] - 60) < 8
    assert abs(first["low"] - 30) < 8


async def test_a_share_of_zero_is_strict() -> None:
    work = Noting(jobs_topic({"high": 0, "normal": 0, "low": 0}))
    async with TestApp(work.shop) as t:
        await publish(t, 100, "low", "normal", "high")
        work.open.clear()
        await fetched(t, work.app)
        work.open.set()
        await t.settle()
    names = [name for name, _ in work.seen]
    # One attempt may have begun before all were fetched.
    assert names[1:] == sorted(names[1:], key=["high", "normal", "low"].index)


async def test_the_others_use_what_an_idle_priority_leaves() -> None:
    work = Noting(jobs_topic(SHARES))
    async with TestApp(work.shop) as t:
        await publish(t, 400, "low", "normal")
        work.open.clear()
        await fetched(t, work.app)
        work.open.set()
        await t.settle()
    first = work.first(400)
    assert first["high"] == 0
    assert abs(first["normal"] - 360) < 10


async def test_a_fetched_flood_delays_a_higher_record_by_no_more_than_the_attempts_that_run() -> None:
    work = Noting(jobs_topic({"high": 0, "normal": 0, "low": 0}), concurrency=3)
    async with TestApp(work.shop) as t:
        await publish(t, 500, "low", keys=1)
        await publish(t, 500, "low", keys=50)
        work.open.clear()
        await fetched(t, work.app)
        while len(work.seen) < 3:
            await asyncio.sleep(0)
        await t.publish(Job("k", 1), priority="high")
        high = next(each for each in work.app.consumers if each.plan.name == "work.high")
        while not high.pool.ready:
            await asyncio.sleep(0)
        work.open.set()
        await t.settle()
    assert [name for name, _ in work.seen].index("high") == 3


async def test_order_per_key_holds_within_a_priority_at_any_concurrency() -> None:
    work = Noting(jobs_topic(SHARES), concurrency=8)
    async with TestApp(work.shop) as t:
        await publish(t, 300, "high", "normal", "low", keys=7)
        work.open.clear()
        await fetched(t, work.app)
        work.open.set()
        await t.settle()
    assert len(work.seen) == 900
    for priority in SHARES:
        for key in range(7):
            numbers = [job.number for name, job in work.seen if (name, job.key) == (priority, f"k{key}")]
            assert numbers == sorted(numbers)
            assert len(numbers) in (42, 43)


async def test_plain_handlers_let_go_after_each_record_too() -> None:
    topic = jobs_topic({"high": 0.5, "normal": 0.5})
    shop, app, seen = App("shop", owns=[topic]), App("worker"), list[str]()

    def handle(job: Job, ctx: object) -> None:
        seen.append(ctx.topic)  # type: ignore[attr-defined]

    app.subscribe("work", topic, start="earliest", concurrency=1).on(Job)(handle)
    async with TestApp(shop) as t:
        await publish(t, 200, "normal", "high", keys=1)
        await t.start(app)
        await t.settle()
    assert len(seen) == 400
    assert abs(seen[:200].count("jobs.high") - 100) < 5


async def test_batches_are_charged_by_their_records() -> None:
    topic = jobs_topic({"high": 0.75, "normal": 0.25})
    shop, app, seen, all_here = App("shop", owns=[topic]), App("worker"), list[str](), asyncio.Event()

    async def handle(jobs: list[Job], ctx: object) -> None:
        await all_here.wait()
        seen.extend([ctx.topic] * len(jobs))  # type: ignore[attr-defined]

    app.subscribe("work", topic, start="earliest", concurrency=1, batch=10).on(Job)(handle)
    async with TestApp(shop) as t:
        await publish(t, 400, "normal", "high")
        await fetched(t, app)
        all_here.set()
        await t.settle()
    assert len(seen) == 800
    assert abs(seen[:400].count("jobs.high") - 300) <= 30


async def test_siblings_have_their_own_dead_letters_and_retries() -> None:
    topic = jobs_topic(SHARES)
    shop, app = App("shop", owns=[topic]), App("worker")

    async def handle(job: Job) -> None:
        raise ValueError("never")

    app.subscribe("work", topic, start="earliest").on(Job)(handle)
    async with TestApp(shop, app) as t:
        await t.publish(Job("k", 1), priority="low")
        await t.publish(Job("k", 2), priority="high")
        await t.settle()
        await t.advance(hours=2)
        assert t.audit()["work.low"]["dead-lettered"] == 1
        assert t.audit()["work.high"]["dead-lettered"] == 1
        assert sum(t.audit()["work"].values()) == 0
        (letter,) = t.dead_letters("work.low")
        assert await t.discard("work.low", letter) == 1
        await t.settle()
        assert t.dead_letters("work.low") == []
        assert len(t.dead_letters("work.high")) == 1


async def test_a_handler_publishes_with_a_priority() -> None:
    topic = jobs_topic(SHARES)
    other = Topic("starts", owner="shop")

    @other.event("shop.Start")
    class Start(Job, frozen=True):
        pass

    shop = App("shop", owns=[topic, other])

    @shop.subscribe("starter", other, start="earliest").on(Start)
    async def start(message: Start, ctx: object) -> None:
        ctx.publish(Job("k", 1), priority="low")  # type: ignore[attr-defined]

    async with TestApp(shop) as t:
        await t.publish(Start("s", 1))
        await t.settle()
        assert t.published(Job, topic="jobs.low") == [Job("k", 1)]
        assert t.published(Job) == []


async def test_an_unknown_priority_is_refused() -> None:
    work = Noting(jobs_topic(SHARES))
    async with TestApp(work.shop) as t:
        with pytest.raises(UsageError, match=r"no priority 'urgent'.*'high', 'normal', 'low'"):
            await t.publish(Job("k", 1), priority="urgent")


async def test_a_topic_without_priorities_refuses_one() -> None:
    topic = Topic("plain", owner="shop", key="key")
    topic.event("shop.Job")(Job)
    async with TestApp(App("shop", owns=[topic])) as t:
        with pytest.raises(UsageError, match="it has none"):
            await t.publish(Job("k", 1), priority="high")


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"high": 0.5, "low": 0.5}, '"normal"'),
        ({"normal": 1}, "two or more"),
        ({"high": 0.6, "normal": 0.6}, "not more than 1"),
        ({"high": -0.1, "normal": 0.6}, "between 0 and 1"),
        ({"very high": 0.1, "normal": 0.6}, "'very high'"),
    ],
)
def test_priorities_that_make_no_sense_are_refused(shares: dict[str, float], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        jobs_topic(shares)


async def test_keyed_state_is_refused_with_priorities() -> None:
    work = Noting(jobs_topic(SHARES), state=Job)
    with pytest.raises(SettingsError, match="several priorities"):
        async with TestApp(work.shop, work.app):
            pass


async def test_a_subscription_named_as_a_sibling_is_refused() -> None:
    work = Noting(jobs_topic(SHARES))
    work.app.subscribe("work.high", jobs_topic({"a": 0, "normal": 0}, "others"), start="earliest").on(Job)(print)
    with pytest.raises(SettingsError, match=r"'work\.high' is declared"):
        async with TestApp(work.shop, work.app):
            pass


def test_a_topic_named_as_a_sibling_is_refused() -> None:
    catalog = Catalog([jobs_topic(SHARES), Topic("jobs.high", owner="shop")])
    assert "is the priority 'high' of topic 'jobs'" in " ".join(catalog.problems)


def test_siblings_are_no_second_declaration() -> None:
    topic = jobs_topic(SHARES)
    catalog = Catalog([topic])
    assert catalog.problems == []
    assert list(catalog.topics) == ["jobs", "jobs.high", "jobs.low"]
    assert catalog.contract_for(Job).topic == "jobs"
    assert topic.siblings["high"].contracts is topic.contracts


def test_priorities_are_compared_with_their_order() -> None:
    assert Priorities({"high": 0, "normal": 0}) == Priorities({"high": 0, "normal": 0})
    assert Priorities({"high": 0, "normal": 0}) != Priorities({"normal": 0, "high": 0})
