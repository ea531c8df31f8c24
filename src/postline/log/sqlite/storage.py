"""One open log file in one process: its connections, its writer and who waits for what."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import apsw
import msgspec

from postline.clock import Clock
from postline.errors import LogError, LogReadOnly, LogUnavailable, MessageTooLarge
from postline.log.port import Append, Assignment, CommitUnit
from postline.log.sqlite import schema
from postline.log.sqlite.appending import Appended, Appender, Rows
from postline.log.sqlite.commits import apply_unit
from postline.log.sqlite.connection import (
    MEMORY,
    lay_out,
    open_reader,
    open_writer,
    translated,
    use_wal,
)
from postline.log.sqlite.forking import open_files
from postline.log.sqlite.identity import FileWatch
from postline.log.sqlite.packing import pack
from postline.log.sqlite.places import network_file_system
from postline.log.sqlite.presence import Presence
from postline.log.sqlite.reading import Reader
from postline.log.sqlite.rundir import run_directory
from postline.log.sqlite.space import RESERVE_BYTES, Reserve
from postline.log.sqlite.turnstile import Turnstile
from postline.log.sqlite.waiting import Waiters
from postline.log.sqlite.writer import Writer
from postline.logs.events import event
from postline.message import Envelope

__all__ = ["Settings", "Storage"]

_logger = logging.getLogger("postline.log.sqlite")
#: SQLite's own limit is 1 GB for a row; runtimes refuse far earlier.
_MAX_RECORD_BYTES = 512 << 20
#: While the disk is full, appends look for new room at most this often.
_ROOM_CHECK_SECONDS = 1.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be chosen about a file; the same for all its processes, please."""

    #: False: a power cut may take the last commits along. Never the default.
    durable: bool = True
    #: How long a write waits for other processes before it raises LogUnavailable.
    lock_seconds: float = 30.0
    #: How long a member may show no sign of life before its partitions go to others.
    lease_seconds: float = 10.0
    reserve_bytes: int = RESERVE_BYTES
    #: Between two passes of retention, compaction and giving back of disk space; 0 for none.
    upkeep_seconds: float = 5.0
    #: Free pages that stay in the file for new records rather than going back to the disk.
    spare_pages: int = 1_000
    #: A copy that nobody else knows of, so that it may lie on a network file system.
    alone: bool = False


