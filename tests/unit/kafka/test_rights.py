"""The rights that apps need on a cluster: what each thing they do asks for, and no more."""

from __future__ import annotations

import msgspec
import pytest

pytest.importorskip("confluent_kafka")

from postline.log.kafka.options import read_options
from postline.log.kafka.rights import SubscriptionFacts, rights_for
from postline.log.needs import Need, SubscriptionNeed, TopicSpec

ORDERS = TopicSpec(name="shop.orders", partitions=2, owner="shop")
INVOICES = TopicSpec(name="billing.invoices", partitions=2, owner="billing")
CONTROL = TopicSpec(name="billing.control", partitions=2, owner="billing")
LETTERS = TopicSpec(name="billing.dead-letters", partitions=2, owner="billing")
BILLING = SubscriptionNeed(
    name="billing",
    topic="shop.orders",
    service="billing",
    own=(CONTROL, LETTERS),
    followed=frozenset({"billing.control"}),
)
NEED = Need(
    services=frozenset({"billing"}),
    topics=(ORDERS, INVOICES),
    foreign=("elsewhere.things",),
    subscriptions=(BILLING,),
    publishes=frozenset({"billing.invoices"}),
)


def found(need: Need = NEED, old_name: str = "", **options: str) -> dict[str, set[str]]:
    facts = {"billing": SubscriptionFacts("billing.state", old_name)}
    given = read_options(("one:9092",), {name.replace("__", "."): value for name, value in options.items()})
    rights = rights_for(need, facts, "postline.catalog", "postline.", given)
    assert len({str(right) for right in rights}) == len(rights)
    return {str(right): set(right.operations) for right in rights}


def test_each_thing_an_app_does_asks_for_its_rights_and_nothing_else_does() -> None:
    assert found() == {
        "topic postline.catalog": {"READ", "WRITE", "DESCRIBE_CONFIGS"},
        "topic shop.orders": {"READ", "DESCRIBE_CONFIGS"},
        "topic billing.invoices": {"WRITE", "DESCRIBE_CONFIGS"},
        "topic elsewhere.things": {"DESCRIBE"},
        "topic billing.control": {"READ", "WRITE", "DESCRIBE_CONFIGS"},
        "topic billing.dead-letters": {"WRITE", "DESCRIBE_CONFIGS"},
        "topic billing.state": {"READ", "WRITE", "DESCRIBE_CONFIGS"},
        "group billing": {"READ"},
        "group postline.reading": {"DESCRIBE"},
        "transactional-id postline.*": {"WRITE"},
        "cluster kafka-cluster": {"DESCRIBE_CONFIGS"},
    }


def test_who_sends_commands_hears_of_them_and_may_ask_for_their_cancelling() -> None:
    client = Need(
        services=frozenset({"shop"}),
        topics=(INVOICES,),
        publishes=frozenset({"billing.invoices"}),
        follows=frozenset({"billing.invoices"}),
        asks=frozenset({"billing.control"}),
    )
    rights = found(client)
    assert rights["topic billing.invoices"] == {"READ", "WRITE"}
    assert rights["topic billing.control"] == {"WRITE"}
    assert found(msgspec.structs.replace(NEED, asks=client.asks)) == found()  # its own it may write anyway


def test_a_subscription_that_is_renamed_reads_its_old_group() -> None:
    assert found(old_name="invoicing")["group invoicing"] == {"READ"}


def test_who_chooses_the_group_protocol_need_not_ask_the_cluster() -> None:
    assert "cluster kafka-cluster" not in found(group__protocol="classic")


def test_an_app_that_makes_its_topics_may_make_them_and_alter_its_contracts_ones_only() -> None:
    rights = found(create_topics="true")
    assert "CREATE" not in rights["topic shop.orders"]
    assert {name for name, each in rights.items() if "CREATE" in each} == {
        "topic postline.catalog",
        "topic billing.invoices",
        "topic billing.control",
        "topic billing.dead-letters",
        "topic billing.state",
    }
    assert [name for name, each in rights.items() if "ALTER_CONFIGS" in each] == ["topic billing.invoices"]
