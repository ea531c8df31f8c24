"""The REST interface: what clients of a schema registry ask for, and its own codes for what is wrong."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]

from postline.clock import SystemClock
from postline.log.sqlite import SqliteLog
from postline.registry import LogRegistry, schemas_topic
from postline.registry.rest import asgi

_ids = itertools.count()


def avro(*fields: tuple[str, Any], **more: Any) -> str:
    made = [{"name": name, "type": kind, **more} for name, kind in fields]
    return json.dumps({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}, *made]})


V1, V2, BREAKING = avro(), avro(("n", "int"), default=0), avro(("currency", "string"))
PROTO = 'syntax = "proto3";\nmessage Order {\n  string id = 1;\n}\n'


class Registry:
    """A registry in memory, asked over HTTP without a network."""

    def __init__(self, log: SqliteLog) -> None:
        registry = LogRegistry(log, "postline.schemas", lambda: f"id-{next(_ids)}")
        self.transport = httpx.ASGITransport(asgi(registry))
        self._client = httpx.AsyncClient(transport=self.transport, base_url="http://registry")

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and content."""
        response = await self._client.request(method, path, json=body)
        return response.status_code, response.json()

    async def register(self, schema: str, subject: str = "orders", **more: Any) -> int:
        """The id that it gets."""
        status, content = await self.ask("POST", f"/subjects/{subject}/versions", {"schema": schema, **more})
        assert status == 200, content
        return int(content["id"])


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    log = SqliteLog(None, clock=SystemClock())
    await log.start()
    await log.create_topic(schemas_topic("postline.schemas"))
    yield Registry(log)
    await log.close()


async def test_versions_are_registered_listed_and_shown(registry: Registry) -> None:
    first = await registry.register(V1)
    second = await registry.register(V2)
    assert await registry.register(json.dumps(json.loads(V1), indent=4)) == first
    assert await registry.ask("GET", "/subjects") == (200, ["orders"])
    assert await registry.ask("GET", "/subjects/orders/versions") == (200, [1, 2])
    status, shown = await registry.ask("GET", "/subjects/orders/versions/latest")
    assert (status, shown["id"], shown["version"], shown["subject"]) == (200, second, 2, "orders")
    assert json.loads(shown["schema"]) == json.loads(V2)
    assert await registry.ask("GET", "/subjects/orders/versions/1/schema") == (200, json.loads(V1))
    status, found = await registry.ask("POST", "/subjects/orders", {"schema": V1})
    assert (status, found["version"], found["id"]) == (200, 1, first)
    status, shown = await registry.ask("GET", f"/schemas/ids/{first}")
    assert (status, json.loads(shown["schema"]), shown.get("schemaType")) == (200, json.loads(V1), None)
    assert await registry.ask("GET", f"/schemas/ids/{first}/versions") == (200, [{"subject": "orders", "version": 1}])
    assert await registry.ask("GET", f"/schemas/ids/{first}/subjects") == (200, ["orders"])
    assert await registry.ask("GET", "/schemas/types") == (200, ["JSON", "AVRO", "PROTOBUF"])


