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

if notes_left := int(os.environ.get("DIES_AFTER_NOTES", "0")):
    from postline.commands.first_notes import FirstNotes

    first = FirstNotes.first

    async def first_and_last(*asked):
        global notes_left
        noted, notes_left = await first(*asked), notes_left - 1
        if not notes_left:
            os.kill(os.getpid(), signal.SIGKILL)
        return noted

    FirstNotes.first = first_and_last
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
