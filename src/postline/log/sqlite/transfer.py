"""`SqliteTransfer`: the file as a migration reads, fills, freezes and marks it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import apsw
import msgspec

from postline.contracts.frame import guid_behind
from postline.errors import TopicMismatch, UsageError
from postline.log.needs import TopicSpec
from postline.log.port import SCHEMA_ID_SHIFT, Bounds, Record
from postline.log.sqlite import marking
from postline.log.sqlite.appending import OFFSET_BITS, insert_rows
from postline.log.sqlite.connection import fetch, translated
from postline.log.sqlite.membership import dead_members
from postline.log.sqlite.packing import pack, unpack
from postline.log.sqlite.rundir import run_directory
from postline.log.sqlite.state import apply_changes
from postline.log.sqlite.statements import statements
from postline.log.sqlite.storage import Storage
from postline.log.sqlite.topics import alter_topic, create_topic
from postline.log.sqlite.upkeep import remove_state
from postline.log.transfer import (
    Batch,
    Mark,
    MovedPartition,
    MovedSubscription,
    StateRow,
    already_migrating,
    differs,
)
from postline.message import Envelope

__all__ = ["SqliteTransfer"]

T = TypeVar("T")

_FORM = "sqlite"
_PAGE_RECORDS, _PAGE_BYTES = 2_000, 4 << 20
_STATE_PAGE = 1_000
_REMOVED_AT_ONCE = 2_000
_FLAG_BITS = (1 << SCHEMA_ID_SHIFT) - 1


class SqliteTransfer:
    """The file at either end of a migration (transfer.Transfer)."""

    form = _FORM

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.address = storage.address if storage.path is None else f"sqlite:///{os.path.abspath(storage.address)}"

    # -- at both ends ---------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Keep other migrations from this file meanwhile. Raises UsageError if there is one at work."""
        if self._storage.path is None:
            yield
            return
        descriptor = os.open(
            run_directory(self._storage.path) / "migration.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise already_migrating(self.address) from error
        finally:
            os.close(descriptor)

    async def mark(self) -> Mark | None:
        """What a migration has written on the log."""
        with translated(self._storage.address):
            return marking.read_mark(self._reading, self.address)

    async def set_mark(self, mark: Mark | None) -> None:
        """Write it, durably, or remove it."""
        await self._submit(lambda connection: marking.write_mark(connection, mark))

    async def topics(self) -> list[TopicSpec]:
        """All topics, by name."""
        with translated(self._storage.address):
            return self._storage.reader.topics()

    async def bounds(self, topic: str) -> list[Bounds]:
        """First and next offset of each partition. Raises UnknownTopic."""
        with translated(self._storage.address):
            return self._storage.reader.bounds(topic)

    async def records(self, topic: str, partition: int, start: int, end: int) -> AsyncIterator[list[Record]]:
        """All records from offset `start` to before `end`, in order, a page at a time."""
        while start < end:
            with translated(self._storage.address):
                page = self._storage.reader.read(topic, partition, start, _PAGE_RECORDS, _PAGE_BYTES)
            if not page or page[0][0] >= end:
                return
            start = page[-1][0] + 1
            yield page if start <= end else [record for record in page if record[0] < end]
            await asyncio.sleep(0)

    def envelope(self, record: Record) -> Envelope:
        """The envelope of one of these records. Raises DecodeError."""
        return unpack(record[3], record[6])

    async def subscriptions(self) -> list[MovedSubscription]:
        """All subscriptions, by name, as last committed."""
        with translated(self._storage.address):
            return [self._subscription(row) for row in self._read("subscriptions")]

    def _subscription(self, row: Sequence[Any]) -> MovedSubscription:
        found, name, topic, service, created_ms = row
        positions = [
            MovedPartition(position=position, progress=progress, epoch=epoch)
            for position, progress, epoch in self._read("positions", (found,))
        ]
        former = [each for (each,) in self._read("former_names", (found,))]
        return MovedSubscription(
            name=name, topic=topic, service=service, created_ms=created_ms, former=former, partitions=positions
        )

    async def state(self, subscription: MovedSubscription, partition: int) -> AsyncIterator[list[StateRow]]:
        """All entries of a partition's state, by namespace and key."""
        found = self._id_of(subscription.name)
        place: tuple[str, bytes] = ("", b"")
        while True:
            with translated(self._storage.address):
                page: list[StateRow] = self._read("state_after", (found, partition, *place, _STATE_PAGE))
            if not page:
                return
            place = page[-1][:2]
            yield page
            await asyncio.sleep(0)

    # -- at the source --------------------------------------------------------------------------

    async def freeze(self, mark: Mark) -> None:
        """Refuse everything that would change the log's content, and write the mark. Raises UsageError."""
        names = [row[1] for row in self._read("subscriptions")]
        dead = frozenset[str]().union(*(dead_members(self._storage, name) for name in names))
        await self._submit(lambda connection: marking.freeze(connection, mark, dead))

    async def thaw(self) -> None:
        """Take `freeze` and its mark back."""
        await self._submit(marking.thaw)

    # -- at the target --------------------------------------------------------------------------

    async def prepare(self, specs: Sequence[TopicSpec]) -> None:
        """Have these topics, without retention and compaction for now. Raises TopicMismatch."""
        for spec in specs:
            unlimited = msgspec.structs.replace(spec, retention_ms=None, retention_bytes=None, compacted=False)

            def make(connection: apsw.Connection, spec: TopicSpec = unlimited) -> None:
                create_topic(connection, spec)
                alter_topic(connection, spec)

            await self._submit(make)

    async def begin(self, topic: str, partition: int, start: int) -> None:
        """Have an empty partition begin at this offset; nothing happens to one that is not empty."""
        place = self._storage.reader.partition_id(topic, partition)
        await self._submit_offsets(lambda connection: self._execute(connection, "begin", (place, start)))

    async def restore(self, batch: Batch) -> None:
        """Write the records, durably, at exactly their offsets. Raises TopicMismatch, LogFull."""
        place = self._storage.reader.partition_id(batch.topic, batch.partition)
        rows, last_ms = _rows(batch, place << OFFSET_BITS)

        def write(connection: apsw.Connection) -> None:
            there = fetch(connection, statements("queries")["head"], (place,))[0][0]
            if there != batch.first:
                raise TopicMismatch(
                    differs(batch.topic, batch.partition, batch.first, there),
                    remedy="`postline migrate … --abandon` empties it again.",
                )
            insert_rows(connection, rows)
            self._execute(connection, "reach", (place, batch.end, last_ms))

        await self._submit_offsets(write)

    async def trim(self, topic: str, partition: int, start: int) -> None:
        """Drop the records before this offset."""
        place = self._storage.reader.partition_id(topic, partition)
        first = self._storage.reader.bounds(topic)[partition].start
        while first < start:
            first = min(first + _REMOVED_AT_ONCE, start)
            await self._submit(lambda connection, first=first: _cut(connection, place, first))  # type: ignore[misc]

    async def settle(self, spec: TopicSpec) -> None:
        """Give the topic its own retention and compaction."""
        await self._submit(lambda connection: alter_topic(connection, spec))

    async def restore_state(self, subscription: MovedSubscription, partition: int, rows: Sequence[StateRow]) -> None:
        """Write entries of state; those that are there stay."""
        found = self._id_of(subscription.name)
        await self._submit(
            lambda connection: apply_changes(connection, found, partition, (), rows, ()),
            appends=True,
        )

    async def restore_spared(self, subscription: MovedSubscription, partition: int, batch: Batch) -> None:
        """Keep these held or dead-lettered records readable where the topic itself doesn't have them."""
        del subscription
        place = self._storage.reader.partition_id(batch.topic, batch.partition)
        rows, _ = _rows(batch, place << OFFSET_BITS)
        width = len(rows) // max(1, len(batch.records))

        def keep(connection: apsw.Connection) -> None:
            for start in range(0, len(rows), width):
                connection.execute(statements("transfer")["keep"], rows[start : start + width])
                if connection.changes():
                    connection.execute(statements("upkeep")["spare"], (rows[start],))

        await self._submit(keep, appends=True)

    async def clear_subscription(self, subscription: MovedSubscription) -> None:
        """Have the subscription with no position and no state, whatever an earlier attempt left."""
        await self._remove_subscription(subscription.name)

        def make(connection: apsw.Connection) -> None:
            sql = statements("groups")
            topic_id = self._storage.reader.topic(subscription.topic).id
            values = (subscription.name, topic_id, subscription.service, subscription.created_ms)
            found = fetch(connection, sql["create_subscription"], values)[0][0]
            for name in subscription.former:
                connection.execute(sql["remember_former_name"], (name, found))

        await self._submit(make)

    async def restore_subscription(self, subscription: MovedSubscription) -> None:
        """Give the subscription its positions; its state is there by now."""
        found = self._id_of(subscription.name)

        def place(connection: apsw.Connection) -> None:
            self._execute(connection, "remove_assignments", (found,))
            for number, each in enumerate(subscription.partitions):
                values = (found, number, each.position, each.progress, each.epoch)
                self._execute(connection, "create_assignment", values)

        await self._submit(place)

    async def discard(self, topics: Sequence[str], subscriptions: Sequence[str]) -> None:
        """Remove these topics and subscriptions with all they have; what isn't there is passed over."""
        for name in subscriptions:
            await self._remove_subscription(name)
        there = {spec.name for spec in await self.topics()}
        for name in topics:
            if name in there:
                await self._remove_topic(name)

    async def _remove_subscription(self, name: str) -> None:
        rows = fetch(self._reading, statements("queries")["subscription"], (name,))
        if not rows:
            return
        found = int(rows[0][0])
        while await self._submit(lambda connection: remove_state(connection, found)):
            pass

        def remove(connection: apsw.Connection) -> None:
            for step in ("remove_members", "remove_assignments", "remove_former_names", "remove_subscription"):
                connection.execute(statements("groups")[step], (found,))

        await self._submit(remove)

    async def _remove_topic(self, name: str) -> None:
        entry = self._storage.reader.topic(name)
        first = entry.first_partition_id
        span = (first << OFFSET_BITS, (first + entry.partitions) << OFFSET_BITS)

        def some(connection: apsw.Connection) -> bool:
            self._execute(connection, "remove_records_step", (*span, _REMOVED_AT_ONCE))
            return connection.changes() == _REMOVED_AT_ONCE

        def rest(connection: apsw.Connection) -> None:
            self._execute(connection, "remove_spared", span)
            self._execute(connection, "remove_partitions", (entry.id,))
            self._execute(connection, "remove_topic", (entry.id,))

        while await self._submit(some):
            pass
        await self._submit_offsets(rest)
        self._storage.reader.forget_topics()

    # -- how ------------------------------------------------------------------------------------

    @property
    def _reading(self) -> apsw.Connection:
        self._storage.require_started()
        return self._storage.reader.connection

    def _read(self, name: str, values: Sequence[Any] = ()) -> list[Any]:
        return fetch(self._reading, statements("transfer")[name], values)

    @staticmethod
    def _execute(connection: apsw.Connection, name: str, values: Sequence[Any]) -> None:
        connection.execute(statements("transfer")[name], values)

    async def _submit(self, work: Callable[[apsw.Connection], T], *, appends: bool = False) -> T:
        self._storage.require_started()
        return await self._storage.writer.submit(work, appends=appends)

    async def _submit_offsets(self, work: Callable[[apsw.Connection], None]) -> None:
        """Do what changes next offsets, which the appender keeps in mind: nobody else appends here."""

        def apart(connection: apsw.Connection) -> None:
            self._storage.writer.appender.forget()
            work(connection)

        self._storage.look_for_room()
        await self._submit(apart, appends=True)

    def _id_of(self, subscription: str) -> int:
        with translated(self._storage.address):
            rows = fetch(self._reading, statements("queries")["subscription"], (subscription,))
        if not rows:
            raise UsageError(f"{self.address} has no subscription {subscription!r}.", remedy="Begin again.")
        return int(rows[0][0])


def _rows(batch: Batch, base: int) -> tuple[list[Any], int]:
    """The batch as rows, their columns flat, and its last time."""
    rows: list[Any] = []
    last_ms = 0
    opened = batch.form != _FORM
    for record in batch.records:
        offset, timestamp_ms, key, name, value, flags, packed = record
        if opened:
            packed, flags = pack(batch.envelope(record)), _stored(flags)
        rows += (base | offset, timestamp_ms, key, name, value, flags, packed)
        last_ms = max(last_ms, timestamp_ms)
    return rows, last_ms


def _stored(flags: int) -> int:
    """The flags as a file keeps them: a schema's GUID stands among the envelope's headers alone."""
    return flags & _FLAG_BITS if guid_behind(flags >> SCHEMA_ID_SHIFT) is not None else flags


def _cut(connection: apsw.Connection, place: int, start: int) -> None:
    sql = statements("upkeep")
    connection.execute(sql["delete_range"], (place << OFFSET_BITS, place << OFFSET_BITS | start))
    connection.execute(sql["set_start"], (place, start, 0))
