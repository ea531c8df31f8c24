"""The raw limit: the same columns of the same tables, read and written by apsw alone, without Postline."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from benchmarks.orders import Invoice, Order
from postline.contracts import Partitioner

__all__ = ["consume", "insert", "insert_encoded", "single_commits"]

_BATCH = 1_000
_READ = (
    "SELECT id & 1099511627775, timestamp, key, type, value, flags, packed FROM records"
    " WHERE id >= ? AND id < ? ORDER BY id LIMIT 1000"
)
_PARTITIONS = "SELECT first_partition_id, partitions FROM topics WHERE name = ?"
_INSERT = "INSERT INTO raw_records VALUES (?, ?, ?, ?, ?, ?, ?)"
_MOVE = "INSERT OR REPLACE INTO raw_positions VALUES (?, ?)"
_TABLES = """
CREATE TABLE IF NOT EXISTS raw_positions (partition INTEGER PRIMARY KEY, position INTEGER);
CREATE TABLE IF NOT EXISTS raw_records (id INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB,
    type TEXT NOT NULL, value BLOB, flags INTEGER NOT NULL, packed BLOB NOT NULL);
"""


def _open(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 2)
    connection.pragma("cache_size", -16_384)
    connection.execute(_TABLES)
    return connection


def consume(path: Path, topic: str, number: int, *, publish: bool = False) -> float:
    """Records a second of a loop that reads 1,000, decodes them, moves the position and commits.

    With `publish` it also encodes an invoice for each order and appends it in the same commit.
    """
    connection = _open(path)
    found: Any = connection.execute(_PARTITIONS, (topic,)).fetchall()
    first, count = found[0]
    writer = _Writer(connection) if publish else None
    decode = msgspec.json.Decoder(Order).decode
    done, began = 0, time.perf_counter()
    for partition in range(first, first + count):
        offset = 0
        while done < number:
            rows: Any = connection.execute(_READ, (partition << 40 | offset, (partition + 1) << 40)).fetchall()
            if not rows:
                break
            values = [decode(row[4]) for row in rows]
            offset = rows[-1][0] + 1
            made = [Invoice(each.order_id, each.customer_id, each.total_cents) for each in values] if writer else ()
            ready = writer.rows(made, "billing.InvoiceIssued") if writer else ()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_MOVE, (partition, offset))
            if writer:
                connection.executemany(_INSERT, ready)
            connection.execute("COMMIT")
            done += len(rows)
    rate = done / (time.perf_counter() - began)
    connection.close()
    return rate


class _Writer:
    """Rows like those that Postline stores: key, type, value, and an envelope of the same size."""

    def __init__(self, connection: apsw.Connection) -> None:
        found = connection.execute("SELECT id >> 40, max(id) + 1 FROM raw_records GROUP BY 1").fetchall()
        #: The next id of each partition, as Postline packs them: partition << 40 | offset.
        self._next: dict[Any, Any] = {each: each << 40 for each in range(8)} | {row[0]: row[1] for row in found}
        self._identities = itertools.count(1 << 120)
        self._encode = msgspec.json.Encoder().encode
        self._pack = msgspec.msgpack.Encoder().encode
        self._partition_of = Partitioner(8).partition_of

    def rows(self, messages: Iterable[Order | Invoice], type_name: str) -> list[tuple[object, ...]]:
        encode, pack, following, partition_of = self._encode, self._pack, self._next, self._partition_of
        now, identities = time.time_ns() // 1_000_000, self._identities
        rows: list[tuple[object, ...]] = []
        for message in messages:
            key = message.customer_id.encode()
            partition = partition_of(key)
            place = following[partition]
            following[partition] = place + 1
            packed = pack((next(identities).to_bytes(16, "big"), "shop", now))
            rows.append((place, now, key, type_name, encode(message), 0, packed))
        return rows


def insert(path: Path, messages: Sequence[Order]) -> float:
    """Messages a second of a loop that encodes 1,000, inserts them by `executemany` and commits."""
    connection = _open(path)
    writer = _Writer(connection)
    began = time.perf_counter()
    for start in range(0, len(messages), _BATCH):
        ready = writer.rows(messages[start : start + _BATCH], "shop.OrderPlaced")
        _store(connection, ready)
    rate = len(messages) / (time.perf_counter() - began)
    connection.close()
    return rate


def insert_encoded(path: Path, messages: Sequence[Order]) -> float:
    """The same with all rows made before the clock runs: SQLite alone."""
    connection = _open(path)
    ready = _Writer(connection).rows(messages, "shop.OrderPlaced")
    began = time.perf_counter()
    for start in range(0, len(ready), _BATCH):
        _store(connection, ready[start : start + _BATCH])
    rate = len(messages) / (time.perf_counter() - began)
    connection.close()
    return rate


def _store(connection: apsw.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, rows)
    connection.execute("COMMIT")


def single_commits(path: Path, messages: Sequence[Order]) -> float:
    """Messages a second when each is encoded, inserted and committed alone."""
    connection = _open(path)
    writer = _Writer(connection)
    began = time.perf_counter()
    for message in messages:
        _store(connection, writer.rows((message,), "shop.OrderPlaced"))
    rate = len(messages) / (time.perf_counter() - began)
    connection.close()
    return rate
