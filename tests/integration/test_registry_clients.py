"""The registry as other programs use it: confluent-kafka's serializers against it, and apps that use it over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    dual_schema_id_deserializer,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from msgspec import Struct

from postline import App, Schemas, Topic
from postline.cli import main
from postline.clock import SystemClock
from postline.contracts import Reading
from postline.contracts.formats import format_named
from postline.contracts.frame import VALUE_HEADER, schema_header, unframe
from postline.contracts.protobuf import messages
from postline.log.kafka.wire import record_of
from postline.log.port import SCHEMA_ID_SHIFT
from postline.registry import IncompatibleSchema, LogRegistry
from postline.registry.remote import RemoteRegistry
from postline.runtime.handlers import Handler
from postline.runtime.versions import Versions

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

#: As a file, for the command line.
SHOP = """
from msgspec import Struct
from postline import App, Topic

bills = Topic("shop.bills", owner="shop", key="id")

@bills.event("shop.Bill")
class Bill(Struct):
    id: str
    total: int

app = App("shop", owns=[bills])
"""

MONEY_TEXT = """
syntax = "proto3";
package shop;
// What is paid.
message Money { int64 cents = 1; }
"""
BILL_TEXT = """
syntax = "proto3";
package shop;
import "shop/money.proto";
message Bill { Money due = 1; }
"""


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


def serving(log_url: str, port: str = "0") -> subprocess.Popen[str]:
    """The command that serves."""
    program = "import sys; from postline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "registry", "serve", "--port", port, "--url", log_url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


@pytest.fixture
def registry_url(log_url: str) -> Iterator[str]:
    """`postline registry serve` on a free port."""
    with serving(log_url) as server:
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


def message_of(*files: Any) -> Any:
    """The class of the last file's message."""
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop.{files[-1].message_type[0].name}"))