class Storage:
    """What the log and its memberships stand on. The event loop's property, but for the writer.

    `path` is None for a private log in memory, where everything runs inline on the loop.
    """

    def __init__(self, path: Path | None, clock: Clock, settings: Settings) -> None:
        self.path = path
        self.address = MEMORY if path is None else os.fspath(path)
        self.clock = clock
        self.settings = settings
        self.waiters = Waiters(clock)
        #: Called by `close`, last first, while everything still works.
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        self.reader: Reader
        self.writer: Writer
        self.presence: Presence
        self.lock: AbstractContextManager[object] = contextlib.nullcontext()
        self.reserve: Reserve | None = None
        self._watch: FileWatch | None = None
        self._appender: Appender
        self._started = False
        self._closing: asyncio.Task[None] | None = None
        self._next_room_check = 0.0

    @property
    def started(self) -> bool:
        """Between `start` and `close`."""
        return self._started

    def start(self) -> None:
        """Open the file, make or migrate its schema, start the writer."""
        with translated(self.address):
            self._start()

    def _start(self) -> None:
        meeting = None
        if self.path is not None:
            _check_place(self.path, alone=self.settings.alone)
            open_files().require_own(self.path)
            meeting = run_directory(self.path)
            self.lock = _turnstile(meeting, self.settings.lock_seconds)
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_lock)
            connection = self._first_connection()
            undo.callback(connection.close)
            reading = connection if self.path is None else self._open_reader()
            if reading is not connection:
                undo.callback(reading.close)
            self._begin(connection, reading, meeting, undo)
            undo.pop_all()
        self._started = True
        if self.path is not None:
            open_files().opened(self.path)

    def _first_connection(self) -> apsw.Connection:
        """Open the file under the write lock; waits for it without a thread that a failure would leave behind."""
        with translated(self.address):
            if isinstance(self.lock, Turnstile):
                with self.lock.first_turn():
                    return self._open()
            return self._open()

    def _begin(
        self, connection: apsw.Connection, reading: apsw.Connection, meeting: Path | None, undo: contextlib.ExitStack
    ) -> None:
        """Start what works on the connections; the writer's thread last."""
        self.reader = Reader(reading, self.address)
        self._appender = Appender(self.clock)
        self.presence = Presence(
            meeting,
            self.clock,
            lease_seconds=self.settings.lease_seconds,
            version=lambda: int(reading.pragma("data_version")),
        )
        undo.callback(self.presence.close)
        with translated(self.address):
            self.presence.start(self.waiters.wake_all)
        self.writer = Writer(
            connection,
            self._appender,
            self.lock,
            address=self.address,
            threaded=self.path is not None,
            on_full=self._give_up_reserve,
            on_appended=self._wake,
        )
        self.writer.after_commit.append(self.presence.ring_for_records)
        if self.path is not None:
            self._watch = FileWatch(self.path)
            self.presence.before_tick = self._watch.look
            self.writer.confirm = self._watch.require_same

    async def close(self) -> None:
        """Finish what was submitted and close the file. Idempotent.

        Cancelled, it goes on by itself: who calls it again waits for that, and nothing stays open in the end.
        """
        if self._closing is None:
            if not self._started:
                return
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._let_go()
        finally:
            self._closing = None

    async def _let_go(self) -> None:
        while self.on_close:
            await self.on_close.pop()()
        self._started = False
        await self.writer.close()
        self.presence.close()
        self.waiters.close()
        if self.path is not None:
            self.reader.connection.close()
            open_files().closed(self.path)
        self._close_writer()
        self._close_lock()

    def _close_writer(self) -> None:
        connection = self.writer.connection
        if self._watch is not None and self._watch.gone:
            # What lies at the path of the WAL may belong to others: it must not be touched.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        try:
            # The last one to close takes the WAL over into the file: a write, so under the lock.
            with translated(self.address), self.lock:
                connection.close()
        except LogError as error:
            _logger.warning(
                "the WAL of %s is left to the next one that opens the log: %s",
                self.address,
                error,
                extra=event("file.wal_left", log=self.address),
            )
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()

    def _close_lock(self) -> None:
        if isinstance(self.lock, Turnstile):
            self.lock.close()

    def require_started(self) -> None:
        """Raise LogUnavailable unless the log is open, LogCorrupt if its file was taken away underneath."""
        if not self._started:
            raise LogUnavailable(f"The log {self.address} is not open.", remedy="Use it between start and close.")
        if self._watch is not None and self._watch.gone:
            self._watch.require_same()

    def rows(self, records: Sequence[Append]) -> Rows:
        """Make records ready for the writer. Raises UnknownTopic, EncodeError or MessageTooLarge."""
        rows, partition_id = Rows(), self.reader.partition_id
        places, values = rows.partition_ids, rows.values
        before: Envelope | None = None
        packed = b""
        for each in records:
            value, envelope = each.value, each.envelope
            if value is not None and len(value) > _MAX_RECORD_BYTES:
                raise MessageTooLarge(
                    f"A message of {len(value)} bytes for topic {each.topic!r} is over the engine's limit of"
                    f" {_MAX_RECORD_BYTES}.",
                    remedy="Store the payload elsewhere and send a reference to it (claim check).",
                )
            places.append(partition_id(each.topic, each.partition))
            if envelope is not before:  # a reply and its ticket have one
                before, packed = envelope, pack(envelope)
            values += (None, None, each.key, envelope.type, value, each.flags, packed)
        return rows

    async def append(self, records: Sequence[Append]) -> list[int]:
        """Store all of them durably; gives their offsets."""
        if not records:
            return []
        rows = self.rows(records)
        self.look_for_room()
        return await self.writer.append(rows)

    async def commit(self, subscription_id: int, unit: CommitUnit) -> list[Assignment]:
        """Apply a commit unit durably; gives the assignments that the fence refused."""
        appends = [self.rows(part.appends) if part.appends else None for part in unit]
        appender = self._appender
        any_append = any(appends)
        if any_append:
            self.look_for_room()
        return await self.writer.submit(
            lambda connection: apply_unit(connection, subscription_id, unit, appends, appender), appends=any_append
        )

    def look_for_room(self) -> None:
        """While the disk is full: see at times if it still is."""
        if self.writer.full and self.clock.monotonic() >= self._next_room_check:
            self._next_room_check = self.clock.monotonic() + _ROOM_CHECK_SECONDS
            if self.reserve is None or self.reserve.restore():
                self.writer.full = False

    def _open(self) -> apsw.Connection:
        connection = open_writer(self.address, relaxed=not self.settings.durable)
        try:
            if connection.readonly("main"):
                raise LogReadOnly(
                    f"The log {self.address} can't be written.",
                    remedy="Allow this user to write the file and its directory.",
                )
            schema.recognise(connection, self.address)
            lay_out(connection)
            if self.path is not None:
                use_wal(connection)
            schema.prepare(connection)
            if self.path is not None and self.settings.reserve_bytes:
                self.reserve = Reserve(self.path, self.settings.reserve_bytes)
                self.reserve.restore()
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_reader(self) -> apsw.Connection:
        with translated(self.address):
            return open_reader(self.address)

    def _give_up_reserve(self) -> None:
        self._next_room_check = self.clock.monotonic() + _ROOM_CHECK_SECONDS
        if self.reserve is not None:
            with self.lock:
                self.reserve.give_up(self.writer.connection)

    def _wake(self, touched: Appended) -> None:
        if self._started:
            self.waiters.wake({self.reader.topic_name(each) for each in touched})
            self.presence.appended(touched)


def _turnstile(meeting: Path, seconds: float) -> Turnstile:
    try:
        return Turnstile(meeting, patience_seconds=seconds)
    except PermissionError as error:
        raise LogReadOnly(
            f"The lock files in {meeting} belong to another user: {error.strerror}.",
            remedy="Run all processes of a log as users of one group that may write there.",
        ) from error


def _check_place(path: Path, *, alone: bool) -> None:
    """Refuse what can't work before SQLite makes a file there."""
    directory = path.parent
    if not directory.is_dir():
        raise LogUnavailable(f"The directory {directory} does not exist.", remedy="Make it, or give another path.")
    if path.is_dir():
        raise LogUnavailable(f"{path} is a directory.", remedy="Give the path of a file.")
    names = path.stat().st_nlink if path.exists() else 1
    if names > 1:
        # SQLite puts the WAL beside the name that it is given: under each another one, which don't know of each other.
        raise LogUnavailable(
            f"The log {path} has {names} names (hard links), under each of which it would lose the others' records.",
            remedy=f"Remove all but one (`find DIRECTORY -samefile {path}` lists them); use symbolic links or copies.",
        )
    kind = None if alone else network_file_system(path)
    if kind is not None:
        raise LogUnavailable(
            f"The log {path} lies on a network file system ({kind}), where its locks don't hold.",
            remedy="Put it on a local disk, or use Kafka between machines.",
        )
    if not all(os.access(each, os.W_OK, effective_ids=True) for each in (directory, path) if each.exists()):
        raise LogReadOnly(
            f"The log {path} can't be written.", remedy="Allow this user to write the file and its directory."
        )
