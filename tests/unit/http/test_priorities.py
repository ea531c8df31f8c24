"""Priorities over HTTP: a header says how urgent a command is, and its key keeps the first one's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx

from postline import App
from postline.http.gateway import Gateway, gateway
from postline.testing import TestApp

PRIORITIES = {"high": 0, "normal": 0}
SCALE, INDEX = "/commands/images.scale", "/commands/images.index"


@asynccontextmanager
async def running() -> AsyncIterator[tuple[TestApp, httpx.AsyncClient, Gateway]]:
    """A queue with priorities behind a gateway."""
    app = App("images")
    work = app.queue("work", priorities=PRIORITIES)

    @app.task(queue=work)
    async def scale(path: str) -> str:
        return path

    @app.task(queue=work, unique=timedelta(hours=1))
    async def index(path: str) -> str:
        return path

    async with TestApp(app) as t:
        made = gateway(app)
        transport = httpx.ASGITransport(made, client=("127.0.0.1", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield t, http, made


async def test_a_header_says_how_urgent_a_command_is() -> None:
    async with running() as (t, http, _):
        for headers in ({"Postline-Priority": "high"}, {"Postline-Priority": "normal"}, {}):
            answer = await http.post(SCALE, json={"path": "a"}, headers={**headers, "Prefer": "wait=10"})
            assert answer.json()["result"] == {"value": "a"}
        await t.settle()
        assert t.audit()["images.work.high"] == {"done": 1}
        assert t.audit()["images.work"] == {"done": 2}


async def test_a_key_used_again_with_another_priority_does_nothing_twice() -> None:
    async with running() as (t, http, _):
        locations = set()
        for priority in ("high", "normal"):
            headers = {"Idempotency-Key": "k", "Postline-Priority": priority}
            locations.add((await http.post(SCALE, json={"path": "a"}, headers=headers)).headers["location"])
            await t.settle()
        assert len(locations) == 1
        assert t.audit()["images.work.high"] == {"done": 1}
        assert t.audit()["images.work"] == {}


async def test_a_priority_that_a_command_can_not_have_is_refused() -> None:
    async with running() as (_, http, _):
        for url, priority in ((SCALE, "urgent"), (INDEX, "high"), (SCALE, "high, normal")):
            answer = await http.post(url, json={"path": "a"}, headers={"Postline-Priority": priority})
            assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (400, "priority")


async def test_the_document_names_the_priorities_of_each_command() -> None:
    async with running() as (_, _, made):

        def told(path: str) -> Any:
            parameters = made.document["paths"][path]["post"]["parameters"]
            return next(each["schema"]["enum"] for each in parameters if each["name"] == "Postline-Priority")

        assert told(SCALE) == ["high", "normal"]
        assert told(INDEX) == ["normal"]


async def test_of_two_gateways_that_accept_a_key_with_two_bodies_at_once_one_refuses() -> None:
    async with running() as (t, http, made):
        other = httpx.ASGITransport(gateway(made.app), client=("127.0.0.1", 4712))
        async with httpx.AsyncClient(transport=other, base_url="http://localhost") as second:
            key = {"Idempotency-Key": "k"}
            posts = [each.post(SCALE, json={"path": path}, headers=key) for each, path in ((http, "a"), (second, "b"))]
            answers = await asyncio.gather(*posts)
        assert sorted(each.status_code for each in answers) == [202, 422]
        (refused,) = [each.json() for each in answers if each.status_code == 422]
        assert refused["type"].endswith("key-reused")
        await t.settle()
        assert sum(outcomes.get("done", 0) for outcomes in t.audit().values()) == 1
