"""AsyncAPI documents say what travels where, for whom and how, and nothing secret."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta, Struct

from postline import Compaction, ForeignTopic, Retention, Schemas, Topic
from postline.contracts import Sensitive
from postline.contracts.asyncapi import Commanded, Receiving, Service, document
from postline.contracts.asyncapi_problems import problems
from postline.errors import SettingsError
from tests.unit.commands.ledger import Ledger

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
    """How many pieces there are.

    Counted each night.
    """

    article: str
    pieces: int


STATES = Topic(
    "shop.states",
    owner="shop",
    key="order",
    compaction=Compaction(tombstone_retention=timedelta(hours=1)),
    retention=Retention(bytes_per_partition=10_000),
    schemas=Schemas(format="protobuf", framed=True),
)


class State(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


@STATES.event("shop.StateChanged")
@dataclass
class StateChanged:
    order: UUID
    state: State = State.OPEN


SHOP = Service("shop", [ORDERS, PRICES], [Receiving("restock", LEVELS, ["stock.Level"])])
BILLING = Service("billing", [], [Receiving("billing", ORDERS, ["shop.OrderPlaced"])])


def at(made: Any, *path: str | int) -> Any:
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


def test_what_keeps_records_is_said_with_all_its_numbers() -> None:
    made = document([Service("shop", [STATES], [])])
    assert at(made, "channels", "shop.states", "bindings", "kafka", "topicConfiguration") == {
        "cleanup.policy": ["compact", "delete"],
        "retention.ms": -1,
        "retention.bytes": 10_000,
        "delete.retention.ms": 3_600_000,
        "max.message.bytes": 1 << 20,
    }


def test_messages_say_their_payload_headers_key_and_examples() -> None:
    made = document([SHOP])
    message = at(made, "components", "messages", "shop.OrderPlaced")
    assert message["x-aliases"] == ["shop.Order"]
    assert at(message, "bindings", "kafka", "key") == {"type": "string", "description": "The message's customer.id."}
    assert at(message, "bindings", "kafka", "schemaIdLocation") == "header"
    assert {"ce_id", "ce_type", "ce_schemaid"} <= set(at(message, "headers", "properties"))
    assert at(message, "headers", "properties", "ce_type", "const") == "shop.OrderPlaced"
    assert at(message, "payload") == {"$ref": "#/components/schemas/shop.OrderPlaced"}
    for example in message["examples"]:
        assert isinstance(msgspec.convert(example["payload"], OrderPlaced, strict=False), OrderPlaced)
    level = at(made, "components", "messages", "stock.Level")
    assert (level["summary"], level["description"][-19:]) == ("How many pieces there are.", "Counted each night.")
    assert "headers" not in level


def test_binary_formats_come_as_their_own_documents() -> None:
    made = document([SHOP, Service("states", [STATES], [])])
    avro = at(made, "components", "messages", "shop.PriceSet", "payload")
    assert avro["schemaFormat"].startswith("application/vnd.apache.avro")
    assert at(avro, "schema", "type") == "record"
    assert "x-postline" not in avro["schema"]
    message = at(made, "components", "messages", "shop.StateChanged")
    assert "message StateChanged" in at(message, "payload", "schema")
    assert at(message, "bindings", "kafka") == {
        "key": {"type": "string", "description": "The message's order.", "format": "uuid"},
        "schemaIdLocation": "payload",
        "schemaIdPayloadEncoding": "confluent",
        "schemaLookupStrategy": "TopicRecordNameStrategy",
        "bindingVersion": "0.5.0",
    }
    assert "ce_schemaid" not in at(message, "headers", "properties")
    assert "summary" not in message


@pytest.mark.parametrize("format", ["json", "avro"])
def test_messages_that_are_whole_events_have_their_data_in_the_payload(format: Any) -> None:
    topic = Topic("shop.announced", owner="shop", key="order", schemas=Schemas(format=format, structured=True))
    topic.event("shop.Announced")(OrderPlaced)
    made = document([Service("shop", [topic], [])])
    message = at(made, "components", "messages", "shop.Announced")
    assert message["contentType"] == "application/cloudevents+json"
    assert set(at(message, "headers", "properties")) == {"content-type"}
    assert at(message, "payload", "required") == ["specversion", "id", "source", "type"]
    properties = at(message, "payload", "properties")
    assert at(properties, "type", "const") == "shop.Announced"
    assert at(properties, "datacontenttype", "const") == f"application/{format}"
    if format == "json":
        assert at(properties, "data") == {"$ref": "#/components/schemas/shop.Announced"}
    else:
        assert at(properties, "data_base64", "contentEncoding") == "base64"
    assert problems(made) == []


def test_sensitive_fields_are_marked_even_beside_a_reference() -> None:
    topic = Topic("shop.people", owner="shop")

    @topic.event("shop.Person")
    class Person(Struct):
        email: Sensitive[str]
        address: Sensitive[Customer]
        point: tuple[int, str] = (0, "")
        choice: dict[str, Any] = msgspec.field(default_factory=lambda: {"$ref": "no reference"})

    made = document([Service("shop", [topic], [])])
    properties = at(made, "components", "schemas", "shop.Person", "properties")
    assert properties["email"] == {"type": "string", "x-sensitive": True}
    assert properties["address"] == {
        "allOf": [{"$ref": "#/components/schemas/shop.Person.Customer"}],
        "x-sensitive": True,
    }
    assert properties["point"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert properties["choice"]["default"] == {"$ref": "no reference"}
    assert problems(made) == []


def test_keys_of_other_types_are_texts_of_a_sort() -> None:
    schemas = {}
    for cls in (int, State, str):
        topic = Topic(f"shop.{cls.__name__}", owner="shop", key="id")
        topic.event("shop.Thing")(msgspec.defstruct("Thing", [("id", cls)]))
        made = document([Service("shop", [topic], [])])
        schemas[cls] = at(made, "components", "messages", "shop.Thing", "bindings", "kafka", "key")
    assert schemas[int]["pattern"] == "^-?[0-9]+$"
    assert schemas[State]["enum"] == ["open", "closed"]
    assert set(schemas[str]) == {"type", "description"}


def test_one_wire_name_on_two_topics_is_two_messages() -> None:
    topics = [Topic(f"{name}.things", owner="shop") for name in ("a", "b")]
    for topic, field in zip(topics, ("left", "right"), strict=True):
        topic.event("Thing")(msgspec.defstruct("Thing", [(field, Customer)]))
    made = document([Service("shop", topics, [])])
    first, second = (at(made, "channels", each.name, "messages") for each in topics)
    assert (set(first), set(second)) == ({"Thing"}, {"b.things.Thing"})
    assert set(at(made, "components", "schemas", "Thing", "properties")) == {"left"}
    assert set(at(made, "components", "schemas", "b.things.Thing", "properties")) == {"right"}
    assert problems(made) == []


def foreign(wire_name: str, fields: list[tuple[str, Any]], name: str = "shop.orders") -> ForeignTopic:
    topic = ForeignTopic(name)
    topic.reads(wire_name)(msgspec.defstruct("View", fields))
    return topic


def test_a_reader_of_an_older_name_or_fewer_fields_reads_the_owners_message() -> None:
    view = foreign("shop.Order", [("order", str)])
    made = document([Service("mail", [], [Receiving("mail", view, ["shop.Order"])]), SHOP])
    reference = {"$ref": "#/channels/shop.orders/messages/shop.OrderPlaced"}
    assert at(made, "operations", "mail.receive.mail", "messages") == [reference]
    assert at(made, "channels", "shop.orders", "x-owner") == "shop"
    assert problems(made) == []


def test_what_a_reader_reads_and_the_owner_does_not_declare_is_marked() -> None:
    view = foreign("shop.Gone", [("order", str)])
    made = document([SHOP, Service("mail", [], [Receiving("mail", view, ["shop.Gone"])])])
    assert at(made, "components", "messages", "shop.Gone", "x-undeclared") is True
    assert "x-undeclared" not in at(made, "components", "messages", "shop.OrderPlaced")
    assert problems(made) == []


def test_two_views_of_a_topic_that_nobody_here_owns_are_both_told() -> None:
    views = [foreign("Level", [(field, int)], "stock") for field in ("pieces", "boxes", "pieces")]
    services = [Service(f"reader{n}", [], [Receiving("levels", view, ["Level"])]) for n, view in enumerate(views)]
    made = document(services)
    assert set(at(made, "channels", "stock", "messages")) == {"Level", "stock.Level"}
    operations = [at(made, "operations", f"reader{n}.receive.levels", "messages", 0, "$ref") for n in range(3)]
    assert [each.rpartition("/")[2] for each in operations] == ["Level", "stock.Level", "Level"]


def test_an_owner_sends_tombstones_and_a_compacted_topics_reader_gets_none() -> None:
    made = document([SHOP, Service("read", [], [Receiving("prices", PRICES, ["shop.PriceSet"])])])
    sent = at(made, "operations", "shop.send.shop.prices", "messages")
    read = at(made, "operations", "read.receive.prices", "messages")
    assert [each["$ref"].rpartition("/")[2] for each in sent] == ["shop.PriceSet", "shop.prices.tombstone"]
    assert [each["$ref"].rpartition("/")[2] for each in read] == ["shop.PriceSet"]


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
    url = "kafka://broker:9092,other?sasl.password=secret&security.protocol=sasl_ssl"
    made = document([SHOP], url=url, title="Shop", version="2.1.0")
    assert made["servers"] == {
        "log-1": {"host": "broker:9092", "protocol": "kafka-secure"},
        "log-2": {"host": "other:9092", "protocol": "kafka-secure"},
    }
    assert made["info"] == {"title": "Shop", "version": "2.1.0"}
    assert b"secret" not in msgspec.json.encode(made).replace(b"kafka-secure", b"")
    assert document([SHOP], url="kafka://broker")["servers"] == {"log": {"host": "broker:9092", "protocol": "kafka"}}
    file = document([SHOP], url="sqlite:////srv/data/shop.db")
    assert file["servers"] == {"log": {"host": "shop.db", "protocol": "sqlite"}}
    with pytest.raises(SettingsError) as caught:
        document([SHOP], url="kafka://user:secret@broker")
    assert "secret" not in str(caught.value)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (part["$ref"],) if "$ref" in part else ()
        part = list(part.values())
    for each in part if isinstance(part, list) else ():
        yield from references(each)


def test_documents_of_ours_have_no_problems_and_every_reference_leads_somewhere() -> None:
    made = document([SHOP, BILLING, Service("states", [STATES], [])])
    assert problems(made) == []
    for reference in references(made):
        assert at(made, *reference.removeprefix("#/").split("/"))


REPLY = {"address": {"location": "$message.header#/reply-to"}, "channel": {"$ref": "#/channels/shop.prices"}}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            ("channels", "shop.orders", "messages", "shop.OrderPlaced", "$ref"),
            "#/components/messages/none",
            "#/channels/shop.orders/messages/shop.OrderPlaced: #/components/messages/none is not there.",
        ),
        (("components", "schemas", "x"), {"items": [{"$ref": "#/a~1b/%63"}]}, "/x/items/0: #/a~1b/%63 is not there."),
        (("components", "schemas", "x"), {"properties": {"default": {"$ref": "#/no"}}}, "default: #/no is not there."),
        (("components", "schemas", "x"), {"allOf": [{"$ref": "#/operations/no"}]}, "#/operations/no is not there"),
        (("components", "messages", "shop.PriceSet", "payload", "schema", "type"), "recrod", "Avro schema is none: "),
        (
            ("channels", "shop.prices", "messages", "own"),
            {"payload": {"schemaFormat": "avro", "schema": "lnog"}},
            "own: ",
        ),
        (("operations", "shop.send.shop.prices", "reply"), REPLY, "has one, too: 'shop.prices'"),
        (("components", "operations"), {"ask": {"reply": REPLY}}, "#/components/operations/ask: "),
    ],
)
def test_what_the_official_parser_does_not_see_is_found(path: tuple[str, ...], value: Any, said: str) -> None:
    made = copy.deepcopy(document([SHOP]))
    at(made, *path[:-1])[path[-1]] = value
    (found,) = problems(made)
    assert said in found


def test_replies_are_found_through_references() -> None:
    made = copy.deepcopy(document([SHOP]))
    made["components"]["replies"] = {"answer": {**REPLY, "address": {"$ref": "#/components/replyAddresses/there"}}}
    made["components"]["replyAddresses"] = {"there": REPLY["address"]}
    made["operations"]["shop.send.shop.orders"]["reply"] = {"$ref": "#/components/replies/answer"}
    assert len(problems(made)) == 1
    made["channels"]["shop.prices"]["address"] = None
    assert problems(made) == []


@pytest.mark.parametrize(
    "value",
    [
        {"$ref": "other.yaml#/x"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#/channels/shop.orders"},
        {"default": {"$ref": "#/data"}, "enum": [{"$ref": "#/data"}]},
        {"properties": {"$ref": {"type": "string"}}},
        {"payload": {"schemaFormat": "application/vnd.apache.avro", "schema": {"$ref": "price.avsc"}}},
        {"payload": {"$ref": "#/components/messages/x/payload"}},
        {"payload": True},
    ],
)
def test_what_is_right_or_lies_elsewhere_is_no_problem(value: Any) -> None:
    made = copy.deepcopy(document([SHOP]))
    made["components"]["messages"]["x"] = value
    assert problems(made) == []


@pytest.mark.parametrize("value", [None, [], "text", {}, {"operations": [], "channels": {"a": None}, "components": 1}])
def test_what_is_no_document_has_no_problems_of_these(value: Any) -> None:
    assert problems(value) == []


def test_each_command_is_an_operation_with_its_own_replies() -> None:
    ledger = Ledger()
    serving = Service("ledger", [], [], [Commanded(ledger.topic, serves=True)])
    sending = Service("shop", [], [], [Commanded(ledger.topic, serves=False)])
    made = document([serving, sending])
    asked = made["operations"]["ledger.receive.ledger.Transfer"]
    assert asked["channel"] == {"$ref": "#/channels/ledger.commands"}
    assert asked["reply"]["channel"] == {"$ref": "#/channels/ledger.replies"}
    names = [each["$ref"].rpartition("/")[2] for each in asked["reply"]["messages"]]
    built_in = ["postline.Fault", "postline.TimedOut", "postline.Cancelled"]
    assert names == ["ledger.Transferred", "ledger.InsufficientFunds", *built_in]
    assert made["operations"]["shop.send.ledger.BalanceOf"]["x-query"] is True
    headers = made["components"]["messages"]["ledger.Transferred"]["headers"]
    assert headers["properties"]["ce_outcome"]["enum"] == ["success", "refusal", "fault", "timeout"]
    assert problems(made) == []