def proto_file(name: str, *fields: tuple[str, str], imports: tuple[str, ...] = ()) -> Any:
    """A file with one message, whose fields have these types of Protobuf, or those messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"shop/{name.lower()}.proto", package="shop", syntax="proto3", dependency=imports
    )
    message = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields, 1):
        named = {"type_name": kind, "type": "TYPE_MESSAGE"} if kind[0] == "." else {"type": f"TYPE_{kind}"}
        message.field.add(name=field, number=number, label="LABEL_OPTIONAL", **named)
    return file


SETTINGS = {"use.deprecated.format": False}
MONEY = proto_file("Money", ("cents", "INT64"))
BILL = proto_file("Bill", ("due", ".shop.Money"), imports=("shop/money.proto",))


def test_protobuf_goes_there_and_back(client: SchemaRegistryClient) -> None:
    kind = message_of(proto_file("Order", ("id", "STRING")))
    settings = SETTINGS
    data = ProtobufSerializer(kind, client, settings)(kind(id="o-1"), CONTEXT)
    assert ProtobufDeserializer(kind, settings, client)(data, CONTEXT) == kind(id="o-1")
    number = unframe(data or b"", protobuf=True).schema_id
    assert messages(client.get_schema(number).schema_str or "").keys() == {"shop.Order"}


def test_protobuf_with_imports_goes_there_and_back(client: SchemaRegistryClient, registry_url: str) -> None:
    kind = message_of(MONEY, BILL)
    bill = kind()
    bill.due.cents = 700
    data = ProtobufSerializer(kind, client, SETTINGS)(bill, CONTEXT)
    with SchemaRegistryClient({"url": registry_url}) as other:
        assert ProtobufDeserializer(kind, SETTINGS, other)(data, CONTEXT) == bill
        assert other.get_referenced_by("shop/money.proto", 1) == [unframe(data or b"", protobuf=True).schema_id]
    again = ProtobufSerializer(kind, client, {**SETTINGS, "auto.register.schemas": False})
    assert again(bill, CONTEXT) == data


def test_what_was_registered_as_text_is_found_by_a_client_that_registers_nothing(client: SchemaRegistryClient) -> None:
    client.register_schema("shop/money.proto", Schema(MONEY_TEXT, "PROTOBUF"))
    reference = SchemaReference("shop/money.proto", "shop/money.proto", 1)
    number = client.register_schema("shop.orders-value", Schema(BILL_TEXT, "PROTOBUF", [reference]))
    kind = message_of(MONEY, BILL)
    data = ProtobufSerializer(kind, client, {**SETTINGS, "auto.register.schemas": False})(kind(), CONTEXT)
    assert unframe(data or b"", protobuf=True).schema_id == number


def test_a_schema_id_in_the_headers_is_a_guid_that_is_found(client: SchemaRegistryClient, registry_url: str) -> None:
    context = SerializationContext("shop.orders", MessageField.VALUE, [])
    order = {"id": "order-1", "total": 7}
    data = AvroSerializer(client, AVRO, conf={"schema.id.serializer": header_schema_id_serializer})(order, context)
    headers: Any = context.headers
    ((name, header),) = headers
    assert isinstance(data, bytes)
    assert (name, schema_header(header).schema_id, data[0] != 0) == (VALUE_HEADER, None, True)
    with SchemaRegistryClient({"url": registry_url}) as other:
        read = AvroDeserializer(other, conf={"schema.id.deserializer": dual_schema_id_deserializer})
        assert read(data, context) == order


class Consumed:
    """A message as the client library hands it out: what a serializer made, with its headers."""

    def __init__(self, context: SerializationContext, value: bytes | None) -> None:
        self._headers, self._value = context.headers, value

    def headers(self) -> Any:
        return self._headers

    def offset(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> None:
        return None

    def value(self) -> bytes | None:
        return self._value


def in_headers(format_name: str, client: SchemaRegistryClient) -> Consumed:
    """An order as Confluent's serializer of the format writes it, with the schema's GUID in a header."""
    context = SerializationContext("shop.foreign", MessageField.VALUE, [("ce_type", b"shop.Order")])
    settings, order = {"schema.id.serializer": header_schema_id_serializer}, {"id": "o-1", "total": 7}
    if format_name == "avro":
        return Consumed(context, AvroSerializer(client, AVRO, conf=settings)(order, context))
    if format_name == "json":
        # Ours has no default for the id, so that it can't be read from a writer that may leave it out.
        schema = json.dumps({**json.loads(JSON_SCHEMA), "required": ["id"]})
        return Consumed(context, JSONSerializer(schema, client, conf=settings)(order, context))
    # The first field is another than ours, so that only who knows the writer's schema reads it rightly.
    kind = message_of(proto_file("Order", ("total", "INT64"), ("id", "STRING")))
    return Consumed(context, ProtobufSerializer(kind, client, {**SETTINGS, **settings})(kind(**order), context))


@pytest.mark.parametrize("format_name", ["avro", "json", "protobuf"])
@pytest.mark.parametrize("built_in", [True, False])
def test_what_names_its_schema_by_a_guid_in_the_headers_is_read_by_a_handler(
    client: SchemaRegistryClient, registry_url: str, log_url: str, format_name: str, built_in: bool
) -> None:
    record = record_of(in_headers(format_name, client))  # type: ignore[arg-type]
    reading = Reading(Order, "shop.Order", format_named(format_name))
    handler = Handler(reading.name, print, reading, is_async=False, wants_context=False)

    async def read() -> Any:
        app, _ = shop(log_url)
        async with app:
            source = app._require_running().registry if built_in else RemoteRegistry(registry_url, SystemClock())
            await Versions({handler.type_name: handler}, source).learn([record])
            await source.close()
            return handler.decoders[record[5] >> SCHEMA_ID_SHIFT](record[4] or b"")

    assert record[5] >> SCHEMA_ID_SHIFT > 2**64
    assert asyncio.run(read()) == Order("o-1", 7)


def test_avro_and_json_that_refer_to_others_go_there_and_back(client: SchemaRegistryClient, registry_url: str) -> None:
    line = {"type": "record", "name": "Line", "namespace": "shop", "fields": [{"name": "sku", "type": "string"}]}
    client.register_schema("lines", Schema(json.dumps(line), "AVRO"))
    order = {"type": "record", "name": "Order", "namespace": "shop", "fields": [{"name": "line", "type": "Line"}]}
    avro = Schema(json.dumps(order), "AVRO", [SchemaReference("shop.Line", "lines", 1)])
    client.register_schema("line.json", Schema('{"type":"object","properties":{"sku":{"type":"string"}}}', "JSON"))
    refers = {"title": "Order", "type": "object", "properties": {"line": {"$ref": "line.json"}}}
    made = Schema(json.dumps(refers), "JSON", [SchemaReference("line.json", "line.json", 1)])
    value = {"line": {"sku": "s-1"}}
    with SchemaRegistryClient({"url": registry_url}) as other:
        assert AvroDeserializer(other)(AvroSerializer(client, avro)(value, CONTEXT), CONTEXT) == value
        context = SerializationContext("shop.json", MessageField.VALUE)
        data = JSONSerializer(made, client)(value, context)
        assert JSONDeserializer(None, schema_registry_client=other)(data, context) == value


def test_a_subject_without_an_association_has_its_topics_name(client: SchemaRegistryClient) -> None:
    with pytest.raises(SchemaRegistryError) as told:
        client.get_associations_by_resource_name("shop.orders", "-")
    assert (told.value.http_status_code, told.value.error_code) == (404, 404)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_serving_ends_in_order_when_it_is_told_to(log_url: str, number: str) -> None:
    with serving(log_url) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("http://127.0.0.1:")
        server.send_signal(getattr(signal, number))
        assert server.wait(30) == 0


def test_an_address_that_is_taken_is_told_with_a_remedy(log_url: str, registry_url: str) -> None:
    port = registry_url.rpartition(":")[2]
    with serving(log_url, port) as server:
        _, said = server.communicate(timeout=30)
    assert (server.returncode, "--port" in said, "Traceback" in said) == (2, True, False)


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


def test_contracts_are_compared_with_another_registry_which_is_left_as_it_is(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "app.py").write_text(SHOP)
    (tmp_path / "next.py").write_text(SHOP.replace("total: int", "total: str"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("POSTLINE_REGISTRY", registry_url)
    log = f"sqlite:///{tmp_path / 'other.db'}"
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert main(["publish", "shop.bills", "shop.Bill", "--app", "app.py", "--url", log]) == 0
    capfd.readouterr()
    assert main(["contracts", "check", "app.py", "--registry", "--url", log]) == 0
    assert main(["contracts", "check", "next.py", "--registry", "--url", log]) == 1
    unbroken, broken = capfd.readouterr().out.splitlines()
    assert unbroken == "[]"
    assert {each["direction"] for each in json.loads(broken)[0]["findings"]} == {"backward", "forward"}
    with SchemaRegistryClient({"url": registry_url}) as client:
        assert client.get_versions("shop.bills-shop.Bill") == [1]
