"""Workers and the redriving command killed with SIGKILL amidst redrives and edits: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postline.app import open_environment
from postline.clock import SystemClock
from postline.monitor import Monitor
from tests.conformance.apps import all_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CUSTOMERS, EDITED, KILLS = 300, 10, 4
SOURCE = str(Path(__file__).resolve().parents[2] / "src")
EDIT = ("--set", "total=7", "--reason", "a trial", "--keep", "--wait", "0")

APP = """
from pathlib import Path
from msgspec import Struct
from postline import App, Context, Retry, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=4)
receipts = Topic("shop.receipts", owner="shop", key="customer", partitions=4)

@orders.event("shop.Order")
class Order(Struct, frozen=True):
    customer: str
    number: int
    total: int

@receipts.event("shop.Receipt")
class Receipt(Struct, frozen=True):
    customer: str
    number: int
    total: int

app = App("shop", owns=[orders, receipts])
never = Retry(immediate=0, delays=())
packing = app.subscribe("packing", orders, start="earliest", after="hold", state=int, retry=never)

@packing.on(Order)
async def pack(order: Order, ctx: Context) -> Receipt:
    if order.number == 0 and not Path("mended").exists():
        raise LookupError("no box")
    ctx.state.put((ctx.state.get() or 0) + order.total)
    return Receipt(order.customer, order.number, order.total)
"""


class Trial:
    """A worker, an operator's commands, and what they leave in the file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/shop.db"
        (folder / "shop.py").write_text(APP)
        self._environment = open_environment(self.url)
        self.log = self._environment.log
        self.monitor = Monitor(self.log, SystemClock())

    async def __aenter__(self) -> Trial:
        await self.log.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.log.close()

    async def process(self, *arguments: str, given: bytes | None = None) -> asyncio.subprocess.Process:
        """`postline …` in the folder."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "postline", *arguments, "--url", self.url),
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": SOURCE},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(given or b"")
        process.stdin.close()
        return process

    async def done(self, *arguments: str, given: bytes | None = None) -> Any:
        """What a command says that nobody kills."""
        process = await self.process(*arguments, given=given)
        out, _ = await process.communicate()
        return process.returncode, out

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker, killed at the end."""
        process = await self.process("run", "shop.py")
        try:
            yield process
        finally:
            process.kill()
            await process.communicate()

    async def until(self, condition: Any) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(120):
            while not await condition():
                await SystemClock().sleep(0.01)

    async def receipts(self) -> list[dict[str, Any]]:
        """All that was done, partition by partition, each in order."""
        return [msgspec.json.decode(record[4] or b"") for _, record in await all_records(self.log, "shop.receipts")]

    async def counts(self) -> dict[str, int]:
        """The outcomes that are not 0, of an audit that balances."""
        audit = await self.monitor.audit("packing")
        assert audit.balanced, audit
        return {label: count for label, count in audit.outcomes.items() if count}

    async def begin(self) -> list[str]:
        """Two orders of each customer, the first a dead letter that holds the other; gives the letters' ids."""
        lines = [{"customer": f"c{n}", "number": number, "total": 1} for number in (0, 1) for n in range(CUSTOMERS)]
        given = b"\n".join(map(msgspec.json.encode, lines))
        code, _ = await self.done("publish", "shop.orders", "shop.Order", "--app", "shop.py", given=given)
        assert code == 0
        async with self.worker():

            async def all_dead() -> bool:
                names = [each.name for each in await self.log.subscriptions()]
                return "packing" in names and await self.counts() == {"dead-lettered": CUSTOMERS, "held": CUSTOMERS}

            await self.until(all_dead)
        return [each.id for each in await self.monitor.dead_letters("packing")]

    async def edit(self, ids: list[str]) -> None:
        """Edit letters while the worker is killed over and over; each edit is asked for once."""
        for first in range(0, len(ids), 4):
            async with self.worker():
                edits = [
                    self.done(
                        "dlq",
                        "edit",
                        "packing",
                        each,
                        "--set",
                        "total=7",
                        "--reason",
                        "a trial",
                        "--keep",
                        "--wait",
                        "0",
                    )
                    for each in ids[first : first + 4]
                ]
                assert [code for code, _ in await asyncio.gather(*edits)] == [0] * len(edits)

    async def redrive(self) -> None:
        """Redrive all at a rate; the command and the worker are killed in turn, as often as they get somewhere."""
        for kill in range(KILLS):
            before = len(await self.receipts())

            async def has_moved(before: int = before) -> bool:
                return len(await self.receipts()) >= before + CUSTOMERS // (KILLS + 2)

            async with self.worker():
                command = await self.process("dlq", "redrive", "packing", "--all", "--run", "trial", "--rate", "200")
                await self.until(has_moved)
                if kill % 2:
                    command.kill()
                else:
                    command.terminate()
                await command.communicate()


async def test_kills_amidst_redrives_and_edits_lose_and_double_nothing(tmp_path: Path) -> None:
    async with Trial(tmp_path) as trial:
        ids = await trial.begin()
        assert len(ids) == CUSTOMERS
        await trial.edit(ids[:EDITED])
        (tmp_path / "mended").touch()
        await trial.redrive()
        async with trial.worker():
            code, _ = await trial.done("dlq", "redrive", "packing", "--all", "--run", "trial")
            assert code in (0, 1)  # 1 if nothing is left to ask for

            async def all_done() -> bool:
                return await trial.counts() == {"done": CUSTOMERS * 2}

            await trial.until(all_done)
        numbers: dict[str, list[int]] = defaultdict(list)
        for receipt in (receipts := await trial.receipts()):
            numbers[receipt["customer"]].append(receipt["number"])
        assert numbers == {f"c{n}": [0, 1] for n in range(CUSTOMERS)}
        assert sum(receipt["total"] == 7 for receipt in receipts) == EDITED
        assert sum(receipt["total"] for receipt in receipts) == CUSTOMERS * 2 + EDITED * 6
