"""When and how what was settled becomes durable: one commit at a time, as large as it gets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from postline.errors import LogError
from postline.log.port import Append, Assignment, CommitUnit, Membership, PartitionCommit
from postline.runtime.admission import forget_old_marks
from postline.runtime.partition import OwnedPartition
from postline.runtime.surroundings import Surroundings

__all__ = ["Committer"]

_log = logging.getLogger("postline.runtime")

#: So many settled records are committed without waiting for more (DESIGN §10).
_COMMIT_RECORDS = 1_000
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Committer:
    """Commits all owned partitions of one subscription together; `committed` hears what was refused.

    Handlers go on while a commit is under way. A commit that fails for a passing reason is
    made again from memory; handlers don't run again for it.
    """

    def __init__(
        self,
        around: Surroundings,
        partitions: Callable[[], Sequence[OwnedPartition]],
        busy: Callable[[], bool],
        committed: Callable[[Sequence[Assignment]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.membership: Membership | None = None
        #: Told what a commit published, where somebody has to know.
        self.on_appends: Callable[[Sequence[Append]], None] | None = None
        self._around = around
        self._partitions = partitions
        self._busy = busy
        self._committed = committed
        self._failed = failed
        self._under_way: set[asyncio.Task[None]] = set()
        self._work = asyncio.Event()
        self._enough = asyncio.Event()
        self._settled = 0
        self._one_at_a_time = asyncio.Lock()

    def wake(self) -> None:
        """Something other than a settled record is to be committed."""
        self._work.set()
        if not self._busy():
            self._enough.set()

    def settled(self, number: int) -> None:
        """So many records more were settled; 0 says that a worker is done with a lane."""
        self._settled += number
        if number:
            self._work.set()
        if not self._busy() or self._have_enough():
            self._enough.set()
            if not number:
                self._work.set()

    def pending(self) -> bool:
        """Whether anything waits to be committed, or is being committed."""
        return self._one_at_a_time.locked() or any(owned.unit for owned in self._partitions())

    async def run(self) -> None:
        """Commit whenever enough has settled, nothing more is running, or 20 ms have passed."""
        while True:
            await self._work.wait()
            self._work.clear()
            if any(owned.unit for owned in self._partitions()):
                await self._linger()
                await self._take_and_commit()

    def _have_enough(self) -> bool:
        """Whether no more is waited for, although records run; redriven ones that end first need no entries."""
        return self._settled >= _COMMIT_RECORDS and not any(owned.holding.hand.fresh for owned in self._partitions())

    async def _linger(self) -> None:
        if not self._busy() or self._have_enough():
            return
        self._enough.clear()
        timer = self._around.clock.call_later(self._around.plan.commit_linger_seconds, self._enough.set)
        await self._enough.wait()
        timer.cancel()

    async def commit(self) -> None:
        """Make everything that was settled by now durable. Cancelling this only ends the waiting."""
        await asyncio.shield(self.begin())

    def begin(self) -> asyncio.Task[None]:
        """Start a commit. What it takes is gone from memory, so nothing but `abort` may cancel it."""
        task = asyncio.ensure_future(self._take_and_commit())
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def abort(self) -> None:
        """Give up commits that are under way; only for when every partition is let go."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_and_commit(self) -> None:
        async with self._one_at_a_time:
            taken = [owned for owned in self._partitions() if owned.unit]
            for owned in taken:
                await forget_old_marks(owned)
            self._settled = 0
            unit = [owned.take_commit() for owned in taken]
            if not unit:
                return
            refused = await self._commit(unit, taken)
            gone = {assignment.partition for assignment in refused}
            for owned in taken:
                if owned.partition not in gone:
                    owned.committed()
                    owned.bound_window()
            self._committed(refused)
            if self.on_appends is not None:
                for part in unit:
                    self.on_appends(part.appends)

    async def commit_alone(self, part: PartitionCommit) -> bool:
        """Commit one prepared part; whether it was refused."""
        async with self._one_at_a_time:
            refused = await self._commit([part])
            self._committed(refused)
            return bool(refused)

    async def _commit(self, unit: CommitUnit, taken: Sequence[OwnedPartition] = ()) -> Sequence[Assignment]:
        assert self.membership is not None
        tries = 0
        while True:
            try:
                for owned, part in zip(taken, unit, strict=False):
                    if owned.answers is not None:
                        await owned.answers.seal(part)
                return await self.membership.commit(unit)
            except LogError as error:
                if not error.retryable:
                    raise
                delay = _RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)]
                log = _log.warning if tries == 0 else _log.debug
                log("subscription %s can't commit and tries again: %s", self._around.plan.name, error)
                tries += 1
                await self._around.clock.sleep(delay)
