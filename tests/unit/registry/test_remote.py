"""A registry over HTTP: used like the one in the log, and no hindrance to what was seen when it is down."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import pytest

from postline.clock import SystemClock
from postline.contracts.compatibility import Level
from postline.contracts.frame import guid_behind, number_of_guid
from postline.errors import ContractError, LogUnavailable
from postline.log.sqlite import SqliteLog
from postline.registry import Document, LogRegistry, schemas_topic
from postline.registry.model import Reference, guid_of
from postline.registry.remote import RemoteRegistry
from postline.registry.rest import asgi

_ids = itertools.count()


def avro(*fields: tuple[str, Any], **more: Any) -> Document:
    made = [{"name": name, "type": kind, **more} for name, kind in fields]
    text = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}, *made]}
    return Document("AVRO", json.dumps(text))


class Quick(SystemClock):
    """Doesn't wait; remembers how often it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0

    async def sleep(self, seconds: float) -> None:
        self.slept += 1


@pytest.fixture
async def served() -> AsyncIterator[httpx.ASGITransport]:
    log = SqliteLog(None, clock=SystemClock())
    await log.start()
    await log.create_topic(schemas_topic("s"))
    yield httpx.ASGITransport(asgi(LogRegistry(log, "s", lambda: f"id-{next(_ids)}")))
    await log.close()


def remote_with(answer: Callable[[httpx.Request], Any], url: str = "http://user:secret@registry/") -> RemoteRegistry:
    return RemoteRegistry(url, Quick(), transport=httpx.MockTransport(answer))


async def test_it_is_used_like_the_one_in_the_log(served: httpx.ASGITransport) -> None:
    remote = RemoteRegistry("http://user:secret@registry/", Quick(), transport=served)
    assert (remote.address, await remote.versions("orders"), await remote.schemas([1])) == ("http://registry", [], {})
    first = await remote.register("orders", avro())
    assert [(each.number, each.id) for each in await remote.versions("orders")] == [(1, first)]
    assert set(await remote.schemas([first, 999])) == {first}
    assert await remote.level("orders") is Level.FULL_TRANSITIVE
    await remote.set_level("orders", Level.BACKWARD)
    await remote.set_level("", Level.NONE)
    assert await remote.level("orders") is Level.BACKWARD
    assert await remote.level("returns") is Level.NONE
    assert await remote.subjects() == ["orders"]
    with pytest.raises(ContractError, match="currency") as told:
        await remote.register("orders", avro(("currency", "string")))
    assert told.value.remedy
    await remote.close()


async def test_a_schema_is_found_by_its_guid_alone(served: httpx.ASGITransport) -> None:
    kept = msgspec.structs.replace(avro(), text=json.dumps(json.loads(avro().text), separators=(",", ":")))
    number = number_of_guid(guid_of(kept))
    asked = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return await served.handle_async_request(request)

    remote = remote_with(answer)
    assert await remote.schemas([number]) == {}
    registered = await RemoteRegistry("http://registry", Quick(), transport=served).register("orders", avro())
    for _ in range(2):
        found = await remote.schemas([number, registered])
        assert found[number] == found[registered]
    assert asked == [f"/schemas/guids/{guid_behind(number)}"] * 2 + [f"/schemas/ids/{registered}"]


async def test_a_guid_is_looked_up_at_a_registry_that_tells_no_id_with_it_and_waits_for_one_that_is_down() -> None:
    number, answers = number_of_guid(guid_of(avro())), [httpx.Response(200, json={"schema": avro().text})]
    remote = remote_with(lambda _: answers.pop() if answers else httpx.Response(503))
    assert set(await remote.schemas([number])) == {number}
    assert set(await remote.schemas([number])) == {number}
    with pytest.raises(LogUnavailable):
        await remote.schemas([number + 1])


async def test_names_with_a_slash_are_found_again(served: httpx.ASGITransport) -> None:
    remote = RemoteRegistry("http://registry", Quick(), transport=served)
    first = await remote.register("a/b c%", avro())
    assert (await remote.subjects(), (await remote.versions("a/b c%"))[0].id) == (["a/b c%"], first)


async def test_what_was_seen_or_registered_stays_known_when_it_is_down(served: httpx.ASGITransport) -> None:
    down = False

    async def answer(request: httpx.Request) -> httpx.Response:
        if down:
            raise httpx.ConnectError("refused")
        return await served.handle_async_request(request)

    first = await RemoteRegistry("http://registry", Quick(), transport=served).register("orders", avro())
    remote = remote_with(answer)
    await remote.schemas([first])
    second = await remote.register("orders", avro(("n", "int"), default=0))
    down = True
    assert set(await remote.schemas([first, second])) == {first, second}
    with pytest.raises(LogUnavailable, match="http://registry does not answer") as told:
        await remote.schemas([second + 1])
    assert "secret" not in f"{told.value} {told.value.remedy}"
    await remote.close()


