"""Storing records: offsets and timestamps given under the write lock, rows inserted many at a time."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeAlias

import apsw

from postline.clock import Clock
from postline.log.port import Record
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.statements import statements

__all__ = ["OFFSET_BITS", "OFFSET_MASK", "Appended", "Appender", "Rows", "insert_rows"]

OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1

_COLUMNS = 7
#: Rows of one INSERT: few sizes, so that each is compiled once, and large ones, because at each statement
#: a busy thread of the process may keep the interpreter while the write lock is held.
_SIZES = (500, 250, 100, 50, 25, 10, 5, 2, 1)
#: Partitions whose next offsets one statement stores.
_HEADS = 64
#: So few rows of one INSERT, and bytes of values, are handed to who waits for them in this process: reading
#: them again costs more than they do, where little comes at a time.
_FEW_ROWS = 32
_FEW_BYTES = 64 << 10

#: The ids of the partitions that one commit appended to, each with the records if they are few.
Appended: TypeAlias = Mapping[int, list[Record] | None]


class Rows:
    """Records ready for insertion, their columns flat, with holes (None) where id and timestamp go."""

    __slots__ = ("partition_ids", "values")

    def __init__(self) -> None:
        self.partition_ids: list[int] = []
        #: For each record: None, None, key, type, value, flags, packed envelope.
        self.values: list[Any] = []

    def extend(self, other: Rows) -> None:
        """Append all of the other's records."""
        self.partition_ids += other.partition_ids
        self.values += other.values


class Appender:
    """Gives offsets and inserts. The writer's property: `begin` … `insert` … `flush` in each transaction.

    The next ids are remembered between transactions for as long as no other process has written.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sql = statements("queries")
        self._data_version = -1
        #: By partition id: the next record's id, and the last timestamp.
        self._next: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._newest = 0
        #: What was appended since `begin`; a new one for each transaction.
        self.touched: dict[int, list[Record] | None] = {}

    def begin(self, connection: apsw.Connection) -> None:
        """Call it first inside the transaction: drops what other processes have made stale."""
        self.touched = {}
        version = connection.pragma("data_version")
        if version != self._data_version:
            self.forget()
            self._data_version = version

    def forget(self) -> None:
        """Remember nothing; call it when a transaction was rolled back."""
        self._next.clear()
        self._last.clear()
        self._newest = 0
        self.touched = {}

    def insert(self, connection: apsw.Connection, rows: Rows) -> list[int]:
        """Insert all of them; gives their offsets. Fills the holes of `rows`; they can be used again."""
        ids = self._ids(connection, rows.partition_ids)
        values = rows.values
        values[0::_COLUMNS] = ids
        values[1::_COLUMNS] = self._timestamps(rows.partition_ids)
        insert_rows(connection, values)
        offsets = [each & OFFSET_MASK for each in ids]
        self._note(rows, offsets)
        return offsets

    def flush(self, connection: apsw.Connection) -> None:
        """Store the next offsets; call it once before COMMIT."""
        heads = [(each, self._next[each] & OFFSET_MASK, self._last[each]) for each in self.touched]
        for start in range(0, len(heads), _HEADS):
            some = heads[start : start + _HEADS]
            # Filled up with repetitions, which change nothing, so that few statements are compiled.
            size = 1 << (len(some) - 1).bit_length()
            some += some[-1:] * (size - len(some))
            connection.execute(_advance_statement(size), tuple(chain.from_iterable(some)))

    def _ids(self, connection: apsw.Connection, partition_ids: list[int]) -> list[int]:
        following, ids = self._next, []
        for partition_id in set(partition_ids).difference(following):
            self._load(connection, partition_id)
        for partition_id in partition_ids:
            ids.append(each := following[partition_id])
            following[partition_id] = each + 1
        return ids

    def _note(self, rows: Rows, offsets: list[int]) -> None:
        """Remember where these went, and what they are if they are few."""
        touched, places, values = self.touched, rows.partition_ids, rows.values
        if len(places) > _FEW_ROWS or sum(len(value or b"") for value in values[4::_COLUMNS]) > _FEW_BYTES:
            touched.update(dict.fromkeys(places))
            return
        for index, (place, offset) in enumerate(zip(places, offsets, strict=True)):
            start = index * _COLUMNS
            record: Any = (offset, *values[start + 1 : start + _COLUMNS])
            if (others := touched.setdefault(place, [])) is not None:
                others.append(record)

    def _load(self, connection: apsw.Connection, partition_id: int) -> None:
        offset, timestamp = fetch(connection, self._sql["head"], (partition_id,))[0]
        self._next[partition_id] = partition_id << OFFSET_BITS | offset
        self._last[partition_id] = timestamp
        self._newest = max(self._newest, timestamp)

    def _timestamps(self, partition_ids: list[int]) -> list[int]:
        """Now, but never before the partition's last one: the machine's clock may be set back."""
        now, last = self._clock.now_ms(), self._last
        if now >= self._newest:
            self._newest = now
            last.update(dict.fromkeys(partition_ids, now))
            return [now] * len(partition_ids)
        for partition_id in set(partition_ids):
            last[partition_id] = max(now, last[partition_id])
        return [last[partition_id] for partition_id in partition_ids]


def insert_rows(connection: apsw.Connection, values: list[Any]) -> None:
    """Insert records whose columns, ids included, stand flat in `values`."""
    done, count = 0, len(values) // _COLUMNS
    for size in _SIZES:
        statement, width = _insert_statement(size), size * _COLUMNS
        while count - done >= size:
            start = done * _COLUMNS
            connection.execute(statement, values[start : start + width])
            done += size


@functools.cache
def _advance_statement(rows: int) -> str:
    """One statement for all heads: each of its own would let other threads in while the lock is held."""
    return statements("queries")["advance"].replace("(…)", ", ".join(["(?, 0, 0, ?, ?)"] * rows))


@functools.cache
def _insert_statement(rows: int) -> str:
    row = f"({', '.join('?' * _COLUMNS)})"
    return statements("queries")["insert_records"].replace("(…)", ", ".join([row] * rows))
