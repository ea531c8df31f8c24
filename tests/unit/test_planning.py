"""What apps need of a log: planned and applied on the embedded engine, and checked where apps create nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from postline import App, CommandTopic, ForeignTopic, Topic
from postline.app import Environment, need_of
from postline.clock import SystemClock
from postline.errors import MissingCapability, TopicMismatch, UnknownTopic
from postline.log.needs import Change, ChangeKind, Detail, Need
from postline.log.planning import plan_topics
from postline.log.port import Capability, TopicSpec
from postline.log.sqlite import SqliteLog
from postline.operations import Operations
from postline.runtime.topology import merged, warnings_in
from postline.settings import LogUrl, Settings


class Order(Struct, frozen=True):
    """What travels."""

    customer: str


def topic(name: str = "shop.orders", owner: str = "shop", **options: Any) -> Topic:
    made = Topic(name, **{"owner": owner, "key": "customer", "partitions": 2, **options})
    made.event(f"{name}.Order")(type("Order", (Struct,), {"__annotations__": {"customer": str}}))
    return made


def reader(of: Topic | ForeignTopic, name: str = "billing") -> App:
    app = App(name)
    (cls,) = of.classes
    app.subscribe(f"{name}-sub", of, start="earliest").on(cls)(lambda order: None)
    return app


class Operated(SqliteLog):
    """The embedded engine as one whose topics are the operators' to make, with warnings to tell."""

    warnings: Sequence[Change] = ()

    def __init__(self) -> None:
        super().__init__(None, clock=SystemClock())
        self.capabilities -= {Capability.CREATES_TOPICS}

    async def plan(self, need: Need) -> list[Change]:
        """The plan with the warnings."""
        return [*await super().plan(need), *self.warnings]


async def environment(namespace: str = "") -> Environment:
    clock = SystemClock()
    log = Operated()
    await log.start()
    settings = Settings(url=LogUrl("sqlite"), namespace=namespace)
    return Environment(log, settings, clock, random.Random(1))


def told(changes: Sequence[Change]) -> list[tuple[str, str]]:
    return [(change.kind.value, change.name) for change in changes]


async def test_topics_are_planned_made_altered_and_then_as_they_shall_be():
    env = await environment("staging")
    shop, billing = App("shop", owns=[topic()]), reader(topic())
    need = merged([need_of(shop, env), need_of(billing, env)])
    first = await env.log.plan(need)
    assert told(first) == [
        ("create", "staging.shop.orders"),
        ("create", "staging.postline.schemas"),
        ("create", "staging.billing-sub.dead-letters"),
        ("create", "staging.billing-sub.control"),
    ]
    await env.log.apply(first)
    assert {spec.name: spec.partitions for spec in await env.log.topics()} == {
        change.name: 1 if change.name == "staging.postline.schemas" else 2 for change in first
    }
    assert await env.log.plan(need) == []
    longer = need_of(App("shop", owns=[topic(retention=timedelta(hours=1))]), env)
    (change,) = await env.log.plan(longer)
    assert (change.kind, change.details) == (ChangeKind.ALTER, (Detail("retention_ms", "none", "3600000"),))
    await env.log.apply([change])
    assert await env.log.plan(longer) == []
    assert await env.log.plan(need_of(billing, env)) == []  # a reader's contract says nothing of what the owner keeps


async def test_a_command_topic_is_planned_with_its_priorities_for_who_serves_it_and_who_sends():
    env = await environment()
    jobs = CommandTopic("jobs", owner="worker", key="customer", priorities={"high": 0, "normal": 0})
    jobs.command("jobs.Do")(type("Do", (Struct,), {"__annotations__": {"customer": str}}))
    worker, client = App("worker", owns=[jobs]), App("client", publishes_to=[jobs])
    worker.serve(jobs).on(next(iter(jobs.commands.classes)))(lambda command: None)
    made = {name for _, name in told(await env.log.plan(need_of(worker, env)))}
    assert made - {"postline.schemas"} == {
        *("jobs.commands", "jobs.commands.high", "jobs.replies", "jobs.tickets"),
        *("jobs.dead-letters", "jobs.control", "jobs.high.dead-letters", "jobs.high.control"),
    }
    sent = need_of(client, env)
    assert sent.follows == {"jobs.replies", "jobs.tickets"}
    assert sent.asks == {"jobs.control", "jobs.high.control"}
    assert sent.publishes == {"jobs.commands", "jobs.commands.high", "jobs.replies", "jobs.tickets"}


