"""Small logs for the tests of the embedded engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from postline.clock import Clock, VirtualClock
from postline.log.port import Append, Assignment, PartitionCommit, TopicSpec
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings, Storage
from postline.message import Envelope

#: No timer starts upkeep; tests that want it say so. No reserve, to save the disk the work.
QUIET = Settings(upkeep_seconds=0, reserve_bytes=0, lock_seconds=5.0)


@asynccontextmanager
async def opened(
    path: Path | None = None, *, clock: Clock | None = None, settings: Settings = QUIET
) -> AsyncIterator[SqliteLog]:
    """A started log with the two-partition topic "orders"."""
    log = SqliteLog(None if path is None else str(path), clock=clock or VirtualClock(), settings=settings)
    await log.start()
    try:
        await log.create_topic(TopicSpec(name="orders", partitions=2, owner="shop"))
        yield log
    finally:
        await log.close()


@asynccontextmanager
async def stored(
    path: Path | None = None, *, clock: Clock | None = None, settings: Settings = QUIET
) -> AsyncIterator[Storage]:
    """The storage alone, with an empty topic "orders" of two partitions and subscription 1 on it."""
    async with opened(path, clock=clock, settings=settings) as log:
        storage = log.storage
        await subscribe(storage)
        yield storage


async def subscribe(storage: Storage) -> None:
    """Make subscription 1 on "orders", its partitions under epoch 1, as a membership would."""

    def rows(connection: object) -> None:
        execute = storage.writer.connection.execute
        execute(
            "INSERT INTO subscriptions (id, name, topic_id, service, created_ms) VALUES (1, 'billing', 1, 'shop', 0)"
        )
        for partition in range(2):
            execute(
                "INSERT INTO assignments (subscription_id, partition, position, epoch) VALUES (1, ?, 0, 1)",
                (partition,),
            )

    await storage.writer.submit(rows)


def record(number: int, *, partition: int = 0, key: bytes | None = None, value: bytes | None = b"{}") -> Append:
    """A record of "orders" with a recognisable id."""
    envelope = Envelope(id=f"{number:032x}", source="shop", type="shop.OrderPlaced", time_ms=number)
    return Append("orders", partition, key, value, envelope)


def owned(partition: int = 0, epoch: int = 1) -> Assignment:
    """An assignment of subscription 1."""
    return Assignment("billing", "orders", partition, epoch, 0, b"")


def change(
    assignment: Assignment, position: int = 0, *, puts: Sequence[tuple[str, bytes, bytes]] = (), **others: object
) -> PartitionCommit:
    """A partition's part of a commit unit."""
    return PartitionCommit(assignment, position, b"progress", puts=list(puts), **others)  # type: ignore[arg-type]
