"""Giving the free pages back to the disk, in steps between which services write."""

from __future__ import annotations

from collections.abc import Callable

import apsw
import msgspec

from postline.log.sqlite.connection import fetch, translated
from postline.log.sqlite.storage import Storage
from postline.log.sqlite.upkeep import give_back_step

__all__ = ["Vacuumed", "vacuum"]


class Vacuumed(msgspec.Struct, frozen=True, kw_only=True):
    """What a vacuum did."""

    pages_given_back: int
    pages_free: int
    bytes_before: int
    bytes_after: int
    #: The longest that one step kept others from writing; each moves at most a hundred pages.
    longest_step_seconds: float


async def vacuum(storage: Storage, report: Callable[[int, int], None]) -> Vacuumed:
    """Give back the pages that are free now. `report` gets how many are given back, and of how many.

    Cancelled between two steps, or killed, it leaves a whole log; another call goes on. Raises what the log raises.
    """
    before, page_size = _pages(storage), _pragma(storage, "page_size")
    total = free = _pragma(storage, "freelist_count")
    longest = 0.0
    given = 0
    # Services may free pages all the while: those are the next vacuum's.
    while free and given < total:
        took = await storage.writer.submit_alone(lambda connection: _timed_step(connection, storage))
        longest = max(longest, took)
        given = before - _pages(storage)
        free = _pragma(storage, "freelist_count")
        report(min(given, total), total)
        # As long as it has had the lock, others have it now.
        await storage.clock.sleep(took)
    # The file shrinks when its WAL is taken over.
    await storage.writer.submit_alone(lambda connection: connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE))
    return Vacuumed(
        pages_given_back=before - _pages(storage),
        pages_free=_pragma(storage, "freelist_count"),
        bytes_before=before * page_size,
        bytes_after=_pages(storage) * page_size,
        longest_step_seconds=longest,
    )


def _timed_step(connection: apsw.Connection, storage: Storage) -> float:
    """One transaction of its own under the write lock; gives its seconds, the commit's fsync among them."""
    begun = storage.clock.monotonic()
    with connection:
        give_back_step(connection)
    return storage.clock.monotonic() - begun


def _pages(storage: Storage) -> int:
    return _pragma(storage, "page_count")


def _pragma(storage: Storage, name: str) -> int:
    with translated(storage.address):
        return int(fetch(storage.reader.connection, f"PRAGMA {name}")[0][0])
