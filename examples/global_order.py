"""One order over everything: a topic with one partition, handled record by record as a journal must be.

Run it: `postline run global_order.py`
"""

from __future__ import annotations

from msgspec import Struct

from postline import App, Context, Topic

transfers = Topic("ledger.transfers", owner="ledger", key="account", partitions=1)
journal = Topic("ledger.journal", owner="ledger", partitions=1)


@transfers.event("ledger.Transferred")
class Transferred(Struct, frozen=True):
    account: str
    cents: int


@journal.event("ledger.JournalLine")
class JournalLine(Struct, frozen=True):
    number: int
    account: str
    cents: int


app = App("ledger", owns=[transfers, journal])
# One partition and order="partition": the next record waits for the one before it, whatever their keys; when one is
# given up, all wait until someone redrives or discards it.
journalling = app.subscribe("journalling", transfers, start="earliest", order="partition")


@journalling.on(Transferred)
async def write(transfer: Transferred, ctx: Context) -> JournalLine:
    return JournalLine(ctx.offset, transfer.account, transfer.cents)