async def test_protobuf_and_json_are_named_by_their_type(registry: Registry) -> None:
    number = await registry.register(PROTO, "proto", schemaType="PROTOBUF")
    status, shown = await registry.ask("GET", f"/schemas/ids/{number}")
    assert (status, shown["schema"], shown["schemaType"]) == (200, PROTO, "PROTOBUF")
    status, serialized = await registry.ask("GET", f"/schemas/ids/{number}?format=serialized")
    assert (status, serialized["schema"] != PROTO) == (200, True)
    exotic = json.dumps({"type": "object", "properties": {"x": {"$ref": "https://elsewhere/x.json"}}})
    assert await registry.register(exotic, "json", schemaType="JSON")


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/subjects/nothing/versions", None, 40401),
        ("GET", "/subjects/nothing/versions/1", None, 40401),
        ("GET", "/subjects/orders/versions/9", None, 40402),
        ("GET", "/subjects/orders/versions/x", None, 42202),
        ("GET", "/schemas/ids/999", None, 40403),
        ("POST", "/subjects/orders", {"schema": V2}, 40403),
        ("POST", "/subjects/nothing", {"schema": V2}, 40401),
        ("GET", "/config/orders", None, 40408),
        ("DELETE", "/config/orders", None, 40408),
        ("PUT", "/config", {"compatibility": "WRONG"}, 42203),
        ("PUT", "/config", [], 42203),
        ("POST", "/subjects/orders/versions", {"schema": "{"}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": '{"type":"record"}'}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": "{}", "schemaType": "XML"}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": "message {", "schemaType": "PROTOBUF"}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": V1, "ruleSet": {"domainRules": [1]}}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": V1, "metadata": {"properties": {"a": "b"}}}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": "[" * 5_000}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": "[" * 5_000, "schemaType": "JSON"}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": "", "schemaType": "PROTOBUF"}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": "AAAA", "schemaType": "PROTOBUF"}, 42201),
        ("POST", "/subjects/orders/versions", {"schema": "[]", "schemaType": "JSON"}, 42201),
        (
            "POST",
            "/subjects/orders/versions",
            {"schema": '{"type":"null","type":"string"}', "schemaType": "JSON"},
            42201,
        ),
        ("POST", "/subjects/orders/versions", {}, 42201),
        ("POST", "/subjects/orders/versions", [], 42201),
        ("GET", "/subjects/orders/versions/%C2%B2", None, 42202),
        ("GET", "/subjects/orders/versions/99999999999", None, 42202),
        ("POST", "/compatibility/subjects/nothing/versions/latest", {"schema": V1}, 40401),
        ("DELETE", "/subjects/orders/versions/7", None, 40402),
        ("DELETE", "/subjects/nothing", None, 40401),
        ("DELETE", "/subjects/orders?permanent=true", None, 40407),
    ],
)
async def test_what_is_wrong_has_its_code(registry: Registry, method: str, path: str, body: Any, code: int) -> None:
    await registry.register(V1)
    status, content = await registry.ask(method, path, body)
    assert (status, content["error_code"]) == (code // 100, code)
    assert content["message"]


async def test_a_breaking_version_is_a_conflict_and_can_be_asked_about_before(registry: Registry) -> None:
    await registry.register(V1)
    status, content = await registry.ask("POST", "/subjects/orders/versions", {"schema": BREAKING})
    assert (status, "currency" in content["message"]) == (409, True)
    path = "/compatibility/subjects/orders/versions"
    assert await registry.ask("POST", path, {"schema": V2}) == (200, {"is_compatible": True})
    status, content = await registry.ask("POST", f"{path}/latest?verbose=true", {"schema": BREAKING})
    assert (content["is_compatible"], "currency" in content["messages"][0]) == (False, True)


async def test_rules_are_set_shown_and_taken_away(registry: Registry) -> None:
    assert await registry.ask("GET", "/config") == (200, {"compatibilityLevel": "FULL_TRANSITIVE"})
    assert await registry.ask("PUT", "/config", {"compatibility": "BACKWARD"}) == (200, {"compatibility": "BACKWARD"})
    assert await registry.ask("PUT", "/config/orders", {"compatibility": "NONE"}) == (200, {"compatibility": "NONE"})
    assert await registry.ask("GET", "/config/orders") == (200, {"compatibilityLevel": "NONE"})
    await registry.register(V1)
    await registry.register(BREAKING)
    assert await registry.ask("DELETE", "/config/orders") == (200, {"compatibilityLevel": "NONE"})
    found = await registry.ask("GET", "/config/orders?defaultToGlobal=true")
    assert found == (200, {"compatibilityLevel": "BACKWARD"})
    assert await registry.ask("GET", "/mode") == (200, {"mode": "READWRITE"})


async def test_deleted_versions_are_hidden_then_gone_and_their_ids_stay(registry: Registry) -> None:
    first = await registry.register(V1)
    await registry.register(V2)
    assert await registry.ask("DELETE", "/subjects/orders/versions/1") == (200, 1)
    assert await registry.ask("GET", "/subjects/orders/versions") == (200, [2])
    assert await registry.ask("GET", "/subjects/orders/versions?deleted=true") == (200, [1, 2])
    assert await registry.ask("DELETE", "/subjects/orders/versions/1?permanent=true") == (200, 1)
    assert await registry.ask("GET", "/subjects/orders/versions?deleted=true") == (200, [2])
    assert (await registry.ask("GET", f"/schemas/ids/{first}"))[0] == 200
    assert await registry.ask("DELETE", "/subjects/orders") == (200, [2])
    assert await registry.ask("GET", "/subjects") == (200, [])
    assert await registry.register(V1) == first
    assert await registry.ask("GET", "/subjects/orders/versions") == (200, [3])


def reference(name: str, subject: str, version: int = 1) -> dict[str, Any]:
    return {"name": name, "subject": subject, "version": version}


def exotic(*required: str) -> str:
    """A JSON Schema that the type model can't say."""
    return json.dumps({"type": "object", "required": required, "properties": {"x": {"$ref": "https://elsewhere/x"}}})


async def test_schemas_that_cannot_be_judged_are_kept_in_versions(registry: Registry) -> None:
    first = await registry.register(exotic(), "json", schemaType="JSON")
    second = await registry.register(exotic("id"), "json", schemaType="JSON")
    assert await registry.ask("GET", "/subjects/json/versions") == (200, [1, 2])
    assert json.loads((await registry.ask("GET", f"/schemas/ids/{second}"))[1]["schema"]) == json.loads(exotic("id"))
    assert first != second


async def test_that_a_schema_was_not_judged_is_said(registry: Registry) -> None:
    await registry.register(exotic(), "json", schemaType="JSON")
    body = {"schema": exotic("id"), "schemaType": "JSON"}
    status, answer = await registry.ask("POST", "/compatibility/subjects/json/versions?verbose=true", body)
    (said,) = answer["messages"]
    assert (status, answer["is_compatible"], "was not judged" in said) == (200, True, True)
    assert "it refers to another document, 'https://elsewhere/x'" in said


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        made = {"type": "array", "items": made}
    return made


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "refers to itself"),
        ({"type": "object", "properties": {"x": {"$ref": "#/$defs/none"}}}, "#/$defs/none is not there"),
        (nested(900), "it nests types deeper"),
        ({"type": "record"}, "there is no type 'record'"),
    ],
)
async def test_json_schemas_that_nobody_can_read_are_refused(registry: Registry, wrong: Any, said: str) -> None:
    body = {"schema": json.dumps(wrong), "schemaType": "JSON"}
    for path in ("/subjects/json/versions", "/compatibility/subjects/json/versions"):
        status, answer = await registry.ask("POST", path, body)
        assert (status, answer["error_code"], said in answer["message"]) == (422, 42201, True)


