"""Lines of standard input as they come: in batches where there are many, at once where there are few."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import NamedTuple

__all__ = ["Line", "read_lines"]

_CHUNK_BYTES = 1 << 16
_LINES_MAX = 1_000


class Line(NamedTuple):
    """A line that isn't blank, and its number from 1."""

    number: int
    text: bytes


async def read_lines(descriptor: int) -> AsyncIterator[list[Line]]:
    """The lines of a file descriptor, at most 1,000 at a time, none of them blank, until it ends.

    What has arrived is given at once. A thread reads, so that a slow source stalls nothing.
    """
    chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)
    loop = asyncio.get_running_loop()

    def read() -> None:
        # Not through sys.stdin: a daemon thread inside its buffer would hold up the interpreter's end.
        chunk = b"?"
        while chunk:
            chunk = os.read(descriptor, _CHUNK_BYTES)
            try:
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()
            except (CancelledError, RuntimeError):
                return  # the loop has ended

    threading.Thread(target=read, name="standard input", daemon=True).start()
    rest, count = b"", 0
    while chunk := await chunks.get():
        *complete, rest = (rest + chunk).split(b"\n")
        for first in range(0, len(complete), _LINES_MAX):
            some = complete[first : first + _LINES_MAX]
            if lines := _numbered(some, count):
                yield lines
            count += len(some)
    if lines := _numbered([rest], count):
        yield lines


def _numbered(texts: list[bytes], before: int) -> list[Line]:
    return [Line(before + index, text.strip()) for index, text in enumerate(texts, 1) if text.strip()]
