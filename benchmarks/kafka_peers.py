"""FastStream on Kafka, by both of its clients, as its own documentation has it: typed by msgspec, a no-op handler."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.kafka_running import Stopwatch, bootstrap, fresh
from benchmarks.orders import Order, order
from postline.contracts import Partitioner

__all__ = ["faststream_consume"]


def faststream_consume(client: str, number: int, *, acknowledge_first: bool) -> float | None:
    """Messages a second of a subscriber on "confluent" or "aiokafka"; None where FastStream isn't installed.

    It acknowledges each message before its handler runs (the default, which may lose it), or after (and not on an
    error), so that it is handled at least once.
    """
    try:
        import faststream.confluent
        import faststream.kafka  # noqa: F401
    except ImportError:
        return None
    topic = fresh("faststream")
    _fill(topic, number)
    return asyncio.run(_consume(client, topic, number, acknowledge_first))


def _fill(topic: str, number: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap()})
    admin.create_topics([NewTopic(topic, 8)])[topic].result()
    producer = Producer({"bootstrap.servers": bootstrap()})
    encode, partition_of = msgspec.json.Encoder().encode, Partitioner(8).partition_of
    for each in range(number):
        message = order(each)
        key = message.customer_id.encode()
        headers: Any = [("content-type", b"application/json")]
        producer.produce(topic, encode(message), key, partition=partition_of(key), headers=headers)
        producer.poll(0)
    producer.flush()


async def _consume(client: str, topic: str, number: int, acknowledge_first: bool) -> float:
    from fast_depends.msgspec import MsgSpecSerializer
    from faststream import AckPolicy
    from faststream.confluent import KafkaBroker as ConfluentBroker
    from faststream.kafka import KafkaBroker as AiokafkaBroker

    for name in ("faststream", "aiokafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    make: Any = {"confluent": ConfluentBroker, "aiokafka": AiokafkaBroker}[client]
    broker = make(bootstrap(), logger=None, serializer=MsgSpecSerializer())
    watch = Stopwatch(number)
    policy = AckPolicy.ACK_FIRST if acknowledge_first else AckPolicy.NACK_ON_ERROR

    @broker.subscriber(topic, group_id=fresh("billing"), auto_offset_reset="earliest", ack_policy=policy)
    async def handle(message: Order) -> None:
        watch.count()

    await broker.start()
    await watch.done.wait()
    rate = watch.rate()
    await broker.stop()
    return rate
