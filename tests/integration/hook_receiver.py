"""Somebody's server that webhooks are posted to: real sockets, and bad manners on demand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeAlias

__all__ = ["Hook", "Manner", "Receiver", "answering", "dripping", "hanging", "receiving"]


class Hook(NamedTuple):
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes


#: What is done with a request: writes the answer, or doesn't.
Manner: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answering(status: int, body: bytes = b"", **headers: str) -> Manner:
    """Answer with this status; `retry_after=` becomes the header."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return answer


async def hanging(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.get_running_loop().create_future()


async def dripping(writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time, for ever: each one would keep a limit on reading content."""
    writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


class Receiver:
    """What came, and what is answered: the next manner, or at last `then`."""

    def __init__(self, *manners: Manner, then: Manner | None = None) -> None:
        self.manners, self.then = list(manners), then or answering(204)
        self.hooks: list[Hook] = []
        self.connections = 0
        self.names: list[str | None] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    @property
    def ids(self) -> list[str]:
        return [hook.headers["webhook-id"] for hook in self.hooks]

    async def wait_for(self, count: int) -> None:
        """Until so many requests came."""
        while len(self.hooks) < count:
            await asyncio.sleep(0.01)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while hook := await _read(reader):
                self.hooks.append(hook)
                await (self.manners.pop(0) if self.manners else self.then)(writer)
        except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Hook | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        return Hook(head[0].split(" ")[1], headers, await reader.readexactly(int(headers.get("content-length", "0"))))
    except asyncio.IncompleteReadError:
        return None


@asynccontextmanager
async def receiving(receiver: Receiver, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """The receiver on a port of this machine."""
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()
        await server.wait_closed()
