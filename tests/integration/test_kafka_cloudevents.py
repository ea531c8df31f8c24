"""CloudEvents on Kafka with the official SDK on the other side, in both modes and both directions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from msgspec import Struct

from postline import App, Context, Schemas, Topic
from tests.brokers.cluster import Cluster
from tests.brokers.ready import silent
from tests.conformance.apps import NEVER, World
from tests.conformance.engines import KafkaEngine

ORDERS = Topic("shop.orders", owner="shop", key="order", partitions=1)
STRUCTURED = Topic("shop.announced", owner="shop", key="order", partitions=1, schemas=Schemas(structured=True))


@ORDERS.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    order: str


@ORDERS.event("shop.OrderCancelled")
class OrderCancelled(Struct, frozen=True):
    order: str


@STRUCTURED.event("shop.Announced")
class Announced(Struct, frozen=True):
    order: str


@pytest.fixture
async def engine(kafka_one: Cluster, tmp_path: Path) -> AsyncIterator[KafkaEngine]:
    made = KafkaEngine(kafka_one, "consumer", tmp_path)
    yield made
    await made.close()


def sent_by_sdk(cluster: Cluster, topic: str, messages: Iterable[sdk.KafkaMessage]) -> None:
    """Produce what the SDK made, as its users do."""
    producer = Producer(cluster.client, logger=silent)
    for each in messages:
        producer.produce(topic, each.value, b"o-1", headers=list(each.headers.items()))
    assert producer.flush(20) == 0


def read_by_sdk(cluster: Cluster, topic: str, count: int) -> list[BaseCloudEvent]:
    """The first records of partition 0, as the SDK reads them."""
    consumer = Consumer({**cluster.client, "group.id": "outside", "isolation.level": "read_committed"}, logger=silent)
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        found = consumer.consume(count, 20)
        assert len(found) == count
        messages = [sdk.KafkaMessage(_headers(each), each.key(), each.value() or b"") for each in found]
        return [sdk.from_kafka(each, JSONFormat()) for each in messages]
    finally:
        consumer.close()


def _headers(message: Message) -> dict[str, bytes]:
    headers: Any = message.headers()
    return dict(headers)


async def test_events_of_the_sdk_are_handled_by_type_whether_binary_or_structured(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    handled = []
    app = App("billing")
    billing = app.subscribe("billing", ORDERS, start="earliest", retry=NEVER)

    @billing.on(OrderPlaced)
    @billing.on(OrderCancelled)
    async def note(message: object, ctx: Context) -> None:
        handled.append((message, ctx.envelope.id, ctx.envelope.headers["ce_subject"]))

    def event(number: int, kind: str) -> CloudEvent:
        said = {"id": f"{number}", "source": "/vendor", "type": kind, "subject": "Zürich", "specversion": "1.0"}
        return CloudEvent({**said, "datacontenttype": "application/json"}, {"order": f"o-{number}"})

    async with World(engine, ORDERS) as world:
        await world.start(app)
        whole = sdk.to_structured(event(1, "shop.OrderPlaced"), JSONFormat())
        sent = [whole, sdk.to_binary(event(2, "shop.OrderCancelled"), JSONFormat())]
        broken = sdk.KafkaMessage(whole.headers, None, b'{"specversion": "1.0", "id": "3"}')
        await asyncio.to_thread(sent_by_sdk, kafka_one, ORDERS.name, [*sent, broken])
        await world.until_handled(dead=1)
        assert handled == [(OrderPlaced("o-1"), "1", "Zürich"), (OrderCancelled("o-2"), "2", "Zürich")]
        (letter,) = await world.letters()
        assert "no structured CloudEvent: it has no source, type" in letter.error
        await world.redrive_all()
        await world.until_handled(dead=1)
        await world.balanced(done=2, dead_lettered=1)


async def test_what_we_publish_is_read_by_the_sdk_whether_binary_or_structured(
    engine: KafkaEngine, kafka_one: Cluster
) -> None:
    async with World(engine, ORDERS, STRUCTURED) as world:
        await world.publish([OrderPlaced("o-1"), Announced("o-2")])
        for topic, kind, order in ((ORDERS, "shop.OrderPlaced", "o-1"), (STRUCTURED, "shop.Announced", "o-2")):
            (found,) = await asyncio.to_thread(read_by_sdk, kafka_one, topic.name, 1)
            assert (found.get_type(), found.get_source(), found.get_data()) == (kind, "shop", {"order": order})
        assert [each.message for each in await world.read(STRUCTURED)] == [Announced("o-2")]
