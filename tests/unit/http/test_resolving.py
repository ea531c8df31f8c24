"""Names whose servers take long: who waits for them, and who does not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from postline.http.resolving import SystemResolver


class Servers:
    """Stands for the system's resolver; it says nothing about `.slow` names until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host.endswith(".slow"):
            assert self.go.wait(60)
        if host.startswith("no."):
            raise socket.gaierror("no such name")
        return [(2, 1, 6, "", ("8.8.8.8", port))] * 2


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    made = Servers()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.go.set()


async def test_names_that_hang_hold_up_no_other(servers: Servers):
    resolve = SystemResolver()
    hanging = [asyncio.ensure_future(resolve(f"{number}.slow", 443)) for number in range(100)]
    async with asyncio.timeout(30):
        assert await resolve("good.example", 443) == ["8.8.8.8"]
        assert await asyncio.to_thread(int) == 0  # and the loop's own threads are free
    assert not any(each.done() for each in hanging)
    servers.go.set()
    assert await asyncio.gather(*hanging) == [["8.8.8.8"]] * 100


async def test_a_name_is_looked_up_once_at_a_time_and_who_gives_up_takes_nothing_from_others(servers: Servers):
    resolve = SystemResolver()
    first, second = (asyncio.ensure_future(resolve("a.slow", 443)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    servers.go.set()
    assert await second == ["8.8.8.8"]
    assert servers.asked == ["a.slow"]
    assert await resolve("a.slow", 443) == ["8.8.8.8"]  # nothing is kept
    assert servers.asked == ["a.slow"] * 2


async def test_a_name_without_addresses_is_told_to_each_who_asks(servers: Servers):
    resolve = SystemResolver()
    both = [asyncio.ensure_future(resolve("no.slow", 443)) for _ in range(2)]
    await asyncio.sleep(0)
    servers.go.set()
    told = await asyncio.gather(*both, return_exceptions=True)
    assert [type(each) for each in told] == [socket.gaierror] * 2
    with pytest.raises(socket.gaierror):
        await resolve("no.example", 443)


async def test_more_names_than_threads_are_refused_at_once(servers: Servers):
    resolve = SystemResolver()
    hanging = [asyncio.ensure_future(resolve(f"{number}.slow", 443)) for number in range(256)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="256 other names are being looked up"):
        await resolve("good.example", 443)
    servers.go.set()
    await asyncio.gather(*hanging)
    assert await resolve("good.example", 443) == ["8.8.8.8"]
