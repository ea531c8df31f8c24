"""A bounded pool of tasks that pull lanes and run their records, one attempt after another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

from postline.errors import DecodeError, LogError, MessageError, Refused
from postline.logs.events import event
from postline.logs.handled import HANDLED
from postline.runtime.batches import run_batch, run_single_of_batch
from postline.runtime.breaker import Circuit
from postline.runtime.calls import Calls, call_each, publish_result
from postline.runtime.complaints import Place
from postline.runtime.context import Context
from postline.runtime.crew import Crew, Worker
from postline.runtime.deadletters import describe
from postline.runtime.discretion import discreet
from postline.runtime.handlers import Handler
from postline.runtime.lanes import UNDECODED, Failed, Lane, Wait
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


class WorkerPool:
    """Runs the lanes of one subscription, by the workers of its crew. Event loop only."""

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        on_settled: Callable[[int], None],
        on_failed: Callable[[BaseException], None],
        crew: Crew | None = None,
    ) -> None:
        self.running = 0
        self._plan = plan
        self._executor = executor
        self._on_settled = on_settled
        self.calls = Calls(plan, executor)
        self._crew = crew or Crew(plan.name, plan.concurrency)
        #: By wire name of a message type, the circuit of the backend that its handler needs.
        self.circuits = self._crew.circuits
        #: Lanes that wait for a worker, as many as may run now.
        self.ready = self._crew.join(self, plan, on_failed)
        #: Runs a lane for as long as it may; one whose backend is away is set aside.
        self.take = self._take_unless_away if self.circuits else self._take
        #: Queues a lane (already marked active) for the next free worker.
        self.enqueue: Callable[[OwnedPartition, Lane], None] = partial(self._crew.enqueue, self)
        self.undo_cancel = self._crew.undo_cancel
        self.drop_attempts = self._crew.drop_attempts

    @property
    def workers(self) -> list[Worker]:
        """The tasks that run its lanes, and those of its siblings."""
        return self._crew.workers

    @property
    def waits_for_time(self) -> bool:
        """Whether lanes wait until a rate lets them begin."""
        return self._crew.waits_for_time

    @property
    def waits_for_backend(self) -> bool:
        """Whether lanes wait until a backend is back, and it is not time to look yet."""
        return any(circuit.waits_for_time for circuit in self.circuits.values())

    async def _take_unless_away(self, worker: Worker, owned: OwnedPartition, lane: Lane) -> None:
        circuit = self._circuit_of(lane)
        if circuit is None or not circuit.open or owned.draining:
            await self._take(worker, owned, lane)
        elif circuit.holds_back(lane):
            circuit.set_aside((self, owned, lane))
            self._on_settled(0)
        else:
            await self._probe(worker, owned, lane, circuit)

    def _circuit_of(self, lane: Lane) -> Circuit | None:
        """The circuit that the lane's first record needs; None if it needs none, or isn't in memory."""
        handler = lane.items[0][3] if lane.items else None
        return None if handler is None else self.circuits.get(handler.type_name)

    async def _probe(self, worker: Worker, owned: OwnedPartition, lane: Lane, circuit: Circuit) -> None:
        """Make one attempt, to see whether the backend is back."""
        last_attempt, worker.last_attempt = worker.last_attempt, worker.attempt + 1
        worker.probing = circuit
        try:
            await self._take(worker, owned, lane)
        finally:
            worker.last_attempt, worker.probing = last_attempt, None
            circuit.probe_over()

    async def _take(self, worker: Worker, owned: OwnedPartition, lane: Lane) -> None:
        """Run the lane until it is empty, waits, or another one's turn has come."""
        self.running += 1
        owned.running += 1
        worker.owned, worker.lane = owned, lane
        try:
            await self._run_lane_or_wait(worker, owned, lane)
            if worker.timed_out or worker.dropped:  # the attempt swallowed its cancellation
                self.undo_cancel(worker)
        except asyncio.CancelledError:
            self.undo_cancel(worker)
        finally:
            self.running -= 1
            owned.running -= 1
            worker.owned, worker.lane, worker.settled = None, None, 0
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
            _log.warning(
                "subscription %s can't read held records and tries again: %s",
                self._plan.name,
                error,
                extra=event(
                    "log.unavailable", subscription=self._plan.name, topic=owned.topic, partition=owned.partition
                ),
            )
            await owned.around.clock.sleep(_READ_AGAIN_SECONDS)

    async def _run_lane(self, worker: Worker, owned: OwnedPartition, lane: Lane) -> None:
        items = lane.items
        while not owned.draining and lane.wait is Wait.NOTHING and worker.attempt < worker.last_attempt:
            if worker.timed_out:  # the last attempt swallowed its cancellation
                self.undo_cancel(worker)
            if items:
                if self.circuits and self._held_back(worker, lane):
                    return
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
                if self._crew.turns:
                    return  # what comes next may be limited
            else:
                return

    async def _run_items(self, worker: Worker, owned: OwnedPartition, lane: Lane) -> None:
        """Attempt the lane's records one by one until it is empty, waits, or needs another way."""
        items, call_of, wrapped = lane.items, self.calls.of, self.calls.wrapped
        answers, last_attempt, exact = owned.answers, worker.last_attempt, self._crew.exact
        last: Handler | None = None  # what is asked of a handler is asked once for a stretch of its records
        while items and not owned.draining and worker.attempt < last_attempt:
            item = items[0]
            chunk, index, record, handler, message = item
            if handler is None:
                break
            if handler is not last:
                if (found := call_of(handler)) is None:
                    break
                call, last, circuit = found, handler, self.circuits.get(handler.type_name)
            if circuit is not None and circuit.open and circuit is not worker.probing:
                break
            if worker.timed_out:
                self.undo_cancel(worker)
            worker.attempt += 1
            worker.limit = handler.timeout_seconds
            context = worker.context = Context(owned, record, lane.attempts + 1)
            if exact:
                HANDLED.set(context)
            try:
                if answers is not None:
                    context.opened = owned.opened.pop(record[0], context.opened)
                    if (outcome := answers.forestall(context)) is not None:
                        self.finish(owned, lane, outcome)
                        continue
                if message is UNDECODED:
                    message = handler.read(record)
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
                if owned.halted or not self.failed(owned, lane, limit, worker):
                    break
                continue
            except Exception as error:  # noqa: BLE001 - every failure of a handler becomes a retry decision
                context.closed = True
                if owned.halted or not self.failed(owned, lane, error, worker):
                    break
                continue
            if owned.halted:
                break
            if circuit is not None and circuit.troubled:
                circuit.succeeded()
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
            worker.handled += number
            self._on_settled(number)

    async def _run_in_thread(self, worker: Worker, owned: OwnedPartition, lane: Lane, handler: Handler) -> None:
        """Run a stretch of the lane's records, all for one plain function, in one call to a thread."""
        calls: list[tuple[Any, Context[Any]]] = []
        worker.limit = None  # a thread can't be stopped
        most = min(_THREAD_RECORDS, worker.last_attempt - worker.attempt)
        if self._forestalled(owned, lane):
            return
        for item in lane.items:
            if item[3] is not handler or len(calls) == most:
                break
            message = item[4]
            try:
                message = handler.read(item[2]) if message is UNDECODED else message
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
        worker.attempt += len(calls)
        worker.calls = calls
        HANDLED.set(worker)  # which knows the call that the thread is at
        try:
            done, failure = await self.calls.in_thread(call_each, handler, calls, owned)
        finally:
            worker.calls = ()
        if owned.halted:
            return
        if done and self.circuits:
            self.succeeded(handler)
        for _, (message, context) in zip(range(done), calls, strict=False):
            item = lane.items.popleft()
            if message is Outcome.FILTERED:
                owned.settle(item, Outcome.FILTERED)
            else:
                owned.complete(item, context)
            lane.attempts = 0
        self.settled(owned, worker, done)
        if failure is not None:
            self.failed(owned, lane, failure, worker)

    def _forestalled(self, owned: OwnedPartition, lane: Lane) -> bool:
        """Whether the lane's first record ended before any attempt."""
        if owned.answers is None:
            return False
        try:
            outcome = owned.answers.forestall(Context(owned, lane.items[0][2], lane.attempts + 1))
        except Exception as error:  # noqa: BLE001 - becomes a retry decision
            self.failed(owned, lane, error)
            return True
        if outcome is not None:
            self.finish(owned, lane, outcome)
        return outcome is not None

    def finish(self, owned: OwnedPartition, lane: Lane, outcome: Outcome) -> None:
        """Settle the lane's first record with an outcome that needs no more handling."""
        owned.settle(lane.items.popleft(), outcome)
        lane.attempts = 0
        self._on_settled(1)

    # -- backends -------------------------------------------------------------------------------

    def _held_back(self, worker: Worker, lane: Lane) -> bool:
        """Whether the lane's first record needs a backend that is away; `take` then sets the lane aside."""
        circuit = self._circuit_of(lane)
        return circuit is not None and circuit.open and circuit is not worker.probing

    def succeeded(self, handler: Handler) -> None:
        """An attempt of this handler ended well, or in an answer."""
        circuit = self.circuits.get(handler.type_name)
        if circuit is not None and circuit.troubled:
            circuit.succeeded()

    def awaits_backend(self, worker: Worker | None, handler: Handler | None, error: BaseException) -> bool:
        """Whether the records of a failed attempt wait for their backend, as if there had been no attempt."""
        circuit = None if handler is None else self.circuits.get(handler.type_name)
        if handler is None or circuit is None or worker is None:
            return False
        if not circuit.breaker.counts(error, handler.retry or self._plan.retry):
            return False
        return circuit.failed(describe(error), probing=worker.probing is circuit)

    def failed(self, owned: OwnedPartition, lane: Lane, error: BaseException, worker: Worker | None = None) -> bool:
        """Decide what becomes of the lane's first record; whether the lane may go on at once.

        The worker is given where an attempt failed, rather than what comes before it.
        """
        item = lane.items[0]
        if isinstance(error, DecodeError) and item[2][4] is None:
            self.finish(owned, lane, Outcome.FILTERED)  # a tombstone says nothing to an event handler
            return True
        answers = owned.answers
        if answers is not None and isinstance(error, Refused):
            try:
                refused = answers.refuse(item[2], error)
            except MessageError as unfit:  # the refusal itself can't be written: a failed attempt like any other
                refused, error = False, unfit
            if refused:
                if self.circuits and item[3] is not None:
                    self.succeeded(item[3])
                self.finish(owned, lane, Outcome.DONE)
                return True
        if self.circuits and self.awaits_backend(worker, item[3], error):
            return False
        lane.attempts += 1
        place = Place(owned.topic, owned.partition, item[2][0])
        complaints = owned.around.complaints
        policy = (item[3].retry if item[3] is not None else None) or self._plan.retry
        decision = decide(policy, lane.attempts, error, owned.around.random)
        if isinstance(decision, Again):
            return True
        error = discreet(error, item[3], item[2])
        match decision:
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
        if self._crew.stopping or worker.dropped:
            raise cancelled
        timed_out, limit = worker.timed_out, worker.limit or self._plan.timeout_seconds
        self.undo_cancel(worker)
        if timed_out:
            return TimeoutError(f"the attempt took longer than its limit of {limit:g} s")
        return RuntimeError("the handler let a CancelledError out, although nobody else cancelled its attempt")

    async def stop(self) -> None:
        """Take part no more. With the crew's last pool all tasks end; attempts that still run settle nothing."""
        await self._crew.leave(self)
