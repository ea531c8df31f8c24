"""The file's schema: made in a new file, migrated in an old one, refused in a foreign or newer one."""

from __future__ import annotations

from pathlib import Path

import apsw

from postline.errors import LogCorrupt, LogReadOnly, LogVersionError
from postline.log.sqlite.connection import MEMORY, fetch
from postline.log.sqlite.statements import script, statements

__all__ = ["APPLICATION_ID", "BACKUP_ID", "VERSION", "prepare", "recognise"]

#: "PstL"; tells our files from other SQLite databases.
APPLICATION_ID = 0x5073744C
#: "PstB"; a backup, which nobody may run services on, of this or any earlier version.
BACKUP_ID = 0x50737442
#: What this code writes. A migration to version N is `sql/migrations/N.sql`.
VERSION = 1
#: The oldest code that can work on a file of VERSION; must be VERSION - 1 or less, so that
#: processes can be upgraded one after another.
MIN_READER_VERSION = 1


def recognise(connection: apsw.Connection, path: str, *, backups: bool = False) -> None:
    """Make sure that the file is new or one of ours, and whole, before anything is changed.

    Raises LogCorrupt for a foreign or truncated file, LogVersionError for one that is too new, and LogReadOnly for a
    backup unless `backups` are welcome.
    """
    if _is_new(connection):
        return
    kind = connection.pragma("application_id")
    if kind == BACKUP_ID and not backups:
        raise LogReadOnly(
            f"The file {path} is a backup, kept as it is.",
            remedy=f"Make a log of it first: `postline restore {path} OTHER.db`.",
        )
    if kind not in (APPLICATION_ID, BACKUP_ID):
        raise LogCorrupt(
            f"The file {path} is an SQLite database, but not a Postline log.",
            remedy="Give the log a path of its own.",
        )
    _check_length(connection, path)
    version = connection.pragma("user_version")
    if version > VERSION:
        _check_readable(connection, path, version)


def prepare(connection: apsw.Connection) -> None:
    """Make the schema, or bring it up to date. Call it under the write lock, after `recognise`."""
    if _is_new(connection):
        _apply(connection, script("schema.sql"), VERSION)
    version = connection.pragma("user_version")
    for step in range(version + 1, VERSION + 1):
        _apply(connection, script(f"migrations/{step}.sql"), step)


def _is_new(connection: apsw.Connection) -> bool:
    if connection.pragma("application_id") or connection.pragma("user_version"):
        return False
    return not fetch(connection, statements("schema_checks")["objects"])[0][0]


def _apply(connection: apsw.Connection, text: str, version: int) -> None:
    with connection:
        connection.execute(text)
        connection.execute(statements("schema_checks")["set_min_reader_version"], (min(version, MIN_READER_VERSION),))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", version)


def _check_readable(connection: apsw.Connection, path: str, version: int) -> None:
    rows = fetch(connection, statements("schema_checks")["min_reader_version"])
    if not rows or rows[0][0] > VERSION:
        raise LogVersionError(
            f"The log {path} has format {version}; this Postline reads up to {VERSION}.",
            remedy="Upgrade Postline in this process.",
        )


def _check_length(connection: apsw.Connection, path: str) -> None:
    """SQLite notices missing pages only when it comes to them; that would be much later."""
    if path == MEMORY or _size(f"{path}-wal"):
        return
    needed, there = connection.pragma("page_count") * connection.pragma("page_size"), _size(path)
    if there < needed:
        raise LogCorrupt(
            f"The log {path} is truncated: {there} of {needed} bytes are there.",
            remedy="Stop its processes and restore a copy, or salvage it with the sqlite3 tool's .recover.",
        )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
