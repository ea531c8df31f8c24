"""The one thread of a process that writes, and group commit: what comes in while it commits goes in next.

Work runs inside a transaction that it shares with whatever else is waiting, so it has to keep two
rules: check before the first change (work that raises after a change makes the others run again),
and change nothing but the database (it may run more than once).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar

import apsw

from postline.errors import LogError, LogFull, LogUnavailable
from postline.log.sqlite.appending import Appended, Appender, Rows
from postline.log.sqlite.connection import translate
from postline.logs.events import event

__all__ = ["FATAL", "Writer"]

T = TypeVar("T")
_logger = logging.getLogger("postline.log.sqlite")
#: So many rows wait for no others: their publisher makes the next ones meanwhile.
_ENOUGH_ROWS = 500
#: For so long at most the loop stands still to let the thread come that far.
_HEAD_START_SECONDS = 0.001
Work: TypeAlias = Callable[[apsw.Connection], Any]

#: Errors that concern the whole transaction, not the work in which they came up.
FATAL = (apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError, apsw.NoMemError)


class _Job:
    """One submitted work, or rows to append if `rows` is given."""

    __slots__ = ("alone", "appends", "error", "future", "result", "rows", "work")

    def __init__(
        self, work: Work | None, rows: Rows | None, future: asyncio.Future[Any], appends: bool, alone: bool
    ) -> None:
        self.work = work
        self.rows = rows
        self.future = future
        #: Needs room on the disk; refused while the disk is full.
        self.appends = appends
        #: Runs outside a transaction, after that of the others.
        self.alone = alone
        self.result: Any = None
        self.error: BaseException | None = None


class _Spoiled(Exception):
    """A work failed after it had changed something: the transaction has to be run without it."""

    def __init__(self, job: _Job, error: Exception) -> None:
        super().__init__(job)
        self.job = job
        self.error = error


class Writer:
    """Runs work in shared transactions, on a thread, or inline for a log in memory.

    `submit`, `append` and `close` are called on the event loop. The callbacks in `after_commit` are
    called on the writing thread with the partitions that got records, after COMMIT; `on_appended`
    gets the same on the event loop. `on_full` is called on the writing thread.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        appender: Appender,
        lock: AbstractContextManager[object],
        *,
        address: str,
        threaded: bool,
        on_full: Callable[[], None],
        on_appended: Callable[[Appended], None],
    ) -> None:
        self.connection = connection
        self.appender = appender
        self.after_commit: list[Callable[[Appended], None]] = []
        #: Called after every COMMIT, on the writing thread; what it raises, all who shared that get.
        self.confirm: Callable[[], None] = lambda: None
        #: While it is set, everything that appends is refused with LogFull.
        self.full = False
        #: Transactions committed so far, for metrics and tests.
        self.commits = 0
        self._lock = lock
        self._address = address
        self._on_full = on_full
        self._on_appended = on_appended
        self._loop = asyncio.get_running_loop()
        #: What waits for the next transaction; the loop puts in, the thread takes out.
        self._jobs: deque[_Job] = deque()
        self._closed = False
        self._ended = asyncio.Event()
        #: The thread has come to insert rows.
        self._inserting = threading.Event()
        #: Set by the thread before it sleeps, taken back by whoever rings.
        self._asleep = False
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run_thread, name="postline-writer", daemon=True)
            self._thread.start()

    def submit(self, work: Callable[[apsw.Connection], T], *, appends: bool = False) -> asyncio.Future[T]:
        """Run `work` inside the next transaction; the future is done when that is durable.

        What `work` raises, its future gets, and nothing of it is stored; others are not concerned.
        Say `appends` if it stores records, so that it is refused while the disk is full.
        """
        return self._collect(work, None, appends)

    def append(self, rows: Rows) -> asyncio.Future[list[int]]:
        """Store the rows in the next transaction, merged with others'; gives their offsets."""
        if self._thread is None or len(rows.partition_ids) < _ENOUGH_ROWS:
            return self._collect(None, rows, True)
        self._inserting.clear()
        future = self._collect(None, rows, True)
        # On its way to the insert the thread needs the interpreter a dozen times for a moment, and a
        # publisher that computes would make it wait each time; in the insert it needs it no more.
        self._inserting.wait(_HEAD_START_SECONDS)
        return future

    def submit_alone(self, work: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        """Run `work` under the write lock but outside a transaction, e.g. a checkpoint."""
        return self._collect(work, None, False, alone=True)

    async def close(self) -> None:
        """Finish what was submitted and end the thread. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is None:
            self._work_inline()
            return
        self._bell.put(None)
        # Without a thread to wait in: none can be had while the interpreter shuts down.
        await self._ended.wait()
        self._thread.join()

    def _collect(
        self, work: Work | None, rows: Rows | None, appends: bool, *, alone: bool = False
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(LogUnavailable(f"The log {self._address} is closed.", remedy="Start it first."))
            return future
        self._put(_Job(work, rows, future, appends, alone))
        return future

    def _put(self, job: _Job) -> None:
        """Have the job in the next transaction, with all that come before the thread begins it."""
        if self._thread is None and not self._jobs:
            self._loop.call_soon(self._work_inline)
        self._jobs.append(job)
        if self._asleep:
            self._asleep = False
            self._bell.put(None)

    def _work_inline(self) -> None:
        if jobs := self._taken():
            self._finish(jobs, self._process(jobs))

    def _taken(self) -> list[_Job]:
        """All that waits, which a put meanwhile may add to."""
        jobs: list[_Job] = []
        with contextlib.suppress(IndexError):
            while True:
                jobs.append(self._jobs.popleft())
        return jobs

    def _run_thread(self) -> None:
        try:
            self._run()
        finally:
            # The loop may be closed without the log having been: then nobody waits.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended.set)

    def _run(self) -> None:
        while True:
            if jobs := self._taken():
                touched = self._process(jobs)
                try:
                    self._loop.call_soon_threadsafe(self._finish, jobs, touched)
                except RuntimeError:
                    # The loop was closed without closing the log: nobody waits any more.
                    return
            elif self._closed:
                return
            else:
                self._sleep()

    def _sleep(self) -> None:
        """Until somebody rings. What was put before `_asleep` was seen is there to be seen; a ring too many is none."""
        self._asleep = True
        if not self._jobs and not self._closed:
            self._bell.get()

    def _process(self, jobs: list[_Job]) -> Appended:
        """Give every job its result or its error; gives the partitions that got records."""
        self.appender.touched = {}
        try:
            self._commit_all(jobs)
        except apsw.FullError:
            self._relieve(jobs)
        except Exception as error:  # noqa: BLE001 - it goes to the futures of all jobs
            _fail(jobs, error, self._address)
        for job in jobs:
            if job.alone:
                self._run_alone(job)
        touched = self.appender.touched
        for callback in self.after_commit if touched else ():
            try:
                callback(touched)
            except Exception:
                # The records are stored; those who were not told will look by themselves.
                _logger.exception("what follows a commit has failed", extra=event("file.after_commit_failed"))
        return touched

    def _finish(self, jobs: list[_Job], touched: Appended) -> None:
        """On the loop, once for each commit: wake those who wait for records, then those who wrote."""
        if touched:
            self._on_appended(touched)
        for job in jobs:
            if job.future.done():
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)

    def _relieve(self, jobs: list[_Job]) -> None:
        """The disk is full: refuse what appends, and run the rest again in the room of the reserve."""
        try:
            self._on_full()
            self.full = True
            self._commit_all(jobs)
        except Exception as error:  # noqa: BLE001 - it goes to the futures of all jobs
            _fail(jobs, error, self._address)

    def _commit_all(self, jobs: list[_Job]) -> None:
        """One transaction for all; those that spoil it are taken out, each with its own error."""
        if self.full:
            for job in jobs:
                if job.appends and job.error is None:
                    job.error = self._refusal()
        merge = True
        while open_jobs := [job for job in jobs if job.error is None and not job.alone]:
            try:
                self._transaction(open_jobs, merge)
                break
            except _Spoiled as spoiled:
                if spoiled.job.rows is not None and merge:
                    # One of the merged rows is at fault: find out which by inserting them apart.
                    merge = False
                else:
                    spoiled.job.error = translate(spoiled.error, self._address)

    def _transaction(self, jobs: list[_Job], merge: bool) -> None:
        connection, appender = self.connection, self.appender
        merged = _merge(jobs) if merge else None
        with self._lock:
            connection.execute("BEGIN IMMEDIATE")
            try:
                appender.begin(connection)
                for job in jobs:
                    if job.rows is None or merged is None:
                        self._run_job(job)
                if merged is not None:
                    self._inserting.set()
                    self._insert_merged(jobs, merged)
                appender.flush(connection)
                connection.execute("COMMIT")
            except BaseException:
                appender.forget()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        self.commits += 1
        self.confirm()

    def _run_job(self, job: _Job) -> None:
        before = self.connection.total_changes()
        try:
            if job.work is not None:
                job.result = job.work(self.connection)
            elif job.rows is not None:
                job.result = self.appender.insert(self.connection, job.rows)
        except FATAL:
            raise
        except Exception as error:
            # One that appends may have taken offsets; they are given back by running without it.
            if job.appends or self.connection.total_changes() != before:
                raise _Spoiled(job, error) from error
            job.error = translate(error, self._address)

    def _run_alone(self, job: _Job) -> None:
        try:
            if job.work is not None:
                with self._lock:
                    job.result = job.work(self.connection)
        except Exception as error:  # noqa: BLE001 - it goes to the job's future
            job.error = translate(error, self._address)

    def _insert_merged(self, jobs: Sequence[_Job], merged: Rows) -> None:
        adding = [job for job in jobs if job.rows is not None and job.error is None]
        try:
            offsets = self.appender.insert(self.connection, merged)
        except FATAL:
            raise
        except Exception as error:
            raise _Spoiled(adding[0], error) from error
        done = 0
        for job in adding:
            count = len(job.rows.partition_ids) if job.rows is not None else 0
            job.result = offsets[done : done + count]
            done += count

    def _refusal(self) -> LogFull:
        return LogFull(
            f"The log {self._address} has no room left on its disk and takes no new records.",
            remedy="Free some; then repeat the call. Positions can still be committed.",
        )


def _merge(jobs: Sequence[_Job]) -> Rows | None:
    """All rows to append in one, built before the transaction begins; None if there are none."""
    adding = [job.rows for job in jobs if job.rows is not None]
    if len(adding) < 2:
        return adding[0] if adding else None
    merged = Rows()
    for rows in adding:
        merged.extend(rows)
    return merged


def _fail(jobs: Sequence[_Job], error: Exception, address: str) -> None:
    for job in jobs:
        if job.error is None:
            # Each its own exception: a traceback grows with every task that raises it.
            meant = translate(error, address)
            if meant is error and isinstance(meant, LogError):
                meant = type(meant)(meant.message, remedy=meant.remedy)
                meant.__cause__ = error
            job.error = meant
