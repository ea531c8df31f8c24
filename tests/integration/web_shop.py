"""A project with a service and its gateway, and `postline serve` in processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.processes import ROOT

__all__ = ["PAY", "SHOP", "process_of", "serving"]

SHOP = """
import asyncio
import os
import signal

from msgspec import Struct
from postline import App, CommandTopic, Context, Topic
from postline.http.addresses import Addresses
from postline.http.gateway import gateway
from postline.http.notifications import Webhooks, notifications
from postline.http.receiver import receiver

ledger = CommandTopic("ledger", owner="ledger", key="source")


@ledger.command("ledger.Transfer")
class Transfer(Struct, frozen=True):
    source: str
    amount: int


balances = Topic("ledger.balances", owner="ledger", key="source")


@balances.event("ledger.BalanceChanged")
class BalanceChanged(Struct, frozen=True):
    source: str
    balance: int


service = App("ledger", owns=[ledger, balances])
served = service.serve(ledger, state=int)


@served.on(Transfer)
async def transfer(command: Transfer, ctx: Context) -> None:
    balance = (ctx.state.get() or 0) + command.amount
    ctx.state.put(balance)
    ctx.publish(BalanceChanged(command.source, balance))


app = App("shop", publishes_to=[ledger])
web = gateway(app, authenticate=lambda request: request.headers.get("x-user"))

tills = App("tills", publishes_to=[balances])
events = receiver(tills, path="/events/{topic}")
here = Addresses(allow=["127.0.0.1"], plain_http=True)
news = notifications(tills, streams=[balances], webhooks=Webhooks(topics=[balances], addresses=here))

if os.environ.get("DIES_UNANSWERED"):
    from postline.app.relays import Relay

    store = Relay.store

    async def dying(*asked):
        await store(*asked)
        os.kill(os.getpid(), signal.SIGKILL)

    Relay.store = dying

if os.environ.get("MEETS"):  # nobody notes a key before the other gateway is about to, or does not come
    from pathlib import Path

    from postline.commands.first_notes import FirstNotes

    first, notes_left = FirstNotes.first, int(os.environ["DIES_AFTER_NOTES"])
    met = Path("met")
    met.mkdir(exist_ok=True)

    async def first_of_both(notes, request_id, *noted):
        global notes_left
        (met / f"{request_id} {os.environ['POSTLINE_INSTANCE']}").touch()
        for _ in range(20):
            if len(list(met.glob(f"{request_id} *"))) == 2:
                break
            await asyncio.sleep(0.01)
        found, notes_left = await first(notes, request_id, *noted), notes_left - 1
        if not notes_left:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    FirstNotes.first = first_of_both
"""

PAY = {"source": "anna", "amount": 1}


async def process_of(folder: Path, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """`postline` with these arguments."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postline", *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def serving(
    folder: Path, *arguments: str, port: int = 0, **environment: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`postline serve`, and where it listens; killed at the end if it still runs."""
    process = await process_of(folder, "serve", *arguments, "--port", str(port), **environment)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = (await process.stdout.readline()).decode().strip()
        assert line.startswith("http://"), (await process.stderr.read()).decode()
        yield process, line
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
