"""The phone that retries: a connection that breaks at any byte ends with one execution and one answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from postline import App
from postline.app import open_environment
from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID
from postline.http.receiver import receiver
from tests.integration.notifying import OrderPlaced, orders
from tests.integration.web_server import Server, Wire, listening, posted, running_server

TRANSFER = "/commands/ledger.Transfer"
PAY = {"source": "anna", "target": "bob", "amount": 0}


async def executions(server: Server) -> Counter[str]:
    """How often each request was executed, by what its execution published."""
    ledger = server.ledger
    while not await ledger.service.caught_up():
        await asyncio.sleep(0.01)
    log, name = server.environment.log, ledger.balances.name
    counts: Counter[str] = Counter()
    for partition, bounds in enumerate(await log.bounds(name)):
        offset = bounds.start
        while records := await log.read(name, partition, offset):
            envelopes = [log.envelope(record) for record in records]
            assert {each.headers[CLIENT_ID] for each in envelopes} == {"shop"}
            counts.update(each.headers[REQUEST_ID] for each in envelopes)
            offset = records[-1][0] + 1
    return counts


async def test_a_connection_cut_at_each_byte_of_the_answer_ends_with_one_execution(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        whole = len((await server.ask(posted(TRANSFER, PAY, Idempotency_Key='"whole"'))).raw)

        async def cut_after(read: int) -> str:
            request = posted(TRANSFER, PAY, Idempotency_Key=f'"phone-{read}"')
            first = await server.send(request, read=read)
            again = await server.ask(request)
            while again.status == 409:  # the first is being stored still
                again = await server.ask(request)
            assert again.status == 202
            assert again.raw.startswith(first)
            return again.headers["location"]

        locations = [await cut_after(read) for read in range(whole + 1)]
        assert len(set(locations)) == whole + 1
        counts = await executions(server)
        assert set(counts.values()) == {1}
        assert len(counts) == whole + 2
        assert server.ledger.attempts == whole + 2


async def test_a_connection_cut_at_each_byte_of_the_request_ends_with_one_execution(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        length = len(posted(TRANSFER, PAY, Idempotency_Key='"phone-100"'))
        for sent in range(length):
            request = posted(TRANSFER, PAY, Idempotency_Key=f'"phone-{sent:03}"')
            await server.send(request, sent=sent, read=0)
            answer = await server.ask(request)
            while answer.status == 409:
                answer = await server.ask(request)
            assert answer.status == 202
        counts = await executions(server)
        assert set(counts.values()) == {1}
        assert len(counts) == length


async def test_events_of_a_phone_that_is_cut_off_at_each_byte_and_makes_fresh_ids_are_handled_once(
    tmp_path: Path,
) -> None:
    app, handled = App("shop", owns=[orders]), Counter[str]()

    @app.subscribe("billing", orders, start="earliest").on(OrderPlaced)
    def bill(order: OrderPlaced) -> None:
        handled[order.order] += 1

    def sale(name: str, time: str) -> bytes:
        told = {"specversion": "1.0", "id": f"{name}-{time}", "source": "/phone", "type": "shop.OrderPlaced"}
        attributes = {f"Ce_{attribute}": value for attribute, value in told.items()}
        content = {"order": name, "customer": "anna"}
        return posted("/events/shop.orders", content, Idempotency_Key=f'"{name}"', **attributes)

    web, environment = receiver(app, path="/events/{topic}"), open_environment(f"sqlite:///{tmp_path}/shop.db")
    await app.start(environment)
    async with listening(web) as port:
        wire = Wire(port)
        answer = len((await wire.ask(sale("whole", "first"))).raw)
        request = len(sale("request-100", "first"))
        for read in range(answer + 1):
            await wire.send(sale(f"answer-{read}", "first"), read=read)
            await until_taken(wire, sale(f"answer-{read}", "again"))
        for sent in range(request):
            await wire.send(sale(f"request-{sent:03}", "first"), sent=sent, read=0)
            await until_taken(wire, sale(f"request-{sent:03}", "again"))
        while not await app.caught_up():
            await asyncio.sleep(0.01)
    await app.stop()
    await environment.log.close()
    assert set(handled.values()) == {1}
    assert len(handled) == 1 + answer + 1 + request


async def until_taken(wire: Wire, request: bytes) -> None:
    """Send it again until the first one is no longer being stored."""
    while (again := await wire.ask(request)).status == 409:
        pass
    assert again.status == 202
