"""Opening the file: settings of its connections, and SQLite's errors as the project's own."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw

from postline.errors import EncodeError, LogCorrupt, LogError, LogFull, LogMoved, LogReadOnly, LogUnavailable

__all__ = [
    "MEMORY",
    "fetch",
    "lay_out",
    "open_reader",
    "open_writer",
    "translate",
    "translated",
    "use_wal",
]

#: What SQLite calls a private database in memory.
MEMORY = ":memory:"

_BUSY_MS = 5_000
#: What the triggers of a frozen log say (`sql/freeze.sql`).
_FROZEN = "frozen by a migration"
_PAGE_SIZE = 4096
#: After this many pages (4 MB) a commit takes the WAL's content over into the file.
_CHECKPOINT_PAGES = 1_000
#: To what the WAL shrinks again after a slow reader has made it grow.
_WAL_LIMIT = 8 << 20
_CACHE_KIB = 16_384


def open_writer(path: str, *, relaxed: bool = False, wait_ms: int = _BUSY_MS) -> apsw.Connection:
    """The one connection that writes and checkpoints; use it under the write lock only. Changes nothing yet.

    With `relaxed` a power cut may take the last commits along, but never tears them.
    """
    connection = apsw.Connection(path, statementcachesize=200)
    connection.set_busy_timeout(wait_ms)
    connection.pragma("secure_delete", 0)
    connection.pragma("temp_store", "memory")
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.pragma("synchronous", 1 if relaxed else 2)
    connection.pragma("journal_size_limit", _WAL_LIMIT)
    connection.wal_autocheckpoint(_CHECKPOINT_PAGES)
    return connection


def lay_out(connection: apsw.Connection) -> None:
    """Choose the pages of a new file, for good. One that has pages is left alone: SQLite would write to it."""
    if not connection.pragma("page_count"):
        connection.pragma("page_size", _PAGE_SIZE)
        connection.pragma("auto_vacuum", 2)


def use_wal(connection: apsw.Connection) -> None:
    """Switch the file to its write-ahead log, for good; a change, so know first whose file it is."""
    connection.pragma("journal_mode", "wal")


def open_reader(path: str) -> apsw.Connection:
    """A connection that only reads and never checkpoints, not even when it is closed."""
    connection = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE, statementcachesize=200)
    connection.set_busy_timeout(_BUSY_MS)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.wal_autocheckpoint(0)
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.pragma("query_only", True)
    return connection


def fetch(connection: apsw.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """All rows of a query, as tuples; leaves no cursor open."""
    return connection.execute(statement, values).fetchall()


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Turn SQLite's errors, and the system's about files, into LogErrors that name the log at `address`."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise translate(error, address) from error


def translate(error: BaseException, address: str) -> BaseException:
    """The error that callers shall see; SQLite's own stays its cause. Others pass unchanged."""
    if isinstance(error, UnicodeEncodeError):
        return EncodeError(f"A text can't be stored: {error}.", remedy="Types, ids and names must be Unicode text.")
    if isinstance(error, OSError):
        return _system_error(error, address)
    if not isinstance(error, apsw.Error):
        return error
    kind, what, remedy = _meaning(error)
    meant = kind(f"The log {address} {what}: {error}.", remedy=remedy)
    meant.__cause__ = error
    return meant


def _system_error(error: OSError, address: str) -> LogError:
    """What the system says about the files beside the log: locks, signs of life, bells, the reserve."""
    known = ((kind, remedy) for codes, kind, remedy in _CODES if error.errno in codes)
    kind, remedy = next(known, (LogUnavailable, "Look at the disk, the limit of open files and the system's log."))
    meant = kind(f"The files beside the log {address} can't be used: {error}.", remedy=remedy)
    meant.__cause__ = error
    return meant


_CODES: tuple[tuple[tuple[int, ...], type[LogError], str], ...] = (
    ((errno.ENOSPC, errno.EDQUOT), LogFull, "Free some room on its disk; then repeat the call."),
    (
        (errno.EACCES, errno.EPERM, errno.EROFS),
        LogReadOnly,
        "Allow this user to write the file and its directory.",
    ),
)


def _meaning(error: apsw.Error) -> tuple[type[LogError], str, str]:
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHORT_READ:
        return LogCorrupt, "is truncated", _RESTORE
    if isinstance(error, apsw.ConstraintError) and _FROZEN in str(error):
        return LogMoved, "is moving, or has moved, to another one", "Start anew: that says where it is."
    for kinds, kind, what, remedy in _MEANINGS:
        if isinstance(error, kinds):
            return kind, what, remedy
    return LogError, "could not do what was asked", "See the cause."


_RESTORE = "Stop its processes and restore a copy, or salvage it with the sqlite3 tool's .recover."

_MEANINGS: tuple[tuple[tuple[type[apsw.Error], ...], type[LogError], str, str], ...] = (
    (
        (apsw.FullError,),
        LogFull,
        "has no room left on its disk",
        "Free some; what was refused can be repeated, nothing is torn.",
    ),
    (
        (apsw.BusyError, apsw.LockedError),
        LogUnavailable,
        "is locked by another program",
        "End the program that holds a transaction open on the file, then repeat the call.",
    ),
    (
        (apsw.ReadOnlyError, apsw.PermissionsError),
        LogReadOnly,
        "can't be written",
        "Allow this user to write the file and its directory.",
    ),
    ((apsw.CorruptError, apsw.FormatError), LogCorrupt, "is damaged", _RESTORE),
    (
        (apsw.NotADBError,),
        LogCorrupt,
        "is not a Postline log, or its head is damaged",
        "Give another path, or restore it.",
    ),
    (
        (apsw.ConnectionClosedError, apsw.CursorClosedError),
        LogUnavailable,
        "is closed in this process",
        "Use it between start and close.",
    ),
    (
        (apsw.CantOpenError,),
        LogUnavailable,
        "can't be opened",
        "Check that its directory exists and that this user may enter it.",
    ),
    ((apsw.IOError,), LogUnavailable, "can't be read or written", "Look at the disk and the system's log."),
)