async def test_documents_that_refer_to_others_are_read_with_them(served: httpx.ASGITransport) -> None:
    remote = RemoteRegistry("http://registry", Quick(), transport=served)
    line = {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]}
    await remote.register("lines", Document("AVRO", json.dumps(line)))
    order = referring(avro(("line", "Line")), (Reference("Line", "lines", 1),))
    number = await remote.register("orders", order)
    again = RemoteRegistry("http://registry", Quick(), transport=served)
    assert (await again.schemas([number]))[number].definitions.keys() >= {"Order", "Line"}


def referring(document: Document, references: tuple[Reference, ...]) -> Document:
    return Document(document.schema_type, document.text, references)


async def test_ids_whose_documents_cannot_be_read_are_left_out(served: httpx.ASGITransport) -> None:
    remote = RemoteRegistry("http://registry", Quick(), transport=served)
    number = await remote.register("x", Document("JSON", '{"$ref": "https://elsewhere/x"}'))
    assert await remote.schemas([number]) == {}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_passing_failures_are_waited_for(status: int) -> None:
    answers = iter([httpx.Response(status), httpx.Response(200, json=["orders"])])
    remote = remote_with(lambda request: next(answers))
    assert await remote.subjects() == ["orders"]
    assert remote._clock.slept == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("https://registry", None),
        ("https://user:p%40ss@registry", "Basic dXNlcjpwQHNz"),
        ("https://user@registry", "Basic dXNlcjo="),
        ("https://:token@registry", "Bearer token"),
    ],
)
async def test_the_url_may_carry_a_login_or_a_token(url: str, header: str | None) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=[])

    remote = remote_with(answer, url)
    assert await remote.subjects() == []
    assert [request.headers.get("authorization") for request in asked] == [header]
    assert (str(asked[0].url), remote.address) == ("https://registry/subjects", "https://registry")


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"compatibilityLevel": "SIDEWAYS"}'])
async def test_what_is_no_registry_is_told_with_its_address(content: bytes) -> None:
    remote = remote_with(lambda request: httpx.Response(200, content=content))
    with pytest.raises(ContractError, match="http://registry is no schema registry") as told:
        await remote.level("orders")
    assert "secret" not in f"{told.value} {told.value.remedy}"


@pytest.mark.parametrize("status", [401, 403, 409, 422])
async def test_a_refusal_is_told_with_its_words_and_not_tried_again(status: int) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json={"error_code": status, "message": "not so"})

    with pytest.raises(ContractError, match="not so") as told:
        await remote_with(answer).register("orders", avro())
    assert (len(asked), "secret" in str(told.value)) == (1, False)
    assert told.value.remedy


async def test_references_of_null_are_none() -> None:
    shown = {"schema": avro().text, "references": None, "id": 7, "version": 1}
    remote = remote_with(lambda request: httpx.Response(200, json=shown))
    assert set(await remote.schemas([7])) == {7}


SHOWN = {"schema": avro().text, "id": 7, "version": 1}


@pytest.mark.parametrize(
    "passing",
    [
        httpx.Response(401, json={"error_code": 40101, "message": "who are you?"}),
        httpx.Response(403),
        httpx.Response(302, headers={"location": "https://login"}),
        httpx.Response(200, html="<html>"),
        httpx.Response(200, content=b'{"schema": "'),
        httpx.Response(200, content=b"null"),
        httpx.Response(404, html="<html>nginx"),
        httpx.Response(404, json={"message": "no Route matched"}),
    ],
    ids=lambda each: f"{each.status_code}-{each.content[:9]}",
)
async def test_ids_are_asked_for_again_whatever_stands_before_the_registry(passing: httpx.Response) -> None:
    answers = iter([passing, httpx.Response(200, json=SHOWN)])
    remote = remote_with(lambda request: next(answers))
    with pytest.raises(LogUnavailable) as told:
        await remote.schemas([7])
    assert told.value.retryable
    assert set(await remote.schemas([7])) == {7}


@pytest.mark.parametrize("code", [404, 40401, 40403])
async def test_only_the_registry_itself_says_that_an_id_is_unknown(code: int) -> None:
    remote = remote_with(lambda request: httpx.Response(404, json={"error_code": code, "message": "Schema not found"}))
    assert await remote.schemas([7]) == {}
