"""Commands over HTTP by 100 connections: each answered after the fsync, and the same route answering at once."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, best, directory, open_log, run, running, settle
from postline import App, CommandTopic
from postline.http.gateway import gateway
from postline.log.port import Append

__all__ = ["http_intake"]

_CONNECTIONS = 100
_PATH = "/commands/ledger.Transfer"
_BODY = b'{"source":"anna","target":"bob","amount":30}'

ledger = CommandTopic("ledger", owner="ledger", key="source")


@ledger.command("ledger.Transfer")
class Transfer(msgspec.Struct, frozen=True):
    """What is sent."""

    source: str
    target: str
    amount: int


def http_intake(options: Options) -> Result:
    """202 after the fsync, by 100 connections; the load comes from a process of its own."""
    result = Result("http-intake", "POST of commands over HTTP by 100 connections, synchronous=FULL")
    number = options.some(30_000)
    ways = ("by nothing but the server", "at once", "stored", "stored, keyed")
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            rates[way].append(_measured(way, number))
    for way in ways:
        result.figures.append(Figure(f"answered {way}", best(rates[way])))
    at_once = best(rates["at once"])
    result.ratios.append(Ratio("the same route answering at once", best(rates["stored"]) / at_once, 0.4))
    result.ratios.append(Ratio("the same, with an Idempotency-Key", best(rates["stored, keyed"]) / at_once, 0.4))
    bare = best(rates["by nothing but the server"])
    result.ratios.append(Ratio("an ASGI application that only answers", best(rates["stored"]) / bare))
    result.notes.append("At once: the same gateway, whose log takes every append without storing anything.")
    return result


def _measured(way: str, number: int) -> float:
    rate = 0.0

    async def main() -> None:
        nonlocal rate
        async with _serving(Path(place), stores="stored" in way, bare="nothing" in way) as port:
            rate = await _load(port, number, keyed="keyed" in way)

    with directory() as place:
        run(main)
    return rate


@asynccontextmanager
async def _serving(folder: Path, *, stores: bool, bare: bool = False) -> AsyncIterator[int]:
    """A gateway that listens; its port."""
    path = folder / "bench.db"
    shop = App("shop", publishes_to=[ledger])
    async with (
        open_log(path) as environment,
        running(App("ledger", owns=[ledger]), environment),
        running(shop, environment),
    ):
        if not stores:
            environment.log.append = _at_once  # type: ignore[method-assign]
        settle(path)
        web = _bare if bare else gateway(shop)
        server = uvicorn.Server(uvicorn.Config(web, lifespan="off", log_level="error", access_log=False))
        with socket.create_server(("127.0.0.1", 0), backlog=_CONNECTIONS) as listener:
            serving = asyncio.ensure_future(server._serve([listener]))  # without its signal handlers
            try:
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True
                await serving


async def _bare(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers 202 to whatever comes."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def _at_once(records: Sequence[Append]) -> list[int]:
    return [0] * len(records)


async def _load(port: int, number: int, *, keyed: bool) -> float:
    """Requests a second, as the clients see it."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_clients, args=(theirs, port, number, keyed))
    process.start()
    try:
        rate: float = await asyncio.to_thread(ours.recv)
    finally:
        process.join()
    return rate


def _clients(pipe: Connection, port: int, number: int, keyed: bool) -> None:
    pipe.send(asyncio.run(_ask_all(port, number, keyed)))


async def _ask_all(port: int, number: int, keyed: bool) -> float:
    share = number // _CONNECTIONS
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_CONNECTIONS)]
    began = time.perf_counter()
    await asyncio.gather(*(_ask(*each, share, place, keyed) for place, each in enumerate(opened)))
    rate = share * _CONNECTIONS / (time.perf_counter() - began)
    for _, writer in opened:
        writer.close()
    return rate


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, place: int, keyed: bool
) -> None:
    request: Callable[[int], bytes] = _keyed(place) if keyed else _plain()
    for each in range(number):
        writer.write(request(each))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202"), head
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)


def _plain() -> Callable[[int], bytes]:
    request = _request("")
    return lambda _: request


def _keyed(place: int) -> Callable[[int], bytes]:
    return lambda each: _request(f'Idempotency-Key: "{place}-{each}"\r\n')


def _request(more: str) -> bytes:
    told = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n{more}\r\n"
    return f"POST {_PATH} HTTP/1.1\r\n{told}".encode() + _BODY
