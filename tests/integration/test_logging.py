"""`postline run` as JSON: every line of standard error is an object, from the start to the end."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import ROOT, publisher

APP = """
import asyncio
import logging
import threading
import warnings

from msgspec import Struct
from postline import App, Retry, Topic
from postline.contracts import Sensitive

log = logging.getLogger("shop.own")

orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)

@orders.event("shop.Order")
class Order(Struct, frozen=True):
    customer: str
    card: Sensitive[str]
    total: int = 0

app = App("shop", owns=[orders])
billing = app.subscribe("billing", orders, start="earliest", retry=Retry(immediate=0, delays=(0.05,), jitter=0))

def broken():
    raise KeyError("in a thread")

@billing.on(Order)
async def bill(order: Order) -> None:
    log.info("billing %s\\nwith %s", order.total, order.card)
    if order.customer == "poison":
        try:
            raise ValueError(order.card)
        except ValueError as error:
            raise RuntimeError("no") from error
    if order.customer == "warns":
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=broken)
        thread.start()
        thread.join()
    if order.customer == "floods":
        for n in range(200):
            logging.getLogger("flood").info("line %d of https://u:pw@host/", n)
"""


class Told:
    """A `postline run` process and the objects that it wrote."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(json.loads(line))

    def of(self, **wanted: Any) -> list[dict[str, Any]]:
        return [each for each in self.lines if wanted.items() <= each.items()]

    async def wait_for(self, **wanted: Any) -> list[dict[str, Any]]:
        while not (found := self.of(**wanted)):
            assert not self.reading.done(), self.lines
            await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def running(folder: Path, *options: str, app: str = APP, **variables: str) -> AsyncIterator[Told]:
    (folder / "app.py").write_text(app)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "default", "-m", "postline", "run", "app.py", "--url", "sqlite:///shop.db", *options),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables},
        stderr=asyncio.subprocess.PIPE,
    )
    told = Told(process)
    try:
        yield told
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await told.reading


@functools.cache
def shop() -> types.ModuleType:
    """The service's module, for its contract."""
    module = types.ModuleType("logging_shop")
    sys.modules[module.__name__] = module  # where the types of its fields are looked up
    exec(APP, vars(module))
    return module


async def publish(folder: Path, customer: str) -> None:
    async with publisher(f"sqlite:///{folder}/shop.db", [shop().orders]) as outside:
        await outside.publish(shop().Order(customer, "4000-1234"))


async def stopped(told: Told) -> int:
    told.process.send_signal(signal.SIGTERM)
    code = await told.process.wait()
    await told.reading
    return code


async def test_every_line_is_an_object_and_tells_the_life_of_the_service(tmp_path: Path) -> None:
    async with running(tmp_path, POSTLINE_LOG_FORMAT="json") as told:
        await told.wait_for(event="partitions.assigned")
        await publish(tmp_path, "anna")
        (line,) = await told.wait_for(logger="shop.own")
        await publish(tmp_path, "poison")
        await told.wait_for(event="record.dead_lettered")
        await publish(tmp_path, "warns")
        await told.wait_for(event="process.uncaught")
        assert await stopped(told) == 0
    assert (line["subscription"], line["key"], line["handler"], line["attempt"]) == ("billing", "anna", "bill", 1)
    assert line["message"] == "billing 0\nwith ***"
    assert line["correlation_id"]
    assert "4000-1234" not in json.dumps(told.lines)
    events = [each["event"] for each in told.lines if "event" in each]
    life = ["subscription.joined", "app.started", "record.held", "record.dead_lettered", "app.stopping", "app.stopped"]
    assert [each for each in events if each in life] == life
    assert any("old" in each["message"] for each in told.of(logger="py.warnings"))
    (uncaught,) = told.of(event="process.uncaught")
    assert uncaught["error"]["type"] == "KeyError"
    assert len([each for each in told.lines if each["logger"].startswith("postline")]) < 25


async def test_a_flood_is_sampled_and_counted_and_its_secrets_are_masked(tmp_path: Path) -> None:
    async with running(tmp_path, "--log-format", "json", "--log-sample", "5/s") as told:
        await told.wait_for(event="partitions.assigned")
        await publish(tmp_path, "floods")
        await told.wait_for(logger="flood")
        assert await stopped(told) == 0
    suppressed = sum(each["suppressed"] for each in told.of(logger="flood", event="log.suppressed"))
    passed = [each for each in told.of(logger="flood") if "event" not in each]
    assert len(passed) + suppressed == 200
    assert suppressed > 0
    assert "pw" not in json.dumps(passed)
    assert passed[0]["key"] == "floods"


async def test_workers_and_their_supervisor_write_the_same_way(tmp_path: Path) -> None:
    async with running(tmp_path, "--log-format", "json", "--workers", "2") as told:
        while len(told.of(event="app.started")) < 2:
            await asyncio.sleep(0.01)
        assert await stopped(told) == 0
    assert len({each["process"] for each in told.lines}) == 3


@pytest.mark.parametrize("fault", ["raise OSError('broken at import')", "app = App('shop', owns=[], publishes_to=[1])"])
async def test_what_ends_the_start_is_an_object_too(tmp_path: Path, fault: str) -> None:
    app = f"from postline import App\n{fault}\n"
    async with running(tmp_path, "--log-format", "json", app=app) as told:
        assert await told.process.wait() > 0
        await told.reading
    assert told.lines[-1]["event"] == "process.failed"
    assert told.lines[-1]["level"] == "error"
