"""The shop: publishes the lines of its tills' files, and goes on where it stood when it was killed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from postline import App
from postline.clock import Clock
from postline.demo.contracts import LineRead, ReceiptClosed, lines
from postline.demo.files import FileLine, read_files
from postline.demo.parsing import UnreadableLine, split_line
from postline.errors import LogUnavailable

__all__ = ["Allowance", "Cursor", "app", "publish_files"]

app = App("shop", owns=[lines])

_log = logging.getLogger("postline.demo")

_AGAIN_SECONDS = 1.0
_BATCH = 1_000
_KEY_CHARACTERS_MAX = 64
_LOOK_SECONDS = 0.02


class Cursor:
    """How many lines are known to be published, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        """The number of the last line known to be published; 0 at first."""
        return int(self._path.read_text()) if self._path.exists() else 0

    def write(self, number: int) -> None:
        """Remember `number`; whoever reads sees the old value or the new one."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(str(number))
        fresh.replace(self._path)


class Allowance(Cursor):
    """How many lines the supervisor lets the shop publish by now, so that kills find work going on."""


async def publish_files(directory: Path, cursor: Cursor, allowance: Allowance, clock: Clock) -> None:
    """Publish every line of the files, and a closing wherever the till goes on to another invoice.

    Each message has an own id, and the cursor moves after its batch is durable: what a killed
    shop had published beyond the cursor is published again, and every subscription drops it.
    """
    source = read_files(directory)
    done = cursor.read()
    last = next(islice(source, done - 1, None)) if done else None
    for first in source:
        chunk = [first, *islice(source, await _allowed(allowance, done, clock) - 1)]
        await _publish(list(_messages(last, chunk)), clock)
        last = chunk[-1]
        done = last.number
        cursor.write(done)
    if last is not None:
        closing = _closing(last)
        await _publish([closing], clock)


async def _publish(messages: list[LineRead | ReceiptClosed], clock: Clock) -> None:
    """Publish, and again with the same ids while the log is away: every subscription drops what it has already."""
    while True:
        try:
            await app.publish_many(messages, id_of=_own_id)
            return
        except LogUnavailable as error:
            _log.warning("published again: %s", error)
            await clock.sleep(_AGAIN_SECONDS)


async def _allowed(allowance: Allowance, done: int, clock: Clock) -> int:
    """How many lines may be published now; waits until it is at least one."""
    while allowance.read() <= done:
        await clock.sleep(_LOOK_SECONDS)
    return min(_BATCH, allowance.read() - done)


def _messages(before: FileLine | None, chunk: list[FileLine]) -> Iterator[LineRead | ReceiptClosed]:
    for line in chunk:
        if before is not None and _invoice(before) != _invoice(line):
            yield _closing(before)
        yield LineRead(_invoice(line), line.text, line.number, line.file, line.line)
        before = line


def _closing(last: FileLine) -> ReceiptClosed:
    return ReceiptClosed(_invoice(last), last.number)


def _invoice(line: FileLine) -> str:
    """What keeps lines together: the invoice's number, as far as the line has one."""
    try:
        first = split_line(line.text)[0]
    except UnreadableLine:
        first = ""
    return first[:_KEY_CHARACTERS_MAX] or "no invoice"


def _own_id(message: LineRead | ReceiptClosed) -> str:
    return f"line-{message.number}" if isinstance(message, LineRead) else f"closed-{message.after_line}"
