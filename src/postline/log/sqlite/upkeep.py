"""Upkeep of an open log: retention, compaction and giving back of disk space, a short step at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from postline.clock import Timer
from postline.errors import LogError
from postline.log.sqlite.compaction import compaction_due, compaction_step, tombstone_step, tombstones_due
from postline.log.sqlite.connection import fetch, translated
from postline.log.sqlite.policy import Policy, policies
from postline.log.sqlite.retention import measure_step, retention_due, retention_step, spared_step
from postline.log.sqlite.statements import statements
from postline.log.sqlite.storage import Storage
from postline.logs.events import event

__all__ = ["WAL_WARNING_BYTES", "Upkeep", "give_back_step", "remove_state"]

T = TypeVar("T")

#: A WAL of this size means that some reader keeps a transaction open.
WAL_WARNING_BYTES = 64 << 20
_STATE_STEP = 500
_logger = logging.getLogger("postline.log.sqlite")


class Upkeep:
    """Runs passes by the clock from `start` to `stop`; every process of a file may do so.

    Each step is a work of its own in the writer, so publishers wait for half a millisecond at most.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._interval = storage.settings.upkeep_seconds
        self._stopped = False
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run passes from now on."""
        self._stopped = False
        self._arm()

    async def stop(self) -> None:
        """Run no more; a step that is under way is finished. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def run(self) -> None:
        """One pass over everything that is due. Raises what the log raises."""
        storage = self._storage
        storage.look_for_room()
        self._watch_wal()
        with translated(storage.address):
            due = policies(storage.reader.connection)
        for policy in due:
            await self._tend(policy)
            # Other tasks go first; the checks alone may find nothing to wait for.
            await asyncio.sleep(0)
        await self._forget_removed()
        await self._give_back()

    def _arm(self) -> None:
        if self._interval > 0 and not self._stopped:
            self._timer = self._storage.clock.call_later(self._interval, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._pass())

    async def _pass(self) -> None:
        try:
            await self.run()
        except LogError as error:
            _logger.warning(
                "upkeep of %s will be tried again: %s",
                *(self._storage.address, error),
                extra=event("file.upkeep_failed"),
            )
        finally:
            self._task = None
            self._arm()

    async def _tend(self, policy: Policy) -> None:
        now, reading = self._storage.clock.now_ms(), self._storage.reader.connection
        with translated(self._storage.address):
            cut = retention_due(reading, policy, now)
            compact, bury = compaction_due(reading, policy, now), tombstones_due(reading, policy, now)
        if cut:
            await self._repeat(lambda connection: measure_step(connection, policy))
            await self._repeat(lambda connection: retention_step(connection, policy, now))
        if compact:
            await self._repeat(lambda connection: compaction_step(connection, policy, now))
        if bury:
            await self._repeat(lambda connection: tombstone_step(connection, policy, now))
        await self._release_spared(policy)

    async def _release_spared(self, policy: Policy) -> None:
        span = (policy.id_of(0), policy.end_id, 1)
        if not self._read("spared_after", span):
            return
        after: int | None = 0
        while after is not None:
            after = await self._submit(lambda connection, after=after: spared_step(connection, policy, after))  # type: ignore[misc]

    async def _forget_removed(self) -> None:
        """State of subscriptions whose removal was cut short by the end of its process."""
        owner = self._read("next_state_owner", (-1,))[0][0]
        while owner is not None:
            if not self._read("subscription_exists", (owner,)):
                await self._repeat(lambda connection, owner=owner: remove_state(connection, owner))  # type: ignore[misc]
            owner = self._read("next_state_owner", (owner,))[0][0]

    async def _give_back(self) -> None:
        """Free pages go back to the disk once they are more than new records will soon use."""
        full = self._storage.writer.full
        if self._read("free_pages")[0][0] <= (0 if full else self._storage.settings.spare_pages):
            return
        await self._repeat(give_back_step)
        if self._storage.path is not None:
            # The file shrinks when the WAL has been taken over into it; emptying that as well may wait for readers.
            mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if full else apsw.SQLITE_CHECKPOINT_PASSIVE
            await self._storage.writer.submit_alone(lambda connection: connection.wal_checkpoint(mode=mode))

    async def _repeat(self, step: Callable[[apsw.Connection], bool]) -> None:
        while await self._submit(step):
            pass

    async def _submit(self, step: Callable[[apsw.Connection], T]) -> T:
        return await self._storage.writer.submit(step)

    def _read(self, name: str, values: tuple[int, ...] = ()) -> list[Any]:
        with translated(self._storage.address):
            return fetch(self._storage.reader.connection, statements("upkeep")[name], values)

    def _watch_wal(self) -> None:
        if self._storage.path is None:
            return
        wal = Path(f"{self._storage.address}-wal")
        size = wal.stat().st_size if wal.exists() else 0
        if size > WAL_WARNING_BYTES:
            _logger.warning(
                "%s has grown to %d MB: some program keeps a read transaction open on the log; end it",
                wal,
                size >> 20,
                extra=event("file.wal_grows", path=wal, size_bytes=size),
            )


def remove_state(connection: apsw.Connection, subscription_id: int) -> bool:
    """Delete some state of a removed subscription; says if there may be more."""
    connection.execute(statements("queries")["remove_state_step"], (subscription_id, _STATE_STEP))
    return connection.changes() == _STATE_STEP


def give_back_step(connection: apsw.Connection) -> bool:
    """Give a hundred free pages back to the disk; says if there are more."""
    sql = statements("upkeep")
    fetch(connection, sql["give_back"])
    return bool(fetch(connection, sql["free_pages"])[0][0])
