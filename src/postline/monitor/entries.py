"""Entries of partition state whose keys are offsets, read from outside, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

from postline.log.port import Log
from postline.runtime.entries import offset_of

__all__ = ["entries_of"]


async def entries_of(log: Log, name: str, partition: int, namespace: str) -> AsyncIterator[tuple[int, bytes]]:
    """A partition's entries of a namespace whose keys are offsets, in their order; a page at a time."""
    after = b""
    while page := await log.peek_state(name, partition, namespace, after=after):
        for key, data in page:
            yield offset_of(key), data
        after = page[-1][0]
