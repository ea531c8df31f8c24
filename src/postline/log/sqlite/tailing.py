"""`SqliteTail`: one partition read on and on, outside any group."""

from __future__ import annotations

import asyncio

from postline.clock import Alarm
from postline.log.port import Record
from postline.log.sqlite.appending import Appended
from postline.log.sqlite.connection import translated
from postline.log.sqlite.cursor import Cursor
from postline.log.sqlite.storage import Storage

__all__ = ["SqliteTail"]


class SqliteTail:
    """Implements the port's `Tail`; a listener of the log's presence."""

    def __init__(self, storage: Storage, topic: str, partition: int, offset: int) -> None:
        self._storage = storage
        with translated(storage.address):
            self._cursor = Cursor(storage.reader, topic, partition, offset)
        self._waiting: asyncio.Future[None] | None = None
        self._patience = Alarm(storage.clock, self._let_go)
        storage.presence.add(self)
        storage.on_close.append(self.close)

    async def read(self, *, limit: int, max_bytes: int, wait_seconds: float) -> list[Record]:
        """The next records, as soon as there are any; [] after `wait_seconds`. Raises LogError."""
        until = self._storage.clock.monotonic() + wait_seconds
        while True:
            self._storage.require_started()
            if records := self._next(limit, max_bytes):
                return records
            if self._storage.clock.monotonic() >= until:
                return []
            await self._wait(until)

    def _next(self, limit: int, max_bytes: int) -> list[Record] | None:
        cursor = self._cursor
        if not cursor.needs_file:
            return cursor.take(limit, max_bytes) if cursor.has_more else None
        with translated(self._storage.address), self._storage.reader.one_moment():
            return cursor.take(limit, max_bytes)

    async def _wait(self, until: float) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        self._patience.set(until)
        try:
            await self._waiting
        finally:
            self._patience.clear()
            self._waiting = None

    def _let_go(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def close(self) -> None:
        """Read no more; whoever waits is told that the log is closed, if it is. Idempotent."""
        self._storage.presence.discard(self)
        self._patience.stop()
        if self.close in self._storage.on_close:
            self._storage.on_close.remove(self.close)
        self._let_go()

    # What the presence tells.

    def records_appended(self, appended: Appended | None) -> None:
        """Something may be there."""
        if appended is None:
            self._cursor.look()
        elif self._cursor.partition_id in appended:
            self._cursor.offer(appended[self._cursor.partition_id])
        if self._cursor.has_more:
            self._let_go()

    def group_changed(self) -> None:
        """Nobody's group."""

    def tick(self) -> None:
        """Nobody dies here."""
