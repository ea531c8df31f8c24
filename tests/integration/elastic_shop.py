"""A small shop under `postline run --workers MIN..MAX`: as real processes, with what is typed there, and the proof."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.integration.processes import ROOT, Service

__all__ = ["Shop", "kill", "pids_of"]

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
    async def running(self, *arguments: str, patience_seconds: float = _PATIENCE_SECONDS) -> AsyncIterator[Service]:
        """`postline run`, killed in the end if it still runs."""
        process = await self._execute("run", "app.py", *arguments, stderr=asyncio.subprocess.PIPE)
        service = Service(process)
        try:
            async with asyncio.timeout(patience_seconds):
                yield service
        except TimeoutError as error:
            raise AssertionError(service.said) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def done(self, service: Service, at_least: int) -> int:
        """Wait until so many records have been done, and give how many that are; the audit balances."""
        while True:
            assert service.process.returncode is None, service.said
            ((audit,),) = await self.asked("audit", "billing")
            if audit["outcomes"]["done"] >= at_least:
                assert audit["balanced"]
                return int(audit["outcomes"]["done"])

    async def handled(self, service: Service) -> None:
        """Wait until all that was published has been done, once, and the audit balances."""
        assert await self.done(service, self.published) == self.published

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
