"""A bounded pool of tasks that pull lanes and run their records, one attempt after another."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from postline.contracts.json_faults import reading_fault
from postline.errors import DecodeError, LogError, Refused
from postline.log.port import SCHEMA_ID_SHIFT
from postline.runtime.batches import run_batch, run_single_of_batch
from postline.runtime.calls import HANDLING, Calls, call_each, publish_result
from postline.runtime.context import Context
from postline.runtime.handlers import Handler
from postline.runtime.lanes import UNDECODED, Failed, Item, Lane, Wait
from postline.runtime.outcomes import Outcome
from postline.runtime.partition import OwnedPartition
from postline.runtime.plan import Plan
from postline.runtime.retry import Again, GiveUp, Later, decide

__all__ = ["Worker", "WorkerPool"]

_log = logging.getLogger("postline.runtime")

_DONE = int(Outcome.DONE)

#: A worker lets the loop breathe after so many records that never waited.
_YIELD_RECORDS = 256
_READ_AGAIN_SECONDS = 0.2
#: Most records of a lane that one call into a thread handles.
_THREAD_RECORDS = 64


class Worker:
    """One task of the pool, and what it is at."""

    __slots__ = ("attempt", "dropped", "limit", "owned", "settled", "since_yield", "task", "telling", "timed_out")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.owned: OwnedPartition | None = None
        #: Counts attempts, so that the deadline sweeper sees whether one goes on.
        self.attempt = 0
        #: The running handler's own time limit, in seconds.
        self.limit: float | None = None
        self.timed_out = False
        self.dropped = False
        self.since_yield = 0
        #: Records that it settled and has not told of, and whether it will when the event loop turns.
        self.settled = 0
        self.telling = False


class WorkerPool:
    """Runs lanes with at most `concurrency` attempts at a time. Event loop only.

    A worker that takes a lane wakes one other if more is ready, so handlers that never wait
    keep a single task busy, and the first that does wait hands over to the next.
    """

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        on_settled: Callable[[int], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self.ready: deque[tuple[OwnedPartition, Lane]] = deque()
        self.workers: list[Worker] = []
        self.running = 0
        self._plan = plan
        self._executor = executor
        self._on_settled = on_settled
        #: Told of an error that is no handler's.
        self._on_failed = on_failed
        self.calls = Calls(plan, executor)
        self._idle: list[asyncio.Future[None]] = []
        self._stopping = False
        self._waking = False

    def enqueue(self, owned: OwnedPartition, lane: Lane) -> None:
        """Queue a lane (already marked active) for the next free worker."""
        self.ready.append((owned, lane))
        if not self._waking:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._idle:
            sleeper = self._idle.pop()
            if not sleeper.done():
                self._waking = True
                sleeper.set_result(None)
                return
        if len(self.workers) < self._plan.concurrency:
            self._waking = True
            worker = Worker()
            self.workers.append(worker)
            worker.task = asyncio.get_running_loop().create_task(self._work(worker), name=f"{self._plan.name} worker")
            worker.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._stopping:
                self._on_failed(RuntimeError(f"a worker of subscription {self._plan.name} was cancelled"))
        elif (error := task.exception()) is not None:
            self._on_failed(error)

    async def _work(self, worker: Worker) -> None:
        HANDLING.set(self._plan.name)
        self._waking = False
        while not self._stopping:  # a handler may have swallowed the cancellation
            try:
                await self._pull(worker)
            except asyncio.CancelledError:
                self._undo_cancel(worker)

    async def _pull(self, worker: Worker) -> None:
        """Run lanes for as long as the worker isn't cancelled: by a handler that cancelled its own task, say."""
        ready = self.ready
        self._waking = False
        while not self._stopping:
            while not ready:
                sleeper = asyncio.get_running_loop().create_future()
                self._idle.append(sleeper)
                self._waking = False
                await sleeper
                self._waking = False
            owned, lane = ready.popleft()
            if ready and not self._waking:
                self._wake_one()
            await self._take(worker, owned, lane)

    async def _take(self, worker: Worker, owned: OwnedPartition, lane: Lane) -> None:
        self.running += 1
        owned.running += 1
        worker.owned = owned
        try:
            await self._run_lane_or_wait(worker, owned, lane)
            if worker.timed_out or worker.dropped:  # the attempt swallowed its cancellation
                self._undo_cancel(worker)
        except asyncio.CancelledError:
            self._undo_cancel(worker)
        finally:
            self.running -= 1
            owned.running -= 1
            worker.owned, worker.settled = None, 0
            lane.active = False
            owned.retire(lane)
            if not owned.draining and not lane.empty and lane.wait is Wait.NOTHING:
                owned.enqueue(lane)
            self._on_settled(0)
        if worker.since_yield >= _YIELD_RECORDS:
            worker.since_yield = 0
            await asyncio.sleep(0)

    async def _run_lane_or_wait(self, worker: Worker, owned: OwnedPartition, lane: Lane) -> None:
        try:
            await self._run_lane(worker, owned, lane)
        except LogError as error:
            if not error.retryable:
                raise
            _log.warning("subscription %s can't read held records and tries again: %s", self._plan.name, error)
            await owned.around.clock.sleep(_READ_AGAIN_SECONDS)

    async def _run_lane(self, worker: Worker, owned: OwnedPartition, lane: Lane) -> None:
        items = lane.items
        while not owned.draining and lane.wait is Wait.NOTHING:
            if worker.timed_out:  # the last attempt swallowed its cancellation
                self._undo_cancel(worker)
            if items:
                handler = items[0][3]
                if lane is owned.bulk:
                    await run_batch(self, worker, owned, lane)
                elif handler is None:
                    owned.holding.park_unserved(lane)
                elif owned.plan.batch is not None:
                    await run_single_of_batch(self, worker, owned, lane)
                elif self.calls.in_threads(handler):
                    await self._run_in_thread(worker, owned, lane, handler)
                else:
                    await self._run_items(worker, owned, lane)
            elif lane.parked:
                await owned.holding.unpark(lane)
            else:
                return

    async def _run_items(self, worker: Worker, owned: OwnedPartition, lane: Lane) -> None:
        """Attempt the lane's records one by one until it is empty, waits, or needs another way."""
        items, call_of, wrapped = lane.items, self.calls.of, self.calls.wrapped
        answers = owned.answers
        while items and not owned.draining:
            item = items[0]
            chunk, index, record, handler, message = item
            if handler is None or (call := call_of(handler)) is None:
                break
            if worker.timed_out:
                self._undo_cancel(worker)
            worker.attempt += 1
            worker.limit = handler.timeout_seconds
            context: Context[Any] = Context(owned, record, lane.attempts + 1)
            try:
                if answers is not None:
                    context.opened = owned.opened.pop(record[0], context.opened)
                    if (outcome := answers.forestall(context)) is not None:
                        self.finish(owned, lane, outcome)
                        continue
                if message is UNDECODED:
                    message = self.decode(handler, item)
                    if handler.where is not None and not handler.where(message):
                        self.finish(owned, lane, Outcome.FILTERED)
                        continue
                elif type(message) is Failed:
                    raise message.error
                result = await (call(message, context) if wrapped or handler.wants_context else call(message))
                if answers is not None:
                    answers.conclude(context, result)
                elif result is not None:
                    publish_result(context, result)
                context.closed = True
            except asyncio.CancelledError as cancelled:
                context.closed = True
                limit = self.over_time(worker, cancelled)
                if owned.halted or not self.failed(owned, lane, limit):
                    break
                continue
            except Exception as error:  # noqa: BLE001 - every failure of a handler becomes a retry decision
                context.closed = True
                if owned.halted or not self.failed(owned, lane, error):
                    break
                continue
            if owned.halted:
                break
            more = context.staged is not None or context.entries is not None or context.delayed is not None
            if chunk is not None and not more:
                chunk.outcomes[index] = _DONE
                if context.outbox is not None:
                    owned.unit.appends += context.outbox
            else:
                owned.complete(item, context)
            items.popleft()
            lane.attempts = 0
            worker.settled += 1
            if items and not worker.telling:  # so that it becomes durable though a slow record comes behind it
                worker.telling = True
                asyncio.get_running_loop().call_soon(self._tell, worker)
        self._tell_of(worker, owned)

    def _tell(self, worker: Worker) -> None:
        worker.telling = False
        if worker.owned is not None and worker.settled:
            self._tell_of(worker, worker.owned)

    def _tell_of(self, worker: Worker, owned: OwnedPartition) -> None:
        number, worker.settled = worker.settled, 0
        self.settled(owned, worker, number)

    def settled(self, owned: OwnedPartition, worker: Worker, number: int) -> None:
        """So many records were settled."""
        if number:
            owned.unit.moved = True
            worker.since_yield += number
            self._on_settled(number)

    async def _run_in_thread(self, worker: Worker, owned: OwnedPartition, lane: Lane, handler: Handler) -> None:
        """Run a stretch of the lane's records, all for one plain function, in one call to a thread."""
        calls: list[tuple[Any, Context[Any]]] = []
        if self._forestalled(owned, lane):
            return
        for item in lane.items:
            if item[3] is not handler or len(calls) == _THREAD_RECORDS:
                break
            message = item[4]
            try:
                message = self.decode(handler, item) if message is UNDECODED else message
                if type(message) is Failed:
                    raise message.error
                if handler.where is not None and item[4] is UNDECODED and not handler.where(message):
                    message = Outcome.FILTERED
            except Exception as error:  # noqa: BLE001 - becomes a retry decision when its turn comes
                if not calls:
                    self.failed(owned, lane, error)
                    return
                break
            calls.append((message, Context(owned, item[2], lane.attempts + 1 if not calls else 1)))
            if owned.answers is not None:
                break  # the next one may be cancelled, or expire, while this one runs
        done, failure = await self.calls.in_thread(call_each, handler, calls, owned)
        if owned.halted:
            return
        for _, (message, context) in zip(range(done), calls, strict=False):
            item = lane.items.popleft()
            if message is Outcome.FILTERED:
                owned.settle(item, Outcome.FILTERED)
            else:
                owned.complete(item, context)
            lane.attempts = 0
        self.settled(owned, worker, done)
        if failure is not None:
            self.failed(owned, lane, failure)

    def _forestalled(self, owned: OwnedPartition, lane: Lane) -> bool:
        """Whether the lane's first record ended before any attempt."""
        if owned.answers is None:
            return False
        try:
            outcome = owned.answers.forestall(Context(owned, lane.items[0][2]))
        except Exception as error:  # noqa: BLE001 - becomes a retry decision
            self.failed(owned, lane, error)
            return True
        if outcome is not None:
            self.finish(owned, lane, outcome)
        return outcome is not None

    def decode(self, handler: Handler, item: Item) -> Any:
        """The record's message; raises DecodeError, which never is retried."""
        record = item[2]
        try:
            return handler.decoders[record[5] >> SCHEMA_ID_SHIFT](record[4])  # type: ignore[arg-type]
        except Exception as error:
            said, remedy = reading_fault(error, record[4] or b"")
            raise DecodeError(
                f"The {record[3] or 'record'} at offset {record[0]} can't be read as the handler's type: {said}.",
                remedy=remedy or "Mend the contract or the handler's view of it, then redrive; or discard it.",
            ) from error

    def finish(self, owned: OwnedPartition, lane: Lane, outcome: Outcome) -> None:
        """Settle the lane's first record with an outcome that needs no more handling."""
        owned.settle(lane.items.popleft(), outcome)
        lane.attempts = 0
        self._on_settled(1)

    def failed(self, owned: OwnedPartition, lane: Lane, error: BaseException) -> bool:
        """Decide what becomes of the lane's first record; whether the lane may go on at once."""
        item = lane.items[0]
        if isinstance(error, DecodeError) and item[2][4] is None:
            self.finish(owned, lane, Outcome.FILTERED)  # a tombstone says nothing to an event handler
            return True
        answers = owned.answers
        if answers is not None and isinstance(error, Refused) and answers.refuse(item[2], error):
            self.finish(owned, lane, Outcome.DONE)
            return True
        lane.attempts += 1
        place = f"{owned.topic} {owned.partition}:{item[2][0]}"
        complaints = owned.around.complaints
        policy = (item[3].retry if item[3] is not None else None) or self._plan.retry
        match decide(policy, lane.attempts, error, owned.around.random):
            case Again():
                return True
            case Later(delay_seconds):
                complaints.retrying(place, lane.attempts, delay_seconds, error)
                owned.holding.park_head(lane, delay_seconds, error)
            case GiveUp():
                holds = self._plan.after == "hold" and lane.key is not None
                complaints.gave_up(place, lane.attempts, holds, error)
                owned.holding.bury(lane, item, error, lane.attempts)
                if answers is not None:
                    answers.fault(item[2], error)
            case _:
                complaints.discarded(place, error)
                if answers is not None:
                    answers.fault(item[2], error)
                self.finish(owned, lane, Outcome.DISCARDED)
                return True
        self._on_settled(1)
        return lane.wait is Wait.NOTHING

    def over_time(self, worker: Worker, cancelled: asyncio.CancelledError) -> Exception:
        """The error of an attempt that its time limit, or something in it, cancelled; else raises `cancelled`."""
        if self._stopping or worker.dropped:
            raise cancelled
        timed_out, limit = worker.timed_out, worker.limit or self._plan.timeout_seconds
        self._undo_cancel(worker)
        if timed_out:
            return TimeoutError(f"the attempt took longer than its limit of {limit:g} s")
        return RuntimeError("the handler let a CancelledError out, although nobody else cancelled its attempt")

    def _undo_cancel(self, worker: Worker) -> None:
        """Take back a cancellation that meant one attempt; raises if it means the worker itself."""
        if self._stopping:
            raise asyncio.CancelledError
        worker.timed_out = worker.dropped = False
        task = worker.task
        while task is not None and task.cancelling():
            task.uncancel()

    def drop_attempts(self, owned: OwnedPartition) -> None:
        """Cancel the async attempts that still run for a partition that goes away."""
        for worker in self.workers:
            if worker.owned is owned and worker.task is not None:
                worker.dropped = True
                worker.task.cancel()

    async def stop(self) -> None:
        """End all tasks; attempts that still run are cancelled and settle nothing."""
        self._stopping = True
        tasks = [worker.task for worker in self.workers if worker.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.workers.clear()
