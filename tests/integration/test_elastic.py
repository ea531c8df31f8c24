"""`postline run --workers MIN..MAX` as real processes: up with a backlog, down after it, and nothing lost by kills."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import ROOT, Service

APP = """
import asyncio
import os
import time
from pathlib import Path
from msgspec import Struct
from postline import App, Context, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=6)
bills = Topic("shop.bills", owner="shop", key="customer", partitions=6)

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    number: int

@bills.event("shop.Billed")
class Billed(Struct, frozen=True):
    customer: str
    number: int
    sum: int

app = App("shop", owns=[orders, bills])
billing = app.subscribe("billing", orders, start="earliest", concurrency=1, state=int)

@billing.on(OrderPlaced)
async def bill(order: OrderPlaced, ctx: Context) -> Billed:
    await asyncio.sleep(0.01)
    if Path(f"block-{os.getpid()}").exists():
        time.sleep(3600)  # the loop stands still: no signal is heard any more
    total = (ctx.state.get() or 0) + order.number
    ctx.state.put(total)
    return Billed(order.customer, order.number, total)
"""

CUSTOMERS = 100
_PATIENCE_SECONDS = 90.0

pytestmark = pytest.mark.timeout(400)


class Shop:
    """A directory with the app, its log, and what is typed there."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.published = 0
        (folder / "app.py").write_text(APP)

    async def _execute(self, *arguments: str, **streams: Any) -> asyncio.subprocess.Process:
        variables = {name: text for name, text in os.environ.items() if not name.startswith("POSTLINE_")}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postline", *arguments, "--url", self.url),
            cwd=self.folder,
            env={**variables, "PYTHONPATH": str(ROOT / "src"), "POSTLINE_NAMESPACE": self.namespace},
            **streams,
        )

    @property
    def namespace(self) -> str:
        """What keeps its topics apart from those of others on the cluster."""
        return self.folder.name

    async def publish(self, records: int) -> None:
        """So many orders, of all customers in turn, whose numbers rise."""
        lines = "".join(
            json.dumps({"customer": f"c{number % CUSTOMERS}", "number": number // CUSTOMERS}) + "\n"
            for number in range(self.published, self.published + records)
        )
        self.published += records
        process = await self._execute(
            *("publish", "shop.orders", "shop.OrderPlaced", "--app", "app"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(lines.encode())
        assert json.loads(out)["published"] == records

    async def asked(self, *arguments: str) -> Any:
        """What a command says as JSON lines."""
        process = await self._execute(*arguments, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        return [json.loads(line) for line in out.splitlines()]

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[Service]:
        """`postline run`, killed in the end if it still runs."""
        process = await self._execute("run", "app.py", *arguments, stderr=asyncio.subprocess.PIPE)
        service = Service(process)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                yield service
        except TimeoutError as error:
            raise AssertionError(service.said) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def handled(self, service: Service) -> None:
        """Wait until all that was published has been done, once, and the audit balances."""
        while True:
            assert service.process.returncode is None, service.said
            ((audit,),) = await self.asked("audit", "billing")
            if audit["outcomes"]["done"] >= self.published:
                assert audit["balanced"]
                assert audit["outcomes"]["done"] == self.published
                return

    async def prove(self) -> None:
        """Each order has one bill, in its customer's order, with the sum of all before it: none was handled twice."""
        bills = await self.asked("tail", "shop.bills", "--from", "earliest", "-n", "1000000")
        found = defaultdict[str, list[tuple[int, int]]](list)
        for bill in sorted(bills, key=lambda each: (each["partition"], each["offset"])):
            found[bill["key"]].append((bill["data"]["number"], bill["data"]["sum"]))
        each = self.published // CUSTOMERS
        right = [(number, number * (number + 1) // 2) for number in range(each)]
        assert Counter(map(len, found.values())) == {each: CUSTOMERS}
        assert all(seen == right for seen in found.values())


def pids_of(service: Service, worker: int) -> list[int]:
    """The processes that a worker was, one after another."""
    return [int(pid) for pid in re.findall(rf"worker {worker} started as (\d+)", service.said)]


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["sqlite", pytest.param("kafka-1", marks=pytest.mark.brokers)])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    folder = tmp_path / f"elastic-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    if request.param == "sqlite":
        return Shop(folder, "sqlite:///shop.db")
    return Shop(folder, f"{request.getfixturevalue('kafka_one').url}?create_topics=true&cache_dir={tmp_path}/cache")


@pytest.mark.slow
async def test_workers_come_with_a_backlog_and_go_after_it_and_kills_between_lose_and_double_nothing(
    shop: Shop,
) -> None:
    await shop.publish(4_000)
    # One worker handles up to a hundred a second.
    times = ("--drain-seconds", "8", "--cool-down-seconds", "2", "--grace", "2")
    async with shop.running("--workers", "1..3", *times) as service:
        await service.wait_for("workers 1 -> 3: ")
        await service.wait_for("shop: running", times=2)
        kill(pids_of(service, 1)[0])
        await service.wait_for("worker 1 was killed by SIGKILL; restarting in 0.1 s")
        await service.wait_for("worker 1 started", times=2)
        await shop.publish(2_000)
        await shop.handled(service)
        await service.wait_for("workers 3 -> 2: ")
        kill(pids_of(service, 2)[0])
        await service.wait_for("worker 2 left")
        await shop.publish(500)
        await service.wait_for("workers 2 -> 1: ")
        await service.wait_for("worker 1 left")
        await shop.handled(service)
        assert len(pids_of(service, 2)) == 1, "one that was to leave was started again"
        assert service.said.count("starting 1 worker\n") == 1
        assert await service.stop() == 0, service.said
    await shop.prove()


@pytest.mark.slow
@pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
async def test_a_worker_that_ignores_being_told_to_leave_is_killed_and_its_records_are_handled_by_others(
    shop: Shop,
) -> None:
    await shop.publish(1_000)
    times = ("--drain-seconds", "4", "--cool-down-seconds", "10", "--grace", "0.5")
    async with shop.running("--workers", "1..2", *times) as service:
        await service.wait_for("shop: running", times=2)
        await shop.handled(service)
        (shop.folder / f"block-{pids_of(service, 1)[0]}").touch()
        await shop.publish(100)
        await service.wait_for("has not turned")
        await service.wait_for("workers 2 -> 1: ")
        await service.wait_for("worker 1 does not stop; killing it")
        await service.wait_for("worker 1 left: it was killed by SIGKILL")
        await shop.handled(service)
        assert await service.stop() == 0, service.said
    await shop.prove()


@pytest.mark.slow
@pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
async def test_workers_end_although_they_hang_when_their_supervisor_is_killed(shop: Shop) -> None:
    await shop.publish(500)
    async with shop.running("--workers", "1..2", "--drain-seconds", "600", "--grace", "0.5") as service:
        await service.wait_for("shop: running")
        (worker,) = pids_of(service, 0)
        (shop.folder / f"block-{worker}").touch()
        await service.wait_for("has not turned")  # by the watch on its loop
        service.process.kill()
        # It holds the standard error of its supervisor: that ends when the worker has.
        await service.ended()
    assert "stopped: committed and left" not in service.said
