"""Partition state as rows: reading entries, and what a commit changes of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import apsw

from postline.log.sqlite.connection import fetch
from postline.log.sqlite.statements import SIZES, filled, statements

__all__ = ["apply_changes", "get_entries", "scan_entries"]

#: Between two statements the writing thread has to wait for the interpreter, so that many entries go with few.
_DELETED_AT_ONCE = 1_000


def get_entries(
    connection: apsw.Connection, subscription_id: int, partition: int, namespace: str, keys: Sequence[bytes]
) -> dict[bytes, bytes]:
    """The committed entries among `keys`."""
    found: dict[bytes, bytes] = {}
    for some, size in filled(keys):
        found.update(fetch(connection, _get_statement(size), (subscription_id, partition, namespace, *some)))
    return found


def scan_entries(
    connection: apsw.Connection, subscription_id: int, partition: int, namespace: str, after: bytes, limit: int
) -> list[tuple[bytes, bytes]]:
    """Committed entries with keys above `after`, in key order."""
    scan = statements("queries")["state_scan"]
    return fetch(connection, scan, (subscription_id, partition, namespace, after, limit))


def apply_changes(
    connection: apsw.Connection,
    subscription_id: int,
    partition: int,
    clears: Sequence[str],
    puts: Sequence[tuple[str, bytes, bytes]],
    deletes: Sequence[tuple[str, bytes]],
) -> None:
    """Empty namespaces, then put and delete entries, inside the caller's transaction."""
    sql = statements("queries")
    for namespace in clears:
        connection.execute(sql["state_clear"], (subscription_id, partition, namespace))
    _put(connection, subscription_id, partition, puts)
    for namespace in {name for name, _ in deletes}:
        gone = [key for name, key in deletes if name == namespace]
        place, whole = (subscription_id, partition, namespace), len(gone) - len(gone) % _DELETED_AT_ONCE
        for first in range(0, whole, _DELETED_AT_ONCE):
            some = gone[first : first + _DELETED_AT_ONCE]
            connection.execute(_delete_statement(_DELETED_AT_ONCE), (*place, *some))
        for some, size in filled(gone[whole:]):
            connection.execute(_delete_statement(size), (*place, *some))


def _put(
    connection: apsw.Connection, subscription_id: int, partition: int, puts: Sequence[tuple[str, bytes, bytes]]
) -> None:
    done = 0
    for size in SIZES:
        statement = _put_statement(size)
        while len(puts) - done >= size:
            values: list[Any] = [subscription_id, partition]
            for put in puts[done : done + size]:
                values += put
            connection.execute(statement, values)
            done += size


@functools.cache
def _get_statement(keys: int) -> str:
    return f"{statements('queries')['state_get']} IN ({', '.join('?' * keys)})"


@functools.cache
def _delete_statement(keys: int) -> str:
    return f"{statements('queries')['state_delete']} IN ({', '.join('?' * keys)})"


@functools.cache
def _put_statement(rows: int) -> str:
    places = ", ".join(f"(?1, ?2, ?{row * 3 + 3}, ?{row * 3 + 4}, ?{row * 3 + 5})" for row in range(rows))
    return statements("queries")["state_put"].replace("(…)", places)
