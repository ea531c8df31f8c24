"""A migration's mark on the file, and the triggers that freeze it."""

from __future__ import annotations

from collections.abc import Collection

import apsw
import msgspec

from postline.errors import LogVersionError, UsageError
from postline.log.sqlite.connection import fetch
from postline.log.sqlite.statements import script, statements
from postline.log.transfer import Mark, Phase, moved
from postline.message import UNREADABLE

__all__ = ["freeze", "read_mark", "require_standing", "thaw", "write_mark"]


def read_mark(connection: apsw.Connection, address: str) -> Mark | None:
    """What a migration has written on the log. Raises LogVersionError for what a newer version wrote."""
    rows = fetch(connection, statements("transfer")["mark"])
    try:
        return msgspec.json.decode(rows[0][0], type=Mark) if rows else None
    except UNREADABLE as error:
        raise LogVersionError(
            f"The mark that a migration left on {address} can't be read: {error}",
            remedy="Run the version of Postline that wrote it.",
        ) from error


def write_mark(connection: apsw.Connection, mark: Mark | None) -> None:
    """Write the mark, or remove it."""
    sql = statements("transfer")
    if mark is None:
        connection.execute(sql["drop_mark"])
    else:
        connection.execute(sql["set_mark"], (msgspec.json.encode(mark).decode(),))


def require_standing(connection: apsw.Connection, address: str) -> None:
    """Raise LogMoved unless this is a log to work on."""
    mark = read_mark(connection, address)
    if mark is not None and mark.phase is not Phase.FILLED:
        raise moved(mark, address)


def freeze(connection: apsw.Connection, mark: Mark, dead: Collection[str]) -> None:
    """Make the triggers, unless they are there, and write the mark. Raises UsageError if others than `dead` live."""
    sql = statements("transfer")
    if {row[0] for row in fetch(connection, sql["members"])} - set(dead):
        raise UsageError("Somebody joined a subscription just now.", remedy="Stop all services, and try again.")
    if not fetch(connection, sql["frozen"]):
        connection.execute(script("freeze.sql"))
    write_mark(connection, mark)


def thaw(connection: apsw.Connection) -> None:
    """Drop the triggers and the mark."""
    connection.execute(script("thaw.sql"))
    write_mark(connection, None)
