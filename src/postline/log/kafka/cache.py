"""The state of one partition in a file beside the process: a copy of its changelog, thrown away on any doubt."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import apsw
import msgspec

from postline.logs.events import event

__all__ = ["CacheBroken", "CacheKey", "Change", "StateCache", "remove_cache"]

_log = logging.getLogger("postline.log.kafka")

#: (namespace, key, value): a put. Without a value it deletes the key, without a key it empties the namespace.
Change: TypeAlias = tuple[str, bytes | None, bytes | None]

_FILE = "state.db"
_SUFFIXES = ("", "-wal", "-shm", "-journal")
#: Marks the file as one of these caches, and the form of its tables.
_APPLICATION = 0x504C4B43
_FORMAT = 1
#: Files up to this size are read through when they are opened; larger ones show damage when they are used.
_CHECKED_BYTES = 256 << 20
_BUSY_MS = 5_000
_WAL_LIMIT = 8 << 20
#: Rows of one statement; a few sizes, so that each is compiled once.
_SIZES = (100, 10, 1)


class CacheBroken(Exception):
    """The cache can't be read or written: rebuild it from the changelog.

    `full` says that the disk has no room, so that a rebuilt one wouldn't fit either.
    """

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class CacheKey(msgspec.Struct, frozen=True):
    """Whose changelog a cache is a copy of; a topic that is deleted and made again has another id."""

    topic_id: str
    cluster_id: str


class StateCache:
    """A partition's state up to one changelog offset. One thread may write while another reads.

    What `apply` wrote is there for every read that begins after it returned. After a power cut the last of it may be
    missing, `applied` with it. Reading and writing raise CacheBroken, also once it is closed.
    """

    #: The changelog offset to go on reading from.
    applied: int
    #: Wall-clock time of the last `apply`; 0 for a new one.
    saved_ms: int

    def __init__(self, path: Path, key: CacheKey, *, private: bool) -> None:
        self.path = path
        with _broken(path):
            try:
                self._writer, self.applied, self.saved_ms = _opened(path, key, private=private)
                self._reader = _connection(path, private=private)
            except BaseException:
                self._shut()
                raise
        self._reader.pragma("query_only", True)
        self._writing, self._reading = threading.Lock(), threading.Lock()
        if private:
            self._vanish = weakref.finalize(self, shutil.rmtree, path.parent, ignore_errors=True)

    @classmethod
    def open(cls, path: Path | None, key: CacheKey) -> StateCache:
        """Open the file, or begin a new one if there is none, or none that can be trusted to belong to `key`.

        With None the file is private to the object and gone with it. Raises CacheBroken where no file can be made.
        """
        if path is not None:
            return cls(path, key, private=False)
        try:
            directory = Path(tempfile.mkdtemp(prefix="postline-cache-"))
        except OSError as error:
            raise CacheBroken(f"No temporary cache can be made: {error}.") from error
        try:
            return cls(directory / _FILE, key, private=True)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def clear(self) -> None:
        """Empty it; `applied` and `saved_ms` are 0 again."""
        with self._writing, _broken(self.path), _transaction(self._writer):
            self._writer.execute(_statements()["empty"])
            self._writer.execute(_statements()["advance"], (0, 0))
        self.applied = self.saved_ms = 0

    def apply(self, changes: Sequence[Change], applied: int, now_ms: int) -> None:
        """Make all changes, in their order, and remember `applied` with them: all or, on CacheBroken, nothing."""
        cleared, entries = _outcome(changes)
        puts = [part for place, value in entries if value is not None for part in (*place, value)]
        deletes = [place for place, value in entries if value is None]
        sql = _statements()
        with self._writing, _broken(self.path), _transaction(self._writer):
            self._writer.executemany(sql["empty_namespace"], [(namespace,) for namespace in cleared])
            self._writer.executemany(sql["delete"], deletes)
            for statement, some in _pieces(_put_statement, puts, 3):
                self._writer.execute(statement, some)
            self._writer.execute(sql["advance"], (applied, now_ms))
        self.applied, self.saved_ms = applied, now_ms

    def get(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries among `keys`; absent ones are left out."""
        found: dict[bytes, bytes] = {}
        with self._reading, _broken(self.path):
            for statement, some in _pieces(_get_statement, keys, 1):
                rows: list[Any] = self._reader.execute(statement, (namespace, *some)).fetchall()
                found.update(rows)
        return found

    def scan(self, namespace: str, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Entries with keys above `after`, ordered as bytes are, at most `limit`."""
        with self._reading, _broken(self.path):
            rows: list[Any] = self._reader.execute(_statements()["scan"], (namespace, after, limit)).fetchall()
        return rows

    def scan_all(self, after: tuple[str, bytes], limit: int) -> list[tuple[str, bytes, bytes]]:
        """Entries of all namespaces above this namespace and key, in this order."""
        with self._reading, _broken(self.path):
            rows: list[Any] = self._reader.execute(_statements()["scan_all"], (*after, limit)).fetchall()
        return rows

    def namespaces(self) -> list[str]:
        """Those that have entries."""
        with self._reading, _broken(self.path):
            rows: list[Any] = self._reader.execute(_statements()["namespaces"]).fetchall()
        return [name for (name,) in rows]

    def close(self) -> None:
        """Close the file, once what runs on it has ended; a private one is deleted. Idempotent."""
        with self._writing, self._reading:
            self._shut()
        if hasattr(self, "_vanish"):
            self._vanish()

    def _shut(self) -> None:
        """Close the connections there are; the writer last, since it empties the log into the file."""
        for name in ("_reader", "_writer"):
            if hasattr(self, name):
                with contextlib.suppress(apsw.Error):
                    getattr(self, name).close()


def _outcome(changes: Sequence[Change]) -> tuple[list[str], list[tuple[tuple[str, bytes], bytes | None]]]:
    """What changes come to: namespaces to empty first, then each entry's last value, in the file's own order."""
    cleared: dict[str, None] = {}
    last: dict[tuple[str, bytes], bytes | None] = {}
    for namespace, key, value in changes:
        if key is not None:
            last[namespace, key] = value
        else:
            cleared[namespace] = None
            last = {place: kept for place, kept in last.items() if place[0] != namespace}
    return list(cleared), sorted(last.items(), key=lambda entry: entry[0])


def _opened(path: Path, key: CacheKey, *, private: bool) -> tuple[apsw.Connection, int, int]:
    """The writing connection with `applied` and `saved_ms`, of the file as it is or of a new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        connection = None
        try:
            connection = _connection(path, private=private)
            applied, saved_ms = _trusted(connection, path, key)
        except (apsw.Error, CacheBroken) as error:
            _log.info(
                "The state cache %s is begun anew from the changelog: %s.",
                path,
                error,
                extra=event("state.cache_anew", path=path),
            )
            if connection is not None:
                _drop(connection)
        else:
            return connection, applied, saved_ms
    remove_cache(path)
    return _new(path, key, private=private), 0, 0


def remove_cache(path: Path) -> None:
    """Delete a cache's files; whoever has them open goes on without them."""
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _drop(connection: apsw.Connection) -> None:
    with contextlib.suppress(apsw.Error):
        connection.close()


def _connection(path: Path, *, private: bool) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(_BUSY_MS)
    # What is lost in a power cut is read from the changelog again; a private file is lost anyway.
    connection.pragma("synchronous", 0 if private else 1)
    connection.pragma("journal_size_limit", _WAL_LIMIT)
    return connection


def _new(path: Path, key: CacheKey, *, private: bool) -> apsw.Connection:
    """A new file with nothing in it; its key, tables and marks are there together or not at all."""
    connection = _connection(path, private=private)
    try:
        connection.pragma("journal_mode", "wal")
        with _transaction(connection):
            connection.execute(_statements()["create_meta"])
            connection.execute(_statements()["create_entries"])
            connection.execute(_statements()["begin_anew"], (key.topic_id, key.cluster_id))
            connection.pragma("application_id", _APPLICATION)
            connection.pragma("user_version", _FORMAT)
    except BaseException:
        _drop(connection)
        raise
    return connection


def _trusted(connection: apsw.Connection, path: Path, key: CacheKey) -> tuple[int, int]:
    """`applied` and `saved_ms` of an older file; CacheBroken or SQLite's own error if it isn't to be trusted."""
    if (connection.pragma("application_id"), connection.pragma("user_version")) != (_APPLICATION, _FORMAT):
        raise CacheBroken("it has another format")
    rows: list[Any] = connection.execute(_statements()["meta"]).fetchall()
    if len(rows) != 1 or rows[0][:2] != (key.topic_id, key.cluster_id):
        raise CacheBroken("it is of another changelog")
    if path.stat().st_size <= _CHECKED_BYTES and (found := connection.pragma("quick_check", 1)) != "ok":
        raise CacheBroken(f"it is damaged ({found})")
    return int(rows[0][2]), int(rows[0][3])


@contextlib.contextmanager
def _transaction(connection: apsw.Connection) -> Iterator[None]:
    """Everything inside or nothing. Some errors, a full disk among them, have rolled back already."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _broken(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say into CacheBroken."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        full = isinstance(error, apsw.FullError) or "No space left" in str(error)
        raise CacheBroken(f"The state cache {path} failed: {error}", full=full) from error


@functools.cache
def _statements() -> Mapping[str, str]:
    """The named statements of `sql/cache.sql`."""
    text = resources.files("postline.log.kafka").joinpath("sql", "cache.sql").read_text("utf-8")
    found = {}
    for block in text.split("-- name: ")[1:]:
        title, _, statement = block.partition("\n")
        found[title.strip()] = statement.strip()
    return found


def _pieces(statement: Callable[[int], str], values: Sequence[Any], each: int) -> Iterator[tuple[str, Sequence[Any]]]:
    """Statements of as many rows as fit, with the values of each, `each` to a row."""
    done = 0
    for size in _SIZES:
        while len(values) - done >= size * each:
            yield statement(size), values[done : done + size * each]
            done += size * each


@functools.cache
def _put_statement(rows: int) -> str:
    values = ", ".join(["(?, ?, ?)"] * rows)
    return (
        f"INSERT INTO entries (namespace, key, value) VALUES {values} ON CONFLICT DO UPDATE SET value = excluded.value"
    )


@functools.cache
def _get_statement(keys: int) -> str:
    return f"SELECT key, value FROM entries WHERE namespace = ? AND key IN ({', '.join('?' * keys)})"
