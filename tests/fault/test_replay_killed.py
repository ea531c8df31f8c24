"""SIGKILL amidst a replay: the same command goes on, and the shadow's state is that of one handling of each record."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postline.clock import SystemClock
from postline.log.sqlite import SqliteLog
from postline.runtime.entries import USER_STATE
from tests.integration.processes import ROOT

RECORDS, CUSTOMERS, RATE = 400, 7, 300
SHADOW = "billing.replay.1"
APP = """
from msgspec import Struct
from postline import App, Context, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)
bills = Topic("shop.bills", owner="shop", key="customer", partitions=4)

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int

@bills.event("shop.Billed")
class Billed(Struct, frozen=True):
    customer: str
    running: int

app = App("shop", owns=[orders, bills])

@app.subscribe("billing", orders, start="earliest", state=int).on(OrderPlaced)
async def bill(order: OrderPlaced, ctx: Context) -> Billed:
    running = (ctx.state.get() or 0) + order.total
    ctx.state.put(running)
    return Billed(order.customer, running)
"""


async def started(folder: Path, *arguments: str, **pipes: Any) -> asyncio.subprocess.Process:
    """`postline …` in that folder."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postline", *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        **{"stdin": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL, **pipes},
    )


async def output(folder: Path, *arguments: str) -> Any:
    """What it prints, as JSON."""
    process = await started(folder, *arguments, "--json", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return json.loads(said)


async def passed(log: SqliteLog) -> int:
    """Offsets that the shadow is done with; 0 while there is none."""
    if SHADOW not in [info.name for info in await log.subscriptions()]:
        return 0
    return sum(each.position for each in await log.partitions(SHADOW))


async def totals(log: SqliteLog, subscription: str) -> dict[bytes, int]:
    """Each customer's running total."""
    found: dict[bytes, int] = {}
    for info in await log.partitions(subscription):
        entries = await log.peek_state(subscription, info.partition, USER_STATE)
        found |= {key: msgspec.json.decode(data) for key, data in entries}
    return found


@pytest.mark.parametrize("seed", [1])
async def test_a_replay_that_is_killed_again_and_again_handles_each_record_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    (tmp_path / "app.py").write_text(APP)
    publisher = await started(
        tmp_path,
        *("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    lines = [{"customer": f"c{number % CUSTOMERS}", "total": number} for number in range(RECORDS)]
    await publisher.communicate("".join(json.dumps(line) + "\n" for line in lines).encode())
    log = SqliteLog(str(tmp_path / "postline.db"), clock=SystemClock())
    await log.start()
    try:
        live = await started(tmp_path, "run", "app.py")
        async with asyncio.timeout(60):
            while (
                "billing" not in [info.name for info in await log.subscriptions()]
                or sum(each.position for each in await log.partitions("billing")) < RECORDS
            ):
                await SystemClock().sleep(0.02)
        live.terminate()
        assert await live.wait() == 0
        bills = await log.bounds("shop.bills")
        command = ("replay", "billing", "--app", "app.py", "--from", "earliest", "--yes", "--keep", "--rate", str(RATE))
        for _ in range(3):
            replaying = await started(tmp_path, *command, stdout=asyncio.subprocess.DEVNULL)
            until = await passed(log) + chance.randrange(1, RECORDS // 5)
            while await passed(log) < until and replaying.returncode is None:
                await SystemClock().sleep(0.005)
            if replaying.returncode is None:
                os.kill(replaying.pid, signal.SIGKILL)
            await replaying.wait()
        found = await output(tmp_path, *command)
        assert (found["status"], found["outcomes"]["done"]) == ("done", RECORDS)
        assert (await output(tmp_path, "audit", SHADOW))[0]["balanced"]
        assert await totals(log, SHADOW) == await totals(log, "billing")
        assert await log.bounds("shop.bills") == bills, "a replay publishes nothing"
    finally:
        await log.close()
