"""A flood of submissions: accepted durably at once, handled at the pace of the backend, which takes 500 a second.

Who votes needs an acknowledgement, not the count. Run the service, then the flood, and look on:

    postline run flood.py
    python flood.py 100000
    postline lag --watch

With BOUND=5000 in the environment of both, the counting may lag by so many votes: the flood is slowed instead, and
says so.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from postline import App, BackPressure, Bound, Context, Topic

_BOUND = os.environ.get("BOUND")
_SUBMITTERS = 100

votes = Topic(
    "polls.votes",
    owner="polls",
    key="voter",
    bound=Bound(records=int(_BOUND), subscriptions=("counting",), wait_seconds=1.0) if _BOUND else None,
)


@votes.event("polls.VoteCast")
class VoteCast(Struct, frozen=True):
    voter: str
    choice: str


class Backend:
    """Stands for an old system that takes ten calls at a time, of a fiftieth of a second each."""

    def __init__(self, call_seconds: float) -> None:
        self.call_seconds = call_seconds

    async def count(self, vote: VoteCast) -> None:
        await asyncio.sleep(self.call_seconds)


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[Backend]:
    yield Backend(float(os.environ.get("CALL_SECONDS", "0.02")))


app = App("polls", owns=[votes], lifespan=lifespan)
# Ten at a time in this process: what more there is waits in the log, not in memory.
counting = app.subscribe("counting", votes, start="earliest", concurrency=10, in_flight_records_max=1_000)


@counting.on(VoteCast)
async def count(vote: VoteCast, ctx: Context[Backend]) -> None:
    await ctx.resources.count(vote)


class Flood(Struct):
    """How a flood went."""

    accepted: int = 0
    #: How often somebody was asked to come back later.
    refused: int = 0


async def submit(sender: App, number: int) -> Flood:
    """Cast so many votes, a hundred at a time; each is durable when it is acknowledged."""
    flood, numbers = Flood(), iter(range(number))

    async def one_after_another() -> None:
        for each in numbers:
            vote = VoteCast(f"voter-{each}", "yes" if each % 3 else "no")
            while True:
                try:
                    await sender.publish(vote)
                    break
                except BackPressure as full:  # nothing was stored, and it says when there will be room
                    flood.refused += 1
                    await asyncio.sleep(full.retry_after_seconds)
            flood.accepted += 1

    await asyncio.gather(*(one_after_another() for _ in range(_SUBMITTERS)))
    return flood


async def main(number: int) -> None:
    sender = App("voters", publishes_to=[votes])
    await sender.start(consume=False)
    try:
        began = time.monotonic()
        flood = await submit(sender, number)
        seconds = time.monotonic() - began
        print(f"{flood.accepted} votes accepted in {seconds:.1f} s; refused, and sent again, {flood.refused} times")
    finally:
        await sender.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000))
