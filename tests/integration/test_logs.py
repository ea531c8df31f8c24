"""`postline run --log-format json`: all lines of real processes are objects, and handlers' lines tell their record."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import ROOT

APP = """
import logging
from msgspec import Struct
from postline import App, Retry, Topic

log = logging.getLogger("shop")
orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int

app = App("shop", owns=[orders])

@app.subscribe("billing", orders, start="earliest", retry=Retry(immediate=0, delays=())).on(OrderPlaced)
async def bill(order: OrderPlaced) -> None:
    log.info("billing %d", order.total)
    if order.total < 0:
        raise ValueError("negative")
"""


@pytest.mark.parametrize("more", [(), ("--workers", "2")])
async def test_every_line_is_an_object_and_those_of_handlers_tell_their_record(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    (tmp_path / "app.py").write_text(APP)
    command = (sys.executable, "-m", "postline")
    around = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    service = await asyncio.create_subprocess_exec(
        *(*command, "run", "app.py", "--log-format", "json", *more),
        cwd=tmp_path,
        env=around,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    assert service.stderr is not None
    lines: list[dict[str, Any]] = []

    async def until(wanted: Any) -> dict[str, Any]:
        assert service.stderr is not None
        async with asyncio.timeout(60):
            while True:
                lines.append(json.loads(await service.stderr.readline()))
                if wanted(lines[-1]):
                    return lines[-1]

    try:
        await until(lambda line: "running billing" in line["message"])
        publisher = await asyncio.create_subprocess_exec(
            *(*command, "publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py"),
            cwd=tmp_path,
            env=around,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        await publisher.communicate(b'{"customer":"ann","total":-7}\n')
        billing = await until(lambda line: line["logger"] == "shop")
        gave_up = await until(lambda line: line["level"] == "error")
        service.terminate()
        await until(lambda line: "stopped: committed and left" in line["message"])
        for rest in (await service.stderr.read()).splitlines():
            lines.append(json.loads(rest))
    finally:
        if service.returncode is None:
            service.kill()
        await service.wait()
    assert (billing["message"], billing["key"], billing["attempt"]) == ("billing -7", "ann", 1)
    assert {"subscription", "topic", "partition", "offset", "correlation_id", "time", "pid"} <= billing.keys()
    assert "gives up" in gave_up["message"]
    assert "%s" in gave_up["event"]
    assert any("takes up partitions" in line["message"] for line in lines)
