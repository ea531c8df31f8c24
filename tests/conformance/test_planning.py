"""What apps need, planned and applied: nothing is changed by looking, everything once, and only what can be."""

from __future__ import annotations

import msgspec
import pytest

from postline.errors import MissingCapability, TopicMismatch, UnknownTopic, UsageError
from postline.log.needs import ChangeKind, Need, Repartitioning, SubscriptionNeed, TopicSpec
from postline.log.port import Capability, Log
from tests.conformance.harness import appended, joined, topic

OWN = tuple(TopicSpec(name=f"billing.{what}", partitions=1, owner="billing", retention_ms=9_000_000) for what in "ab")
BILLING = SubscriptionNeed(name="billing", topic="shop.orders", service="billing", own=OWN)
NEED = Need(services=frozenset({"shop", "billing"}), topics=(topic(partitions=3),), subscriptions=(BILLING,))


async def test_what_is_needed_is_made_once_with_own_topics_beside_their_topic(log: Log) -> None:
    changes = await log.plan(NEED)
    assert await log.topics() == []
    await log.apply(changes)
    made = {spec.name: (spec.partitions, spec.retention_ms) for spec in await log.topics()}
    assert made == {"shop.orders": (3, None), "billing.a": (3, 9_000_000), "billing.b": (3, 9_000_000)}
    assert [change for change in await log.plan(NEED) if change.open] == []
    await log.apply(changes)
    assert {spec.name: (spec.partitions, spec.retention_ms) for spec in await log.topics()} == made


async def test_an_owners_retention_is_altered_and_another_services_is_let_alone(log: Log) -> None:
    await log.apply(await log.plan(NEED))
    longer = msgspec.structs.replace(NEED, topics=(topic(partitions=3, retention_ms=7_200_000),))
    others = msgspec.structs.replace(longer, services=frozenset({"billing"}))
    assert [change for change in await log.plan(others) if change.open] == []
    (change,) = [change for change in await log.plan(longer) if change.open]
    assert (change.kind, change.name, change.binding) == (ChangeKind.ALTER, "shop.orders", True)
    await log.apply([change])
    (spec,) = [spec for spec in await log.topics() if spec.name == "shop.orders"]
    assert spec.retention_ms == 7_200_000
    assert [change for change in await log.plan(longer) if change.open] == []


@pytest.mark.parametrize("wrong", [{"partitions": 2}, {"key": "other"}, {"owner": "billing"}])
async def test_what_is_fixed_for_life_is_a_mismatch_and_nothing_is_applied_beside_it(log: Log, wrong: dict) -> None:
    await log.create_topic(topic(partitions=3))
    need = msgspec.structs.replace(NEED, topics=(msgspec.structs.replace(topic(partitions=3), **wrong),))
    changes = await log.plan(need)
    assert "shop.orders" in {change.name for change in changes if change.kind is ChangeKind.MISMATCH}
    with pytest.raises(TopicMismatch, match=r"shop\.orders"):
        await log.apply(changes)
    assert [spec.name for spec in await log.topics()] == ["shop.orders"]


async def test_a_topic_that_nobody_here_may_make_is_missing(log: Log) -> None:
    need = Need(services=frozenset({"billing"}), foreign=("elsewhere.things",))
    (change,) = [change for change in await log.plan(need) if change.name == "elsewhere.things"]
    assert change.kind is ChangeKind.MISSING
    with pytest.raises(UnknownTopic, match=r"elsewhere\.things"):
        await log.apply([change])


async def test_partitions_are_added_where_the_engine_can_and_nobody_is_at_work(log: Log) -> None:
    await log.apply(await log.plan(NEED))
    wanted = Repartitioning(
        topic="shop.orders",
        before=3,
        partitions=4,
        subscriptions={"billing": ("billing.a", "billing.b")},
        ends=(0, 0, 0),
        look_seconds=0,
    )
    if Capability.REPARTITIONS not in log.capabilities:
        with pytest.raises(MissingCapability):
            await log.repartition(wanted, lambda entry, count: [entry])
        return
    membership, _ = await joined(log, 3)
    with pytest.raises(UsageError, match="live members"):
        await log.repartition(wanted, lambda entry, count: [entry])
    await membership.leave()
    await log.repartition(wanted, lambda entry, count: [entry])
    assert {spec.partitions for spec in await log.topics()} == {4}
    assert len(await log.bounds("shop.orders")) == 4
    (subscription,) = await log.subscriptions()
    assert [each.partition for each in await log.partitions(subscription.name)] == [0, 1, 2, 3]
    await appended(log, b"late")
    stale = msgspec.structs.replace(wanted, before=4, partitions=5, ends=(0, 0, 0, 0))
    with pytest.raises(UsageError, match="published"):
        await log.repartition(stale, lambda entry, count: [entry])
    assert {spec.partitions for spec in await log.topics()} == {4}
