"""What the system refuses about the files beside the log is a LogError of the right kind, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postline.clock import SystemClock
from postline.errors import LogError, LogFull, LogReadOnly, LogUnavailable
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings
from tests.unit.sqlite.build import QUIET, opened, record
from tests.unit.sqlite.test_starting import resources


def _refusing(code: int, refuses: Callable[..., bool], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        if refuses(*given):
            raise OSError(code, os.strerror(code))
        return real(*given, **named)

    return call


def _named(end: str) -> Callable[..., bool]:
    return lambda path, *_: str(path).endswith(end)


def _signs_of_life(directory: Path) -> list[Path]:
    return list(directory.glob("*.run/*.life"))


_PLACES = {
    "meeting directory": (Path, "mkdir", _named(".run")),
    "queue": (os, "open", _named("queue.lock")),
    "write lock": (os, "open", _named("write.lock")),
    "sign of life": (tempfile, "mkstemp", lambda suffix, *_: suffix == ".life"),
    "its counter": (os, "pwrite", lambda *_: True),
}


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, LogFull), (errno.EMFILE, LogUnavailable), (errno.EROFS, LogReadOnly)]
)
async def test_a_start_that_the_system_refuses_is_a_log_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, code: int, kind: type[LogError]
) -> None:
    before = resources()
    owner, name, refuses = _PLACES[place]
    log = SqliteLog(str(tmp_path / "log.db"), clock=SystemClock(), settings=QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, _refusing(code, refuses, getattr(owner, name)))
        with pytest.raises(kind) as caught:
            await log.start()
    assert isinstance(caught.value.__cause__, OSError)
    assert resources() == before
    assert not _signs_of_life(tmp_path)
    await log.start()
    await log.close()


async def test_a_reserve_that_can_not_be_made_does_not_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = _refusing(errno.ENOSPC, _named("-reserve"), os.open)
    monkeypatch.setattr(os, "open", refusing)
    async with opened(tmp_path / "log.db", settings=Settings(upkeep_seconds=0)) as log:
        assert await log.append([record(1)]) == [0]


async def test_members_that_can_not_be_looked_at_are_unavailable_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "log.db", clock=SystemClock()) as log:
        living = log.storage.presence.liveness
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", _refusing(errno.EMFILE, _named(".life"), os.open))
            with pytest.raises(LogUnavailable) as caught:
                await _with_a_stranger(log)
        assert caught.value.retryable
        assert living.is_gone("stranger/1", 10.0)


async def _with_a_stranger(log: SqliteLog) -> None:
    """Ask for the members of a group that one of an unknown process is in."""

    def enter(connection: Any) -> None:
        connection.execute(
            "INSERT INTO subscriptions (id, name, topic_id, service, created_ms) VALUES (1, 'billing', 1, 'shop', 0)"
        )
        connection.execute(
            "INSERT INTO members (member, subscription_id, instance, joined_ms, lease_ms, formats)"
            " VALUES ('stranger/1', 1, '', 0, 10000, x'80')"
        )

    await log.storage.writer.submit(enter)
    await log.members("billing")
