"""Whoever watches how requests get on: woken as their tickets change, by one reader for all of them."""

from __future__ import annotations

import asyncio
import logging

from postline.clock import Clock
from postline.commands.accepting import Standing
from postline.commands.finding import Tickets
from postline.errors import LogError
from postline.log.port import Log
from postline.logs.events import event

__all__ = ["Watching"]

_log = logging.getLogger("postline.commands")

#: Appends between two reads of different partitions may go unnoticed for so long.
_WAIT_SECONDS = 1.0
_RETRY_SECONDS = 0.2


class Watching:
    """Reads one command topic's tickets as they come, while somebody watches one. Event loop only."""

    def __init__(self, client_id: str, tickets: Tickets, topic_name: str, around: tuple[Log, Clock]) -> None:
        self._client_id, self._tickets, self._name = client_id, tickets, topic_name
        self._log, self._clock = around
        #: Of each watched request, the version that is known and who waits for another.
        self._watched: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._following: asyncio.Task[None] | None = None

    async def changed(self, request_id: str, version: int, seconds: float) -> Standing:
        """How a request stands, as soon as there is more to tell than `version`, or after `seconds`.

        Raises LogUnavailable.
        """
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watched.setdefault(request_id, []).append((version, changed))
        timer = self._clock.call_later(seconds, lambda: _wake(changed))
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(), name=f"{self._name} watched")
        try:
            # What came before it was watched wakes nobody.
            if (await self._tickets.versions(self._client_id, [request_id]))[request_id] <= version:
                await changed
        finally:
            timer.cancel()
            self._watched[request_id].remove((version, changed))
            if not self._watched[request_id]:
                del self._watched[request_id]
        return await self._tickets.standing(self._client_id, request_id)

    async def _follow(self) -> None:
        while self._watched:
            try:
                if not await self._look():
                    await self._log.wait_for_appends(self._name, _WAIT_SECONDS)
            except LogError as error:
                if not error.retryable:
                    self._wake_all()
                    return
                _log.warning(
                    "tickets on %s can't be read, trying again: %s",
                    self._name,
                    error,
                    extra=event("tickets.unreadable", topic=self._name),
                )
                await self._clock.sleep(_RETRY_SECONDS)

    async def _look(self) -> bool:
        """Wake those whose request changed; whether there was one."""
        news = False
        versions = await self._tickets.versions(self._client_id, list(self._watched))
        for request_id, version in versions.items():
            for known, changed in self._watched.get(request_id, ()):
                if version > known and not changed.done():
                    changed.set_result(None)
                    news = True
        return news

    def _wake_all(self) -> None:
        for waiting in self._watched.values():
            for _, changed in waiting:
                _wake(changed)

    async def close(self) -> None:
        """Watch no more; whoever waits is told how its request stands. Idempotent."""
        self._wake_all()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)


def _wake(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)
