"""State caches of a trial's workers, and what can happen to such a file."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from postline.runtime.entries import USER_STATE

__all__ = ["FATES", "caches_of", "corrupt", "delete", "falsify"]

_SUFFIXES = ("", "-wal", "-shm")


def caches_of(directory: Path, subscription: str) -> list[Path]:
    """The cache files of a subscription, of every worker, by partition."""
    return sorted((directory / "cache").rglob(f"{subscription}.state/*.db"), key=lambda path: int(path.stem))


def delete(path: Path, chance: random.Random) -> None:
    """The file is gone, as from a tidied disk."""
    del chance
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def corrupt(path: Path, chance: random.Random) -> None:
    """Every byte of it is another."""
    for suffix in ("", "-wal"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            with file.open("r+b") as opened:
                opened.write(chance.randbytes(file.stat().st_size))


def falsify(path: Path) -> None:
    """It says something else than the changelog, and nothing shows it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE entries SET value = CAST('-1000' AS BLOB) WHERE namespace = ?", (USER_STATE,))


def _grow_old(path: Path, chance: random.Random) -> None:
    """It was not used for so long that tombstones may be gone; what it says is wrong, so that using it shows."""
    del chance
    falsify(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET saved_ms = 1")


def _of_another_topic(path: Path, chance: random.Random) -> None:
    """It is of a topic that was deleted and made again."""
    del chance
    falsify(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET topic_id = 'another'")


def _of_another_cluster(path: Path, chance: random.Random) -> None:
    """It is of a cluster of before."""
    del chance
    falsify(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET cluster_id = 'another'")


def _ahead(path: Path, chance: random.Random) -> None:
    """It has more than the changelog."""
    del chance
    falsify(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET applied = applied + 1000000")


#: What can happen to a cache while its worker is stopped.
FATES: tuple[Callable[[Path, random.Random], None], ...] = (
    delete,
    corrupt,
    _grow_old,
    _of_another_topic,
    _of_another_cluster,
    _ahead,
)
