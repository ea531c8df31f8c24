"""All pages of a log as they stand at one moment, copied a step at a time while services go on writing."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import msgspec

from postline.errors import LogCorrupt, UsageError
from postline.log.sqlite.care.workplace import make_durable, require_room
from postline.log.sqlite.connection import fetch, open_reader, translated
from postline.log.sqlite.schema import APPLICATION_ID, BACKUP_ID, recognise
from postline.log.sqlite.statements import statements

__all__ = ["BACKUP_NOTE", "RESTORED_NOTE", "Note", "PageCopy", "noted", "require_whole", "revive", "seal"]

#: 1 MB.
_STEP_PAGES = 256
#: So often what was copied goes to the disk: a heap of it at once would make the services' commits wait.
_SYNC_STEPS = 8
#: What a lost log's epochs can't have come to since the copy was made.
_EPOCHS_AHEAD = 1_000_000
#: The keys of the notes in `meta`.
BACKUP_NOTE, RESTORED_NOTE = "backup", "restored"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Where a copy came from, kept inside it."""

    #: The file that was copied.
    source: str
    #: When.
    taken_ms: int
    #: When a log was made of it again.
    restored_ms: int | None = None


class PageCopy:
    """From `source` to the new file `target`; blocks for one step at a time, on any one thread.

    It holds one read transaction, so that all pages are of one moment: writers go on, and the WAL
    grows by what they write meanwhile. Raises LogCorrupt, LogVersionError for what is no log, LogFull for
    want of room.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._address, self._target_path, self._steps = str(source), target, 0
        with translated(self._address):
            self._source = open_reader(self._address)
        try:
            with translated(self._address):
                recognise(self._source, self._address, backups=True)
                self._source.execute("BEGIN")
                self.topics, self.subscriptions = fetch(self._source, statements("care")["contents"])[0]
                size = self._source.pragma("page_count") * self._source.pragma("page_size")
            self._begin(size)
        except BaseException:
            self._source.close()
            raise

    def _begin(self, size: int) -> None:
        with translated(str(self._target_path)):
            require_room(self._target_path.parent, size)
            self._target = apsw.Connection(str(self._target_path))
            # Nobody else knows of it, and it is worth nothing before it is whole.
            self._target.pragma("journal_mode", "off")
            self._target.pragma("synchronous", 0)
            self._backup = self._target.backup("main", self._source, "main")
        self.pages = 0
        self.pages_done = 0

    @property
    def done(self) -> bool:
        """Every page is copied."""
        return bool(self._backup.done)

    def step(self) -> None:
        """Copy the next megabyte."""
        with translated(f"{self._address} or its copy {self._target_path}"):
            self._backup.step(_STEP_PAGES)
            self._steps += 1
            if self._steps % _SYNC_STEPS == 0:
                make_durable(self._target_path)
        self.pages = self._backup.page_count
        self.pages_done = self.pages - self._backup.remaining

    def close(self) -> None:
        """Let go of both files. Idempotent."""
        # What has failed was raised by the step in which it did.
        self._backup.close(True)
        self._target.close()
        self._source.close()


def require_whole(connection: apsw.Connection, what: str) -> None:
    """Raise LogCorrupt unless every page and every row of the database is sound. Reads all of it."""
    with translated(what):
        found = [line for (line,) in fetch(connection, statements("care")["integrity"])]
    if found != ["ok"]:
        raise LogCorrupt(
            f"{what} is damaged: {'; '.join(found[:3])}.",
            remedy="`postline doctor` shows more; take an older backup, or salvage it with sqlite3's .recover.",
        )


def seal(path: Path, note: Note) -> None:
    """Make a whole copy a backup: one file that nobody runs services on, on the disk when this returns."""
    with translated(str(path)):
        connection = apsw.Connection(str(path))
        try:
            _write_note(connection, BACKUP_NOTE, note)
            connection.pragma("application_id", BACKUP_ID)
            _close_as_one_file(connection)
        finally:
            connection.close()
        make_durable(path)


def revive(path: Path, skip_offsets: int, restored_ms: int) -> None:
    """Make a log of a copy: without its members, under epochs that no process of the old one has."""
    sql = statements("care")
    with translated(str(path)):
        connection = apsw.Connection(str(path))
        try:
            note = noted(connection, BACKUP_NOTE) or Note(source="", taken_ms=0)
            with connection:
                connection.execute(sql["forget_members"])
                connection.execute(sql["free_assignments"], (_EPOCHS_AHEAD,))
                connection.execute(sql["skip_offsets"], (skip_offsets,))
                connection.execute(sql["forget"], (BACKUP_NOTE,))
                _write_note(connection, RESTORED_NOTE, msgspec.structs.replace(note, restored_ms=restored_ms))
                connection.pragma("application_id", APPLICATION_ID)
            _close_as_one_file(connection)
        finally:
            connection.close()


def noted(connection: apsw.Connection, key: str) -> Note | None:
    """The note that a copy carries."""
    rows = fetch(connection, statements("care")["noted"], (key,))
    return msgspec.json.decode(rows[0][0], type=Note) if rows else None


def same_file(one: Path, other: Path) -> bool:
    """Whether both paths lead to one file, or would if it were there."""
    return os.path.realpath(one) == os.path.realpath(other) or (one.exists() and other.exists() and one.samefile(other))


def require_apart(source: Path, target: Path) -> None:
    """Raise UsageError where `target` is the log itself, or what lies beside it."""
    beside = [source.with_name(source.name + suffix) for suffix in ("", "-wal", "-shm", "-journal", "-reserve", ".run")]
    if any(same_file(each, target) for each in beside):
        raise UsageError(f"{target} is {source} itself, or a part of it.", remedy="Name another file.")


def _write_note(connection: apsw.Connection, key: str, note: Note) -> None:
    connection.execute(statements("care")["note"], (key, msgspec.json.encode(note).decode()))


def _close_as_one_file(connection: apsw.Connection) -> None:
    """Take the WAL over into the file; the next log that opens it makes a new one."""
    connection.pragma("journal_mode", "delete")
