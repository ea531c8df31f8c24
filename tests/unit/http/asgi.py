"""An ASGI client that reads a response as it comes, and stops taking or goes away when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Listening"]


class Listening:
    """One GET of a stream, read until it is closed."""

    def __init__(self, web: Any, path: str, query: str = "", headers: dict[str, str] | None = None) -> None:
        told = {"host": "localhost", **(headers or {})}
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in told.items()],
            "client": ("127.0.0.1", 4711),
            "server": ("localhost", 80),
        }
        self._gone = asyncio.Event()
        #: Clear: the client takes nothing.
        self.takes = asyncio.Event()
        self.takes.set()
        self._asked = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.heard = b""
        self.task = asyncio.ensure_future(web(self._scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.takes.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.heard += message.get("body", b"")

    @property
    def blocks(self) -> list[dict[str, str]]:
        """What came, block by block, each as field and value; comments are left out."""
        found = []
        for block in self.heard.decode().split("\n\n")[:-1]:
            lines = [line.partition(":") for line in block.split("\n") if not line.startswith(":")]
            found.append({name: value.removeprefix(" ") for name, _, value in lines})
        return found

    @property
    def events(self) -> list[dict[str, str]]:
        """The blocks with data."""
        return [block for block in self.blocks if "data" in block]

    @property
    def last_id(self) -> str:
        return [block["id"] for block in self.blocks if "id" in block][-1]

    async def wait_for(self, count: int) -> list[dict[str, str]]:
        """The events, once there are so many."""
        while len(self.events) < count:
            assert not self.task.done(), (self.heard, self.task)
            await asyncio.sleep(0.001)
        return self.events

    async def wait_for_words(self, words: bytes) -> None:
        while words not in self.heard:
            assert not self.task.done(), (self.heard, self.task)
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Go away."""
        self._gone.set()
        self.takes.set()
        await asyncio.gather(self.task, return_exceptions=True)
