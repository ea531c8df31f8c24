"""What is done to a log's file to make it one that can't be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

__all__ = ["damage", "make_foreign", "make_newer", "overwrite"]


def make_foreign(path: Path) -> None:
    """Have another program's database there."""
    path.unlink(missing_ok=True)
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE diary (day)")
    connection.close()


def overwrite(path: Path) -> None:
    """Have no database there."""
    path.write_bytes(b"dear diary, " * 1_000)


def make_newer(path: Path) -> None:
    """Have a later version of Postline's there."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99; UPDATE meta SET value = 98 WHERE key = 'min_reader_version'")
    connection.close()


def damage(path: Path) -> None:
    """Break one page of the records."""
    connection = apsw.Connection(str(path))
    pages: list[Any] = connection.execute("SELECT max(pageno) FROM dbstat WHERE name = 'records'").fetchall()
    connection.close()
    with path.open("r+b") as file:
        file.seek((pages[0][0] - 1) * 4096)
        file.write(b"\xff" * 4096)
