"""AsyncAPI documents say what travels where, for whom and how, and nothing secret."""

from __future__ import annotations

import copy
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from postline import Compaction, ForeignTopic, Retention, Schemas, Topic
from postline.contracts import Sensitive
from postline.contracts.asyncapi import Receiving, Service, document, problems

ORDERS = Topic("shop.orders", owner="shop", key="customer.id", partitions=4, retention=Retention(age=timedelta(days=1)))
PRICES = Topic("shop.prices", owner="shop", key="article", compaction=Compaction(), schemas=Schemas(format="avro"))
LEVELS = ForeignTopic("stock.levels")


class Customer(Struct):
    id: str
    email: Sensitive[str] = ""


class Line(Struct):
    sku: str
    price: Decimal
    parts: list[Line] = []


@ORDERS.event("shop.OrderPlaced", aliases=["shop.Order"])
class OrderPlaced(Struct):
    order: str
    customer: Customer
    lines: list[Line]
    total: Annotated[int, Meta(ge=0)] = 0


@PRICES.event("shop.PriceSet")
class PriceSet(Struct):
    article: str
    cents: int


@LEVELS.reads("stock.Level")
class Level(Struct):
    article: str
    pieces: int


SHOP = Service("shop", [ORDERS, PRICES], [Receiving("restock", LEVELS, ["stock.Level"])])
BILLING = Service("billing", [], [Receiving("billing", ORDERS, ["shop.OrderPlaced"])])


def at(made: Any, *path: str) -> Any:
    for step in path:
        made = made[step]
    return made


def test_channels_say_topics_owners_rules_and_how_the_log_keeps_them() -> None:
    made = document([SHOP])
    orders, prices = at(made, "channels", "shop.orders"), at(made, "channels", "shop.prices")
    assert (orders["address"], orders["x-owner"], orders["x-evolution"]) == ("shop.orders", "shop", "FULL_TRANSITIVE")
    kafka = at(orders, "bindings", "kafka")
    assert (kafka["partitions"], at(kafka, "topicConfiguration", "retention.ms")) == (4, 86_400_000)
    assert at(prices, "bindings", "kafka", "topicConfiguration", "cleanup.policy") == ["compact"]
    assert set(prices["messages"]) == {"shop.PriceSet", "shop.prices.tombstone"}
    assert at(made, "components", "messages", "shop.prices.tombstone", "payload") == {"type": "null"}
    assert "x-owner" not in at(made, "channels", "stock.levels")


def test_messages_say_their_payload_headers_key_and_examples() -> None:
    made = document([SHOP])
    message = at(made, "components", "messages", "shop.OrderPlaced")
    assert message["x-aliases"] == ["shop.Order"]
    assert at(message, "bindings", "kafka", "key") == {"type": "string"}
    assert {"ce_id", "ce_type", "ce_schemaid"} <= set(at(message, "headers", "properties"))
    assert at(message, "payload") == {"$ref": "#/components/schemas/shop.OrderPlaced"}
    customer = at(made, "components", "schemas", "shop.OrderPlaced.Customer")
    assert at(customer, "properties", "email", "x-sensitive") is True
    for example in message["examples"]:
        assert isinstance(msgspec.convert(example["payload"], OrderPlaced, strict=False), OrderPlaced)
    avro = at(made, "components", "messages", "shop.PriceSet", "payload")
    assert (avro["schemaFormat"].startswith("application/vnd.apache.avro"), at(avro, "schema", "type")) == (
        True,
        "record",
    )


def test_operations_say_who_sends_and_who_receives_in_which_group() -> None:
    made = document([SHOP, BILLING])
    assert {name: each["action"] for name, each in made["operations"].items()} == {
        "shop.send.shop.orders": "send",
        "shop.send.shop.prices": "send",
        "shop.receive.restock": "receive",
        "billing.receive.billing": "receive",
    }
    billing = at(made, "operations", "billing.receive.billing")
    assert at(billing, "bindings", "kafka", "groupId", "enum") == ["billing"]
    assert billing["messages"] == [{"$ref": "#/channels/shop.orders/messages/shop.OrderPlaced"}]
    assert billing["x-service"] == "billing"
    assert at(made, "channels", "shop.orders", "x-owner") == "shop"


def test_a_server_is_named_without_what_is_secret() -> None:
    made = document([SHOP], url="kafka://user:secret@broker:9092?sasl.password=secret", title="Shop", version="2.1.0")
    assert made["servers"] == {"log": {"host": "broker:9092", "protocol": "kafka"}}
    assert made["info"] == {"title": "Shop", "version": "2.1.0"}
    assert b"secret" not in msgspec.json.encode(made)
    assert at(document([SHOP], url="sqlite:///shop.db"), "servers", "log", "host") == "shop.db"


def test_documents_of_ours_have_no_problems() -> None:
    assert problems(document([SHOP, BILLING])) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            ("channels", "shop.orders", "messages", "shop.OrderPlaced", "$ref"),
            "#/components/messages/none",
            "is not there",
        ),
        (("components", "messages", "shop.PriceSet", "payload", "schema", "type"), "recrod", "Message shop.PriceSet: "),
        (
            ("operations", "shop.send.shop.orders", "reply"),
            {"address": {"location": "$message.header#/reply-to"}, "channel": {"$ref": "#/channels/shop.prices"}},
            "takes its reply's address from the message",
        ),
    ],
)
def test_what_the_official_parser_does_not_see_is_found(path: tuple[str, ...], value: Any, said: str) -> None:
    made = copy.deepcopy(document([SHOP]))
    at(made, *path[:-1])[path[-1]] = value
    (found,) = problems(made)
    assert said in found
