"""The REST interface: what clients of a schema registry ask for, and its own codes for what is wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from postline.clock import SystemClock
from postline.contracts.compatibility import Level
from postline.errors import ContractError, LogUnavailable
from postline.log.sqlite import SqliteLog
from postline.registry import Document, LogRegistry, schemas_topic
from postline.registry.remote import RemoteRegistry
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
    assert await registry.ask("GET", f"/schemas/ids/{first}") == (
        200,
        {"schema": json.dumps(json.loads(V1), separators=(",", ":"))},
    )
    assert await registry.ask("GET", f"/schemas/ids/{first}/versions") == (200, [{"subject": "orders", "version": 1}])
    assert await registry.ask("GET", f"/schemas/ids/{first}/subjects") == (200, ["orders"])
    assert await registry.ask("GET", "/schemas/types") == (200, ["JSON", "AVRO", "PROTOBUF"])


async def test_protobuf_and_json_are_named_by_their_type(registry: Registry) -> None:
    number = await registry.register(PROTO, "proto", schemaType="PROTOBUF")
    assert await registry.ask("GET", f"/schemas/ids/{number}") == (200, {"schema": PROTO, "schemaType": "PROTOBUF"})
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
        ("POST", "/subjects/orders/versions", {}, 42201),
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


# -- used by an app -----------------------------------------------------------------------------------


async def test_a_remote_registry_is_used_like_the_one_in_the_log(registry: Registry) -> None:
    remote = RemoteRegistry("http://user:secret@registry/", SystemClock(), transport=registry.transport)
    assert (remote.address, await remote.versions("orders"), await remote.schemas([1])) == ("http://registry", [], {})
    first = await remote.register("orders", Document("AVRO", V1))
    assert [(each.number, each.id) for each in await remote.versions("orders")] == [(1, first)]
    assert set(await remote.schemas([first, 999])) == {first}
    assert await remote.level("orders") is Level.FULL_TRANSITIVE
    await remote.set_level("orders", Level.BACKWARD)
    assert await remote.level("orders") is Level.BACKWARD
    assert await remote.subjects() == ["orders"]
    with pytest.raises(ContractError, match="currency") as told:
        await remote.register("orders", Document("AVRO", BREAKING))
    assert told.value.remedy
    await remote.close()


async def test_a_registry_that_is_down_keeps_nobody_from_what_was_seen(registry: Registry) -> None:
    down = False

    async def answer(request: httpx.Request) -> httpx.Response:
        if down:
            raise httpx.ConnectError("refused")
        return await registry.transport.handle_async_request(request)

    remote = RemoteRegistry("http://user:secret@registry", SystemClock(), transport=httpx.MockTransport(answer))
    first = await remote.register("orders", Document("AVRO", V1))
    await remote.schemas([first])
    down = True
    assert set(await remote.schemas([first])) == {first}
    with pytest.raises(LogUnavailable, match="http://registry does not answer") as told:
        await remote.schemas([first + 1])
    assert "secret" not in str(told.value)
    await remote.close()
