"""Streams, clients' webhooks and callbacks on real servers: browsers' reconnects, slow clients, and SIGKILL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from postline import App
from postline.app import open_environment
from postline.http.addresses import Addresses
from postline.http.callbacks import callbacks
from postline.http.gateway import gateway
from postline.http.notifications import Webhooks, notifications
from postline.http.signing import Secret, verify
from tests.integration.hook_receiver import Receiver, answering, hanging, receiving
from tests.integration.notifying import OrderPlaced, orders
from tests.unit.commands.ledger import Ledger

HERE = Addresses(allow=["127.0.0.1"], plain_http=True)
PATH = "/topics/shop.orders/events?from=earliest"
SECRET = Secret(b"i" * 32)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def served(web: Any) -> AsyncIterator[int]:
    """An application on a port of this machine."""
    server = _Server(uvicorn.Config(web, port=0, lifespan="off", log_level="critical"))
    serving = asyncio.ensure_future(server._serve())
    try:
        await server.ready.wait()
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        web.let_go()
        server.should_exit = True
        await serving


@asynccontextmanager
async def running(folder: Path, *apps: App) -> AsyncIterator[None]:
    """Apps on one file."""
    environment = open_environment(f"sqlite:///{folder}/shop.db")
    for app in apps:
        await app.start(environment)
    try:
        yield
    finally:
        for app in apps:
            await app.stop(0.1)
        await environment.log.close()


async def told(port: int, count: int, last_id: str = "") -> list[tuple[str, str]]:
    """So many events of a stream, each with its id; then the connection is broken off."""
    found: list[tuple[str, str]] = []
    place = ""
    async with httpx.AsyncClient(timeout=60) as client:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with client.stream("GET", f"http://127.0.0.1:{port}{PATH}", headers=headers) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                place = value if name == "id" else place
                if name == "data":
                    found.append((place, json.loads(value)["data"]["order"]))
                    if len(found) == count:
                        return found
    return found


async def test_a_client_that_breaks_off_again_and_again_is_told_each_event_once(tmp_path: Path):
    app = App("shop", owns=[orders])
    web = notifications(app, streams=[orders])
    async with running(tmp_path, app), served(web) as port:

        async def publish() -> None:
            for number in range(200):
                await app.publish(OrderPlaced(f"o-{number}", f"c-{number % 13}"))

        publishing = asyncio.ensure_future(publish())
        heard: list[str] = []
        last_id = ""
        while len(heard) < 200:
            some = await told(port, min(17, 200 - len(heard)), last_id)
            heard += [order for _, order in some]
            last_id = some[-1][0]
        await publishing
    assert sorted(heard) == sorted(f"o-{number}" for number in range(200))
    assert len(set(heard)) == 200


async def test_a_client_that_takes_nothing_does_not_hold_up_another(tmp_path: Path):
    app = App("shop", owns=[orders])
    web = notifications(app, streams=[orders])
    async with running(tmp_path, app), served(web) as port:
        _, stuck = await asyncio.open_connection("127.0.0.1", port, limit=1)
        stuck.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await stuck.drain()
        await app.publish_many([OrderPlaced(f"o-{number}", "x" * 10_000) for number in range(2_000)])
        assert len(await told(port, 2_000)) == 2_000
        stuck.transport.abort()


async def test_a_client_makes_a_webhook_with_curl_and_it_is_posted_to(tmp_path: Path):
    app = App("shop", owns=[orders])
    web = notifications(app, webhooks=Webhooks(topics=[orders], addresses=HERE))
    stuck = Receiver(then=hanging)
    async with receiving(Receiver()) as receiver, receiving(stuck), running(tmp_path, app), served(web) as port:
        made = [
            await curl(port, {"url": url, "topic": "shop.orders", "filter": {"field": "customer", "eq": "ann"}})
            for url in (stuck.url, receiver.url)
        ]
        await app.publish_many([OrderPlaced("o-1", "ann"), OrderPlaced("o-2", "bob"), OrderPlaced("o-3", "ann")])
        await receiver.wait_for(2)
        await stuck.wait_for(1)
    for hook in receiver.hooks:
        assert verify(made[1]["secret"], hook.headers, hook.body)
    assert [json.loads(hook.body)["data"]["order"] for hook in receiver.hooks] == ["o-1", "o-3"]


async def curl(port: int, content: dict[str, Any]) -> Any:
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--fail-with-body", "--json", json.dumps(content), f"http://localhost:{port}/webhooks"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    return json.loads(output)


async def test_a_callback_comes_from_a_real_gateway_although_others_hang(tmp_path: Path):
    ledger = Ledger()
    callbacks(ledger.client, ledger.topic, secret=SECRET, addresses=HERE)
    web, stuck = gateway(ledger.client), Receiver(then=hanging)
    async with (
        receiving(stuck),
        receiving(Receiver(answering(503, retry_after="0"))) as receiver,
        running(tmp_path, ledger.service, ledger.client),
        served(web) as port,
        httpx.AsyncClient(base_url=f"http://localhost:{port}") as client,
    ):
        for number in range(60):
            url = stuck.url if number % 2 else receiver.url
            command = {"source": f"s-{number}", "target": "bob", "amount": 0}
            answer = await client.post("/commands/ledger.Transfer", json=command, headers={"Postline-Callback": url})
            assert answer.status_code == 202, answer.text
        refused = await client.post(
            "/commands/ledger.Transfer", json=command, headers={"Postline-Callback": "http://10.0.0.1/"}
        )
        assert refused.status_code == 422
        await receiver.wait_for(31)
        for hook in receiver.hooks:
            verify(SECRET, hook.headers, hook.body)
        assert len(set(receiver.ids)) == 30
        assert len(stuck.hooks) <= 16
