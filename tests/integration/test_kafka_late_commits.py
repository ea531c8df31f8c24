"""What is stored when somebody begins to listen, and shown only later: those who listen from then on hear it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from postline import App
from postline.contracts.cloudevents import REQUEST_ID
from postline.http.notifications import notifications
from tests.brokers.cluster import Cluster
from tests.brokers.ready import silent
from tests.conformance.apps import ORDERS, World, orders
from tests.conformance.engines import KafkaEngine
from tests.conformance.test_guarantees_request_ids import LEDGER, Ledger, Paid, Pay
from tests.integration.test_notifications import served

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def world(kafka_one: Cluster, tmp_path: Path) -> AsyncIterator[World]:
    engine = KafkaEngine(kafka_one, "consumer", tmp_path)
    async with World(engine) as made:
        yield made
    await engine.close()


def _last(cluster: Cluster, topic: str) -> Message:
    """The newest record of the topic's partitions, as other programs see it."""
    consumer = Consumer({**cluster.client, "group.id": "outside"}, logger=silent)
    try:
        found = list[Message]()
        for number in consumer.list_topics(topic).topics[topic].partitions:
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, number))
            if end:
                consumer.assign([TopicPartition(topic, number, 0)])
                while not found or found[-1].partition() != number:
                    found += consumer.consume(1_000, 0.1)
        return found[-1]
    finally:
        consumer.close()


@contextmanager
def _again_uncommitted(cluster: Cluster, message: Message, **headers: str) -> Iterator[Producer]:
    """The record once more, with some headers changed, in a transaction that is still open."""
    producer = Producer({**cluster.client, "transactional.id": f"late-{uuid4().hex}"}, logger=silent)
    stored: Any = message.headers()
    told: Any = [(name, headers.get(name, value)) for name, value in stored]
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(
        message.topic() or "", message.value(), message.key(), partition=message.partition() or 0, headers=told
    )
    producer.flush()
    yield producer


async def test_a_reply_that_is_committed_after_its_client_came_is_heard(kafka_one: Cluster, world: World) -> None:
    await world.start(Ledger([]).app)
    before, after = (App("asking", publishes_to=[LEDGER]) for _ in range(2))
    await world.start(before)
    assert await before.request(Pay("anna", 5), request_id="first") == Paid("anna", 1)
    await world.stop(before)
    reply = _last(kafka_one, LEDGER.replies.name)
    with _again_uncommitted(kafka_one, reply, **{REQUEST_ID: "second"}) as producer:
        await world.start(after)
        waiting = asyncio.ensure_future(after.ticket("second").outcome(60))
        while not after.requests(LEDGER)._inbox.listening or after.requests(LEDGER)._tickets._seen == {}:
            await asyncio.sleep(0.01)
        await after.ticket("second").status()  # its outcome was looked for, too
        assert not waiting.done()
        producer.commit_transaction()
    assert await waiting == Paid("anna", 1)


async def test_an_event_stream_tells_what_is_committed_after_it_was_opened(kafka_one: Cluster, world: World) -> None:
    web = notifications(world.publisher, streams=[ORDERS])
    await world.publish(orders(1))
    with _again_uncommitted(kafka_one, _last(kafka_one, ORDERS.name)) as producer:
        async with served(web) as port, httpx.AsyncClient(timeout=60) as client:
            url = f"http://127.0.0.1:{port}/topics/{ORDERS.name}/events"
            async with client.stream("GET", url) as response:
                lines = response.aiter_lines()
                assert (await anext(lines)).startswith("retry")
                assert (await anext(lines)).startswith("id: ")
                producer.commit_transaction()
                async for line in lines:
                    if line.startswith("data: "):
                        break
                else:
                    pytest.fail("the stream ended")
