"""`postline run --health`: real processes that answer probes from their start to their end."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

APP = """
from msgspec import Struct
from postline import App, Topic

orders = Topic("shop.orders", owner="shop", key="customer")

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str

app = App("shop", owns=[orders])

@app.subscribe("billing", orders, start="earliest").on(OrderPlaced)
async def bill(order: OrderPlaced) -> None:
    pass
"""

_PATIENCE_SECONDS = 40.0


@asynccontextmanager
async def running(folder: Path, *arguments: str, probes: int) -> AsyncIterator[list[str]]:
    """`postline run` there; gives where so many probes are answered, once the services run."""
    (folder / "app.py").write_text(APP)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postline", "run", "app.py", "--url", "sqlite:///shop.db", *arguments),
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    found: list[str] = []
    ready = 0
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while len(found) < probes or ready < probes:
                line = (await process.stderr.readline()).decode()
                assert line, "it ended before it ran"
                found += re.findall(r"probes at (\S+)/healthz", line)
                ready += ": running" in line
        yield found
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await process.stderr.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("workers", [None, 2])
async def test_each_process_answers_probes_until_it_has_stopped(tmp_path: Path, workers: int | None) -> None:
    more = [] if workers is None else ["--workers", str(workers)]
    async with (
        running(tmp_path, "--health", "127.0.0.1:0", *more, probes=workers or 1) as places,
        httpx.AsyncClient() as web,
    ):
        for place in places:
            assert (await web.get(f"{place}/healthz")).json() == {"status": "ok"}
            assert (await web.get(f"{place}/readyz")).json() == {"status": "ready"}
