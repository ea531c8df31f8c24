"""The log that lies where another one shall come: nobody else's for a while, compared with it, and set aside."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import apsw

from postline.errors import LogCorrupt, LogUnavailable, UsageError
from postline.log.sqlite.care.comparing import Loss, compare, outdo
from postline.log.sqlite.care.workplace import make_durable
from postline.log.sqlite.connection import fetch, open_reader, translated
from postline.log.sqlite.liveness import living_processes
from postline.log.sqlite.rundir import run_directory
from postline.log.sqlite.schema import recognise
from postline.log.sqlite.turnstile import Turnstile

__all__ = ["Former", "look_at"]

_BESIDE = ("-wal", "-shm", "-journal")
_WAIT_SECONDS = 2.0


class Former:
    """What lies at `target`, if anything: a context manager in which no process can open it.

    Raises LogUnavailable while one has it open. Where it can't be read, `unreadable` says why.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._connection: apsw.Connection | None = None
        self._held = contextlib.ExitStack()
        self.exists = target.exists()
        self.unreadable = ""

    def __enter__(self) -> Former:
        with translated(str(self._target)), contextlib.ExitStack() as undo:
            meeting = run_directory(self._target)
            _require_nobody(meeting, self._target)
            turnstile = Turnstile(meeting, patience_seconds=_WAIT_SECONDS)
            undo.callback(turnstile.close)
            # Who starts meanwhile waits here for its turn, and then finds the new file.
            undo.enter_context(turnstile.first_turn())
            _require_nobody(meeting, self._target)
            if self.exists:
                self._take(undo)
            self._held = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def compare(self, copy: Path) -> Loss | None:
        """What it has and the copy doesn't; None if it isn't there or can't be read."""
        return None if self._connection is None else compare(self._connection, copy, str(self._target))

    def outdo(self, copy: Path) -> None:
        """Let the copy give no offset and no epoch that this one has given."""
        if self._connection is not None:
            outdo(self._connection, copy, str(self._target))

    def replace(self, copy: Path, now_ms: int) -> Path | None:
        """Put the copy in its place, durably; gives where the old one lies now. One moment has either, never none."""
        kept = _free_name(self._target, now_ms)
        with translated(str(self._target)):
            _give_to_the_same_user(copy, self._target)
            make_durable(copy)
            # A WAL that was left behind would be taken for the new file's own.
            for suffix in _BESIDE:
                beside = Path(f"{self._target}{suffix}")
                if beside.exists():
                    beside.rename(f"{kept}{suffix}")
            if self.exists and not kept.exists():
                os.link(self._target, kept)
            copy.replace(self._target)
            make_durable(self._target.parent)
        return kept if self.exists else None

    def _take(self, undo: contextlib.ExitStack) -> None:
        """Have it alone and in one piece, if it can be read at all."""
        connection = apsw.Connection(str(self._target), apsw.SQLITE_OPEN_READWRITE)
        undo.callback(connection.close)
        connection.set_busy_timeout(int(_WAIT_SECONDS * 1000))
        try:
            with translated(str(self._target)):
                recognise(connection, str(self._target), backups=True)
                # SQLite gives up the WAL, and its locks to one, only when no other connection is there.
                connection.pragma("journal_mode", "delete")
                connection.pragma("locking_mode", "exclusive")
                connection.execute("BEGIN EXCLUSIVE; COMMIT")
        except LogUnavailable as error:
            raise LogUnavailable(
                f"The log {self._target} is open in some program: {error.message}",
                remedy="End it; an sqlite3 tool, perhaps.",
            ) from error
        except LogCorrupt as error:
            _require_ours(connection, error)
            self.unreadable = error.message
            return
        self._connection = connection


def look_at(target: Path, copy: Path) -> tuple[Loss | None, str]:
    """What the log at `target` has and the copy doesn't, while services may run; None, and why, if it can't be read."""
    if not target.exists():
        return None, ""
    try:
        with translated(str(target)):
            connection = open_reader(str(target))
            try:
                recognise(connection, str(target), backups=True)
                return compare(connection, copy, str(target)), ""
            finally:
                connection.close()
    except LogCorrupt as error:
        return None, error.message


def _require_nobody(meeting: Path, target: Path) -> None:
    living = living_processes(meeting)
    if living:
        numbers = ", ".join(each.partition("-")[0] for each in living)
        raise LogUnavailable(
            f"The log {target} is in use by process{'es' * (len(living) > 1)} {numbers}.",
            remedy="Stop the services that run on it, also those that hang or are stopped, then restore.",
        )


def _require_ours(connection: apsw.Connection, error: LogCorrupt) -> None:
    """Refuse to set another program's database aside; a damaged log of ours may look like nothing at all."""
    try:
        foreign = bool(fetch(connection, "PRAGMA schema_version")[0][0]) and "not a Postline log" in error.message
    except apsw.Error:
        return
    if foreign:
        raise UsageError(error.message, remedy="Name another file to restore to.") from error


def _give_to_the_same_user(copy: Path, target: Path) -> None:
    """Services need not run as root because whoever restores does: the file, and where they meet, are theirs."""
    if target.exists():
        copy.chmod(target.stat().st_mode)
    if os.geteuid() == 0:
        owner = (target if target.exists() else target.parent).stat()
        meeting = run_directory(target)
        for path in (copy, meeting, *meeting.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)


def _free_name(target: Path, now_ms: int) -> Path:
    """Where to keep what lies there, by the time at which it is replaced."""
    for each in target.parent.glob(f"{target.name}.replaced-*"):
        # One that was killed in between has given it this name already.
        if target.exists() and each.samefile(target):
            return each
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    name, number = target.with_name(f"{target.name}.replaced-{stamp}"), 1
    while name.exists():
        name, number = target.with_name(f"{target.name}.replaced-{stamp}-{number}"), number + 1
    return name
