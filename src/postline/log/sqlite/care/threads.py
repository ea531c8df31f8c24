"""Long work on a connection, on a thread of its own, so that the loop goes on and a cancellation ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import apsw

__all__ = ["unhurried"]

T = TypeVar("T")


async def unhurried(connection: apsw.Connection | None, work: Callable[[], T]) -> T:
    """Run `work` on a thread; nothing else may use the connection meanwhile.

    Cancelled, it interrupts the connection's statement and waits until the thread has let go of it.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if connection is not None:
            connection.interrupt()
        await asyncio.wait([running])
        raise
