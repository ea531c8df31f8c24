"""The limit on Kafka: the same records, read, decoded, encoded and written by confluent-kafka without Postline."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from confluent_kafka import Consumer, Message, Producer

from benchmarks.kafka_running import Stopwatch, bootstrap, fresh
from benchmarks.orders import Invoice, Order
from postline.contracts import Partitioner

__all__ = ["consume", "produce_and_flush", "produce_awaited", "produce_in_transactions"]

_BATCH = 1_000
_IN_FLIGHT = 100
_WAIT_SECONDS = 1.0
#: As a transaction after another one needs it, or each takes 100 ms.
_QUICK_RETRIES = {"retry.backoff.ms": 1, "retry.backoff.max.ms": 10}
_decode = msgspec.json.Decoder(Order).decode
_identities = itertools.count(1 << 120)


def _headers(type_name: str, time_text: str) -> list[tuple[str, str | bytes | None]]:
    """An envelope like Postline's, each with an id of its own."""
    return [
        ("ce_type", type_name),
        ("ce_specversion", "1.0"),
        ("ce_id", next(_identities).to_bytes(16, "big").hex()),
        ("ce_source", "shop"),
        ("ce_time", time_text),
    ]


class _Writer:
    """Produces messages with key, envelope and the partition that their key belongs to."""

    def __init__(self, settings: dict[str, Any], topic: str, type_name: str) -> None:
        self.producer = Producer({"bootstrap.servers": bootstrap(), **settings})
        self._topic, self._type_name = topic, type_name
        self._encode = msgspec.json.Encoder().encode
        self._partition_of = Partitioner(8).partition_of

    def write(self, message: Order | Invoice, delivered: Callable[..., None] | None = None) -> None:
        key = message.customer_id.encode()
        place = (self._topic, self._encode(message), key, self._partition_of(key))
        headers = _headers(self._type_name, "2026-11-26T00:00:00.000Z")
        if delivered is None:
            self.producer.produce(*place, headers=headers)
        else:
            self.producer.produce(*place, on_delivery=delivered, headers=headers)


def consume(topic: str, number: int, *, publish_to: str = "", whole: bool = False) -> float:
    """Records a second of a loop that consumes 1,000, decodes them, and commits their positions in a transaction.

    With `publish_to` it also encodes an invoice for each order and produces it there in the same transaction; with
    `whole` it takes type, key and time off each record too, as a program does that has more than one type.
    """
    settings: dict[str, Any] = {"bootstrap.servers": bootstrap(), "group.id": fresh("raw")}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    writer = _Writer({"transactional.id": fresh("raw"), **_QUICK_RETRIES}, publish_to, "billing.InvoiceIssued")
    producer = writer.producer
    producer.init_transactions()
    taken = _whole if whole else _value
    watch = Stopwatch(number)
    while watch.seen < number:
        messages = [each for each in consumer.consume(_BATCH, _WAIT_SECONDS) if each.error() is None]
        if not messages:
            continue
        values = [taken(each) for each in messages]
        producer.begin_transaction()
        if publish_to:
            for value in values:
                writer.write(Invoice(value.order_id, value.customer_id, value.total_cents))
        positions = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
        producer.commit_transaction()
        watch.count(len(messages))
    rate = watch.rate()
    consumer.close()
    return rate


def _value(message: Message) -> Order:
    return _decode(message.value() or b"")


def _whole(message: Message) -> Order:
    headers: Any = message.headers()
    _ = (headers[0][1].decode(), message.key(), message.timestamp(), message.offset())
    return _decode(message.value() or b"")


def produce_awaited(topic: str, messages: Sequence[Order]) -> float:
    """Messages a second with 100 in flight, each answered by a callback."""
    writer = _Writer({"linger.ms": 0, "enable.idempotence": True}, topic, "shop.OrderPlaced")
    waiting = 0

    def delivered(error: object, _: Message) -> None:
        nonlocal waiting
        assert error is None
        waiting -= 1

    began = time.perf_counter()
    for message in messages:
        while waiting >= _IN_FLIGHT:
            writer.producer.poll(_WAIT_SECONDS)
        waiting += 1
        writer.write(message, delivered)
    writer.producer.flush()
    return len(messages) / (time.perf_counter() - began)


def produce_and_flush(topic: str, messages: Sequence[Order]) -> float:
    """Messages a second of an idempotent producer that is flushed after every 1,000."""
    writer = _Writer({"enable.idempotence": True}, topic, "shop.OrderPlaced")
    began = time.perf_counter()
    for start in range(0, len(messages), _BATCH):
        for message in messages[start : start + _BATCH]:
            writer.write(message)
        writer.producer.flush()
    return len(messages) / (time.perf_counter() - began)


def produce_in_transactions(topic: str, messages: Sequence[Order]) -> float:
    """Messages a second in transactions of 1,000, each of them stored wholly or not at all."""
    writer = _Writer({"transactional.id": fresh("raw"), **_QUICK_RETRIES}, topic, "shop.OrderPlaced")
    producer = writer.producer
    producer.init_transactions()
    began = time.perf_counter()
    for start in range(0, len(messages), _BATCH):
        producer.begin_transaction()
        for message in messages[start : start + _BATCH]:
            writer.write(message)
        producer.commit_transaction()
    return len(messages) / (time.perf_counter() - began)