async def test_a_version_that_cannot_be_judged_does_not_hide_a_break_with_another(registry: Registry) -> None:
    plain = {"title": "T", "type": "object", "properties": {"id": {"type": "string"}}}
    await registry.register(json.dumps(plain), "json", schemaType="JSON")
    await registry.register(exotic(), "json", schemaType="JSON")
    breaking = {**plain, "properties": {"id": {"type": "integer"}}}
    body = {"schema": json.dumps(breaking), "schemaType": "JSON"}
    assert (await registry.ask("POST", "/subjects/json/versions", body))[0] == 409
    path = "/compatibility/subjects/json/versions"
    assert await registry.ask("POST", path, body) == (200, {"is_compatible": False})


async def test_the_order_of_keys_does_not_make_another_schema(registry: Registry) -> None:
    first = await registry.register(V1)
    turned = json.dumps(dict(reversed(json.loads(V1).items())))
    assert await registry.register(turned) == first
    assert (await registry.ask("POST", "/subjects/orders", {"schema": turned}))[1]["id"] == first


def descriptor(name: str, *imports: str, **options: Any) -> str:
    """A file of one message of its own name, whose fields are messages of the files that it imports."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", syntax="proto3", dependency=imports)
    message = file.message_type.add(name=name)
    message.field.add(name="order_id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL", json_name="orderId")
    for number, path in enumerate(imports, 2):
        kind = path.removesuffix(".proto")
        message.field.add(name=f"f{number}", number=number, type_name=f".{kind}", type="TYPE_MESSAGE", label=1)
    if options:
        file.options.MergeFrom(descriptor_pb2.FileOptions(**options))
    return base64.b64encode(file.SerializeToString()).decode()


async def test_text_and_descriptor_of_one_protobuf_file_are_one_schema(registry: Registry) -> None:
    text = 'syntax = "proto3"; message A { string order_id = 1; }'
    first = await registry.register(descriptor("A"), "a", schemaType="PROTOBUF")
    assert await registry.register(text, "a", schemaType="PROTOBUF") == first
    shown = (await registry.ask("GET", "/subjects/a/versions/1"))[1]["schema"]
    assert "string order_id = 1;" in shown
    assert (await registry.ask("GET", f"/schemas/ids/{first}?format=serialized"))[1]["schema"] == descriptor("A")
    other = {"schema": text.replace("order_id", "id"), "schemaType": "PROTOBUF"}
    assert (await registry.ask("POST", "/subjects/a", other))[1]["error_code"] == 40403


async def test_a_descriptor_that_text_would_not_say_all_of_is_shown_as_it_is(registry: Registry) -> None:
    said = descriptor("A", java_package="org.example")
    number = await registry.register(said, "a", schemaType="PROTOBUF")
    assert (await registry.ask("GET", f"/schemas/ids/{number}"))[1]["schema"] == said


@pytest.mark.parametrize(
    "text",
    [
        'edition = "2023"; message A { string id = 1; }',
        '// of others\nsyntax = "proto3"; import "confluent/meta.proto"; message A { string id = 1; }',
        'syntax = "proto3"; enum Kind { NONE = 0; }',
    ],
)
async def test_protobuf_that_says_more_than_is_read_here_is_kept(registry: Registry, text: str) -> None:
    number = await registry.register(text, "a", schemaType="PROTOBUF")
    assert (await registry.ask("GET", f"/schemas/ids/{number}"))[1]["schema"] == text


async def test_imported_protobuf_is_found_under_subjects_with_a_slash(registry: Registry) -> None:
    money = 'syntax = "proto3"; message Money { int64 cents = 1; }'
    await registry.register(money, "shop%2FMoney.proto", schemaType="PROTOBUF")
    assert await registry.ask("GET", "/subjects") == (200, ["shop/Money.proto"])
    assert (await registry.ask("GET", "/subjects/shop%2FMoney.proto/versions/latest"))[1]["schema"] == money
    more: dict[str, Any] = {"schemaType": "PROTOBUF", "references": [reference("shop/Money.proto", "shop/Money.proto")]}
    text = 'syntax = "proto3"; import "shop/Money.proto"; message Bill { Money due = 1; }'
    number = await registry.register(text, "bill", **more)
    status, shown = await registry.ask("GET", f"/schemas/ids/{number}?format=serialized")
    file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(shown["schema"]))
    assert (status, file.message_type[0].field[0].type_name) == (200, ".Money")
    assert shown["references"] == more["references"]
    breaking = {"schema": text.replace("Money due", "string due"), **more}
    status, content = await registry.ask("POST", "/compatibility/subjects/bill/versions/latest", breaking)
    assert (status, content) == (200, {"is_compatible": False})


async def test_what_is_referred_to_is_there_and_stays_there(registry: Registry) -> None:
    line = json.dumps({"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]})
    body = {"schema": avro(("line", "Line")), "references": [reference("Line", "lines")]}
    assert (await registry.ask("POST", "/subjects/orders/versions", body))[1]["error_code"] == 42201
    await registry.register(line, "lines")
    number = await registry.register(avro(("line", "Line")), "orders", references=[reference("Line", "lines")])
    assert await registry.ask("GET", "/subjects/lines/versions/1/referencedby") == (200, [number])
    for path in ("/subjects/lines", "/subjects/lines/versions/latest"):
        assert (await registry.ask("DELETE", path))[1]["error_code"] == 42206
    assert (await registry.ask("DELETE", "/subjects/orders"))[0] == 200
    assert (await registry.ask("DELETE", "/subjects/lines"))[0] == 200


async def test_a_schema_has_one_guid_by_which_it_is_found(registry: Registry) -> None:
    number = await registry.register(V1)
    guid = (await registry.ask("GET", f"/schemas/ids/{number}"))[1]["guid"]
    assert guid == (await registry.ask("GET", "/subjects/orders/versions/1"))[1]["guid"]
    status, found = await registry.ask("GET", f"/schemas/guids/{guid}")
    assert (status, found["id"], json.loads(found["schema"])) == (200, number, json.loads(V1))
    for unknown in ("x", "6f1e5a1e-54f2-4c8b-9d1a-0a5a7f0c9b11"):
        assert (await registry.ask("GET", f"/schemas/guids/{unknown}"))[1]["error_code"] == 40403


async def test_all_schemas_are_listed_and_paged(registry: Registry) -> None:
    await registry.register(V1)
    await registry.register(V2)
    await registry.register(V1, "returns")
    found = (await registry.ask("GET", "/schemas"))[1]
    assert [(each["subject"], each["version"]) for each in found] == [("orders", 1), ("orders", 2), ("returns", 1)]
    found = (await registry.ask("GET", "/schemas?latestOnly=true&subjectPrefix=ord"))[1]
    assert [(each["subject"], each["version"]) for each in found] == [("orders", 2)]
    assert await registry.ask("GET", "/subjects?offset=1&limit=1") == (200, ["returns"])
    assert await registry.ask("GET", "/subjects?subjectPrefix=o&limit=-1") == (200, ["orders"])


async def test_paths_that_there_are_not_are_told_as_clients_read_it(registry: Registry) -> None:
    assert (await registry.ask("GET", "/associations/resources/-/x"))[1]["error_code"] == 404
    assert (await registry.ask("GET", "/schemas/ids/x"))[1]["error_code"] == 404
    assert (await registry.ask("PUT", "/mode", {"mode": "READONLY"}))[1]["error_code"] == 405
    assert await registry.ask("GET", "/") == (200, {})


async def test_a_body_that_a_web_page_may_have_a_browser_send_is_refused(registry: Registry) -> None:
    async with httpx.AsyncClient(transport=registry.transport, base_url="http://registry") as client:
        body = json.dumps({"schema": V1})
        response = await client.post("/subjects/o/versions", content=body, headers={"content-type": "text/plain"})
    assert (response.status_code, await registry.ask("GET", "/subjects")) == (415, (200, []))


def doubling(levels: int) -> str:
    """A record whose default makes two of the level below, and so on."""
    made: Any = {"type": "record", "name": "R0", "fields": [{"name": "x", "type": "int", "default": 0}]}
    for level in range(1, levels):
        right = {"name": "r", "type": f"R{level - 1}", "default": {}}
        made = {"type": "record", "name": f"R{level}", "fields": [{"name": "l", "type": made, "default": {}}, right]}
    return avro(("r", made), default={})


async def test_a_small_document_does_not_hold_the_registry_for_long(registry: Registry) -> None:
    status, said = await registry.ask("POST", "/subjects/bomb/versions", {"schema": doubling(30)})
    assert (status, said["error_code"]) == (422, 42201)
    assert "default" in said["message"]
    await registry.register(doubling(5), "small")
    slow = {"type": "string", "pattern": "^(a+)+$", "default": "a" * 60 + "b"}
    shown = json.dumps({"type": "object", "title": "t", "properties": {"a": slow}})
    await registry.register(shown, "slow", schemaType="JSON")
    chain = "".join(f"message M{n} {{ M{max(n - 1, 0)} a = 1; M{n} b = 2; }}\n" for n in range(1000))
    await registry.register(f'syntax = "proto3";\n{chain}', "chain", schemaType="PROTOBUF")
    await registry.register(f'syntax = "proto3";\n{chain}message Z {{}}\n', "chain", schemaType="PROTOBUF")
    status, _ = await registry.ask("POST", "/subjects/large/versions", {"schema": '"string"' + " " * (1 << 20)})
    assert status == 422
