"""Calls of one subscription to many hosts: those that hang are left alone for a while, so that others get through."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from urllib.parse import urlsplit

from postline.clock import Clock
from postline.errors import DeliveryFailed
from postline.http.calling import Answer
from postline.http.delivering import Post

__all__ = ["Hosts"]

_AT_A_TIME = 16
_FAILURES = 3
_LEFT_ALONE_SECONDS = 30.0
_REMEMBERED_MAX = 10_000


class _Host:
    def __init__(self) -> None:
        self.places = asyncio.Semaphore(_AT_A_TIME)
        self.waiting = 0
        self.failed = 0
        self.left_alone_until = 0.0


class Hosts:
    """Bounds what each host takes up in this process. Event loop only.

    At most 16 calls at a time go to a host. After three in a row to which it gave no answer, none does for 30 s: such
    an attempt fails at once, and its message is tried again by its ladder.
    """

    def __init__(self, post: Post, clock: Clock) -> None:
        self._post, self._clock = post, clock
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Post once, as the function that this is made of."""
        host = self._host(url)
        host.waiting += 1
        try:
            async with host.places:
                self._require_alive(host, url)
                return await self._posted(host, url, headers, body)
        finally:
            host.waiting -= 1

    async def _posted(self, host: _Host, url: str, headers: dict[str, str], body: bytes) -> Answer:
        try:
            answer = await self._post(url, headers, body)
        except DeliveryFailed:
            host.failed += 1
            if host.failed >= _FAILURES:
                host.left_alone_until = self._clock.monotonic() + _LEFT_ALONE_SECONDS
            raise
        host.failed = 0
        return answer

    def _require_alive(self, host: _Host, url: str) -> None:
        if self._clock.monotonic() < host.left_alone_until:
            raise DeliveryFailed(
                f"{urlsplit(url).netloc} did not answer {host.failed} times in a row, and is left alone for a while."
            )

    def _host(self, url: str) -> _Host:
        name = urlsplit(url).netloc.lower()
        host = self._hosts.pop(name, None) or _Host()
        self._hosts[name] = host
        if len(self._hosts) > _REMEMBERED_MAX:
            oldest = next(iter(self._hosts))
            if not self._hosts[oldest].waiting:
                del self._hosts[oldest]
        return host
