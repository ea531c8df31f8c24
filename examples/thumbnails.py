"""A work queue: uploads are scaled down by workers that compete for them, in processes of their own.

Run as many workers as you like: `postline run thumbnails.py --workers 2`; then, from another shell,
`python thumbnails.py cat.jpg dog.jpg` and `postline tasks`.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from msgspec import Struct

from postline import App, Context, Retry

app = App("photos")

# A queue with a policy; one that a task only names has the usual one.
pictures = app.queue("pictures", concurrency=8, results_kept=timedelta(days=1))


class Thumbnail(Struct, frozen=True):
    """What scaling gives: any type that msgspec can write."""

    path: str
    width: int


@app.task(queue=pictures, retry=Retry(immediate=1, delays=(10, 60)), timeout=30, isolation="process")
def scale(path: str, *, width: int = 80) -> Thumbnail:
    """Plain functions may compute for long: a child process is killed at the limit."""
    if not path:
        raise ValueError("no picture")
    return Thumbnail(f"{path}@{width}", width)


@app.task(unique=timedelta(hours=1), unique_by=lambda path, *, by: path)
async def publish(ctx: Context, path: str, *, by: str) -> int:
    """A handler or task sends others by `ctx.send`, which leaves with its own settlement or not at all."""
    for width in (80, 320):
        ctx.send(scale.message(path, width=width))
    return 2


async def upload(paths: list[str]) -> list[Thumbnail]:
    """Send a call for each picture, then wait for all results."""
    tickets = await scale.send_many(scale.message(path) for path in paths)
    return [await ticket.result(timeout=60) for ticket in tickets]


async def main() -> None:
    """Send from a process that handles nothing."""
    await app.start(consume=False)
    try:
        for thumbnail in await upload(sys.argv[1:]):
            print(thumbnail.path)
    finally:
        await app.stop()


if __name__ == "__main__":
    asyncio.run(main())
