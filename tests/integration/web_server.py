"""A gateway on a real server, and a client that speaks HTTP by hand and breaks connections where it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvicorn

from postline.app import Environment, open_environment
from postline.http.doors import Served
from postline.http.gateway import gateway
from tests.unit.commands.ledger import Ledger

__all__ = ["Answer", "Server", "Wire", "listening", "posted", "running_server"]


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return msgspec.json.decode(self.body)


class Wire:
    """A place where a server listens, and what goes there and comes back, byte by byte."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def send(self, request: bytes, *, sent: int | None = None, read: int | None = None) -> bytes:
        """Send so many bytes of a request, read so many of the answer, and break the connection off."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request[:sent])
            await writer.drain()
            return await (reader.read() if read is None else reader.readexactly(read))
        finally:
            writer.transport.abort()

    async def ask(self, request: bytes) -> Answer:
        """The whole answer to a request that asks to close the connection."""
        raw = await self.send(request)
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split()[1]), headers, body, raw)


class Server(Wire):
    """A gateway that listens, the ledger behind it, and the log below both."""

    def __init__(self, ledger: Ledger, environment: Environment, port: int) -> None:
        super().__init__(port)
        self.ledger, self.environment = ledger, environment


def posted(path: str, content: Any, **headers: str) -> bytes:
    """A POST as it goes over the wire."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    told = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def listening(web: Served) -> AsyncIterator[int]:
    """An application on a port of this machine; its app is somebody else's to start and stop."""
    config = uvicorn.Config(web, port=0, lifespan="off", log_level="error", server_header=False, date_header=False)
    server = _Server(config)
    serving = asyncio.ensure_future(server._serve())
    try:
        await server.ready.wait()
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        web.let_go()
        server.should_exit = True
        await serving


@asynccontextmanager
async def running_server(folder: Path, *, serves: bool = True, **options: Any) -> AsyncIterator[Server]:
    """A gateway over a ledger, on a file; with `serves` the ledger's service runs, too."""
    ledger = Ledger()
    environment = open_environment(f"sqlite:///{folder}/ledger.db")
    web = gateway(ledger.client, **options)
    await ledger.service.start(environment, consume=serves)
    await ledger.client.start(environment)
    try:
        async with listening(web) as port:
            yield Server(ledger, environment, port)
    finally:
        await ledger.client.stop()
        await ledger.service.stop()
        await environment.log.close()