async def test_nothing_is_applied_beside_what_can_not_be():
    env = await environment()
    await env.log.apply(await env.log.plan(need_of(App("shop", owns=[topic()]), env)))
    need = need_of(App("shop", owns=[topic(partitions=3), topic("shop.returns")]), env)
    changes = await env.log.plan(need)
    assert told(changes) == [("mismatch", "shop.orders"), ("create", "shop.returns")]
    with pytest.raises(
        TopicMismatch, match=r"(?s)nothing was done:.*shop\.orders.*partitions are 2, the contract says 3"
    ):
        await env.log.apply(changes)
    assert [spec.name for spec in await env.log.topics()] == ["postline.schemas", "shop.orders"]


async def test_a_foreign_topic_that_is_missing_can_not_be_made():
    env = await environment()
    view = ForeignTopic("elsewhere.things")
    view.reads("elsewhere.Thing")(Order)
    changes = await env.log.plan(need_of(reader(view), env))
    assert told(changes)[0] == ("missing", "elsewhere.things")
    with pytest.raises(UnknownTopic, match=r"elsewhere\.things: it is missing, and another service.s to make"):
        await env.log.apply(changes)


def test_the_owners_contract_counts_where_several_apps_declare_a_topic():
    short, long = (
        TopicSpec(name="t", partitions=1, owner="b", retention_ms=1),
        TopicSpec(name="t", partitions=1, owner="b"),
    )
    one, other = (
        Need(services=frozenset("a"), topics=(short,), foreign=("t", "u")),
        Need(services=frozenset("b"), topics=(long,)),
    )
    for needs in ((one, other), (other, one)):
        together = merged(needs)
        assert (together.topics, together.foreign, together.services) == ((long,), ("u",), frozenset("ab"))
    assert merged([msgspec.structs.replace(one, principal="User:a"), other]).principal == "User:a"


def test_own_topics_are_planned_with_the_partitions_that_the_log_has():
    there = TopicSpec(name="things", partitions=7, owner="")
    view = ForeignTopic("things")
    view.reads("Thing")(Order)
    clock = SystemClock()
    env = Environment(SqliteLog(None, clock=clock), Settings(url=LogUrl("sqlite")), clock)
    changes = plan_topics(need_of(reader(view), env), {"things": there})
    assert [change.topic and change.topic.partitions for change in changes] == [7, 7]


# -- at start -----------------------------------------------------------------------------------


async def test_where_nobody_creates_topics_an_app_names_all_that_it_lacks_and_how_to_mend_it():
    env = await environment()
    app = reader(topic())
    with pytest.raises(UnknownTopic) as refused:
        await app.start(env)
    for name in ("shop.orders", "billing-sub.control", "billing-sub.dead-letters"):
        assert f"{name} is missing" in refused.value.message
    assert "`postline topics apply APP`" in refused.value.remedy
    assert await env.log.topics() == []


async def test_where_nobody_alters_topics_the_owner_refuses_another_retention_and_a_reader_does_not():
    env = await environment()
    shop, billing = App("shop", owns=[topic(retention=timedelta(hours=1))]), reader(topic())
    await env.log.apply(await env.log.plan(merged([need_of(shop, env), need_of(billing, env)])))
    await shop.start(env)
    await shop.stop()
    await billing.start(env)
    await billing.stop()
    with pytest.raises(TopicMismatch, match=r"shop\.orders differs: retention_ms 3600000 → none"):
        await App("shop", owns=[topic()]).start(env)
    (spec,) = [spec for spec in await env.log.topics() if spec.name == "shop.orders"]
    assert spec.retention_ms == 3_600_000


async def test_an_app_that_only_publishes_needs_no_topics_of_its_subscriptions():
    env = await environment()
    app = reader(topic())
    await env.log.apply(await env.log.plan(need_of(App("shop", owns=[topic()]), env)))
    await app.start(env, consume=False)
    await app.stop()


async def test_what_is_to_be_known_is_told_once_for_all_topics(caplog: pytest.LogCaptureFixture):
    env = await environment()
    assert isinstance(env.log, Operated)
    env.log.warnings = [Change(kind=ChangeKind.WARNING, name=name, said="one copy", binding=False) for name in "ab"]
    app = App("shop", owns=[topic()])
    await env.log.apply(await env.log.plan(need_of(app, env)))
    await app.start(env)
    await app.stop()
    assert [record.getMessage() for record in caplog.records] == ["a, b: one copy"]
    assert warnings_in([]) == []


async def test_a_topic_of_the_embedded_engine_keeps_its_partitions_with_a_way_out():
    env = await environment()
    await env.log.apply(await env.log.plan(need_of(App("shop", owns=[topic()]), env)))
    with pytest.raises(MissingCapability, match="can't be changed in place") as refused:
        await Operations(env.log, env.clock, random.Random(1)).plan_repartition("shop.orders", 4, 0)
    assert "Declare a new topic" in refused.value.remedy
