"""The registry as other programs use it: confluent-kafka's serializers against it, and apps that use it over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from msgspec import Struct

from postline import App, Schemas, Topic
from postline.contracts.frame import unframe
from postline.contracts.protobuf import messages
from postline.registry import IncompatibleSchema, LogRegistry

pytestmark = pytest.mark.timeout(120)

CONTEXT = SerializationContext("shop.orders", MessageField.VALUE)
AVRO = json.dumps(
    {
        "type": "record",
        "name": "Order",
        "namespace": "shop",
        "fields": [{"name": "id", "type": "string"}, {"name": "total", "type": "int", "default": 0}],
    }
)
JSON_SCHEMA = json.dumps(
    {"title": "Order", "type": "object", "properties": {"id": {"type": "string"}, "total": {"type": "integer"}}}
)


class Order(Struct, frozen=True):
    id: str
    total: int = 0


def shop(url: str, format_name: Any = "avro", kind: type = Order) -> tuple[App, Topic]:
    orders = Topic("shop.orders", owner="shop", key="id", schemas=Schemas(format=format_name, framed=True))
    orders.event("shop.Order")(kind)
    return App("shop", owns=[orders], url=url), orders


@pytest.fixture
def log_url(tmp_path: Path) -> str:
    """A log that an app has made."""

    async def make() -> None:
        app, _ = shop(url)
        async with app:
            await app.publish(Order("o-1", 7))

    url = f"sqlite:///{tmp_path / 'shop.db'}"
    asyncio.run(make())
    return url


@pytest.fixture
def registry_url(log_url: str) -> Iterator[str]:
    """`postline registry serve` on a free port."""
    program = "import sys; from postline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "registry", "serve", "--port", "0", "--url", log_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture
def client(registry_url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry_url}) as made:
        yield made


def test_avro_goes_there_and_back(client: SchemaRegistryClient) -> None:
    data = AvroSerializer(client, AVRO)({"id": "o-1", "total": 7}, CONTEXT)
    assert AvroDeserializer(client)(data, CONTEXT) == {"id": "o-1", "total": 7}


def test_json_goes_there_and_back(client: SchemaRegistryClient) -> None:
    data = JSONSerializer(JSON_SCHEMA, client)({"id": "o-1", "total": 7}, CONTEXT)
    assert JSONDeserializer(None, schema_registry_client=client)(data, CONTEXT) == {"id": "o-1", "total": 7}


def test_protobuf_goes_there_and_back(client: SchemaRegistryClient) -> None:
    file = descriptor_pb2.FileDescriptorProto(name="shop/order.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name="Order")
    message.field.add(name="id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    kind: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))
    settings = {"use.deprecated.format": False}
    data = ProtobufSerializer(kind, client, settings)(kind(id="o-1"), CONTEXT)
    assert ProtobufDeserializer(kind, settings, client)(data, CONTEXT) == kind(id="o-1")
    number = unframe(data or b"", protobuf=True).schema_id
    assert messages(client.get_schema(number).schema_str or "").keys() == {"shop.Order"}


def test_a_breaking_schema_is_refused_to_a_client(client: SchemaRegistryClient) -> None:
    client.register_schema("orders-value", Schema(AVRO, "AVRO"))
    breaking = AVRO.replace('"int", "default": 0', '"string"')
    assert not client.test_compatibility("orders-value", Schema(breaking, "AVRO"))
    with pytest.raises(SchemaRegistryError) as told:
        client.register_schema("orders-value", Schema(breaking, "AVRO"))
    assert told.value.http_status_code == 409


def test_what_an_app_wrote_in_the_frame_is_read_by_a_client(log_url: str, client: SchemaRegistryClient) -> None:
    async def value() -> bytes:
        app, _ = shop(log_url)
        async with app:
            for partition, bounds in enumerate(await app.log.bounds("shop.orders")):
                for record in await app.log.read("shop.orders", partition, bounds.start):
                    return record[4] or b""
        raise AssertionError("there is no record")

    data = asyncio.run(value())
    assert AvroDeserializer(client)(data, CONTEXT) == {"id": "o-1", "total": 7}


def test_an_app_uses_another_registry_over_http(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(Struct, frozen=True):
        id: str
        total: str

    async def publish(kind: type, value: Any) -> bytes:
        app, _ = shop(f"sqlite:///{tmp_path / 'other.db'}", kind=kind)
        async with app:
            assert not isinstance(app._require_running().registry, LogRegistry)
            placed = await app.publish(value)
            records = await app.log.read("shop.orders", placed.partition, placed.offset)
            return records[0][4] or b""

    monkeypatch.setenv("POSTLINE_REGISTRY", registry_url)
    data = asyncio.run(publish(Order, Order("o-2", 8)))
    with SchemaRegistryClient({"url": registry_url}) as client:
        found = client.get_schema(unframe(data).schema_id)
    assert json.loads(found.schema_str or "")["namespace"] == "shop"
    with pytest.raises(IncompatibleSchema):
        asyncio.run(publish(Breaking, Breaking("o-3", "x")))
