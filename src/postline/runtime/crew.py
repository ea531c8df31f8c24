"""The tasks that run lanes: those of one subscription, or of siblings of several priorities that share them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from postline.clock import Clock, Timer
from postline.logs.handled import HANDLED, Hide
from postline.runtime.breaker import Circuit
from postline.runtime.calls import HANDLING
from postline.runtime.context import Context
from postline.runtime.lanes import Lane
from postline.runtime.limits import Limit, Limiter
from postline.runtime.partition import OwnedPartition
from postline.runtime.plan import Plan
from postline.runtime.ready import Entry, Ready, ReadyClass, Turn

__all__ = ["Crew", "TurnCrew", "Waiting", "Worker", "crew_of"]

#: No number of attempts reaches it.
_ENDLESS = 1 << 62


class Worker:
    """One task of a crew, and what it is at."""

    __slots__ = (
        "attempt",
        "calls",
        "context",
        "crew",
        "dropped",
        "handled",
        "lane",
        "last_attempt",
        "limit",
        "owned",
        "probing",
        "settled",
        "since_yield",
        "task",
        "telling",
        "timed_out",
    )

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        #: Of its newest attempt.
        self.context: Context[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.owned: OwnedPartition | None = None
        self.lane: Lane | None = None
        #: Those that a thread makes for it, one after another.
        self.calls: Sequence[tuple[Any, Context[Any]]] = ()
        #: Counts attempts, so that the deadline sweeper sees whether one goes on.
        self.attempt = 0
        #: The running handler's own time limit, in seconds.
        self.limit: float | None = None
        #: Records that it settled.
        self.handled = 0
        #: The attempt after which the worker lets go of its lane.
        self.last_attempt = _ENDLESS
        #: The circuit for which its attempt looks whether the backend is back.
        self.probing: Circuit | None = None
        self.timed_out = False
        self.dropped = False
        self.since_yield = 0
        #: Records that it settled and has not told of, and whether it will when the event loop turns.
        self.settled = 0
        self.telling = False

    @property
    def ended(self) -> int:
        """Of the calls that a thread makes for it, how many have ended."""
        return sum(context.closed for _, context in self.calls)

    # -- what is handled, where somebody logs (`logs.handled.Handled`) ----------------------------

    def _at(self) -> Context[Any] | None:
        """The attempt that runs; None between attempts.

        Tasks that handlers made see the worker as it is now, and may be of an attempt before. From the first of their
        lines on the crew notes each attempt in the context variable itself, which tasks keep as they begin.
        """
        try:
            current = asyncio.current_task()
        except RuntimeError:
            current = self.task if self.calls else None  # in the call's own thread, or in another
        if current is not self.task:
            self.crew.exact = True
        found = next((each for _, each in self.calls if not each.closed), self.context)
        return None if found is None or found.closed else found

    def log_fields(self) -> dict[str, Any]:
        """What lines carry that are logged in its attempt."""
        context = self._at()
        return {"subscription": self.crew.name} if context is None else context.log_fields()

    def log_hide(self) -> Hide | None:
        """Hides what is sensitive in what it handles."""
        context = self._at()
        return None if context is None else context.log_hide()


class Waiting(Protocol):
    """How much waits for a worker."""

    def __len__(self) -> int: ...


class Pool(Protocol):
    """What runs the lanes of one subscription."""

    @property
    def take(self) -> Callable[[Worker, OwnedPartition, Lane], Awaitable[None]]:
        """Runs a lane for as long as it may."""

    def undo_cancel(self, worker: Worker) -> None:
        """Take back a cancellation that meant one attempt; raises if it means the worker itself."""


class Crew:
    """At most `concurrency` tasks that pull lanes, the oldest first. Event loop only.

    A worker that takes a lane wakes one other if more is ready, so handlers that never wait
    keep a single task busy, and the first that does wait hands over to the next.
    """

    #: Whether it chooses the next lane anew after each attempt.
    turns = False
    #: Each attempt is noted in `HANDLED`, for tasks that log after it; not before any does, since it costs something.
    exact = False

    def __init__(self, name: str, concurrency: int) -> None:
        self.name, self.concurrency = name, concurrency
        #: By wire name of a message type, the circuit of the backend that its handler needs.
        self.circuits: dict[str, Circuit] = {}
        self.workers: list[Worker] = []
        self.stopping = False
        self._ready: deque[Entry] = deque()
        #: Told of an error that is no handler's.
        self._on_failed: list[Callable[[BaseException], None]] = []
        self._pools: list[Pool] = []
        self._idle: list[asyncio.Future[None]] = []
        self._waking = False

    @property
    def waits_for_time(self) -> bool:
        """Whether lanes wait until a rate lets them begin."""
        return False

    def join(self, pool: Pool, plan: Plan, on_failed: Callable[[BaseException], None]) -> Waiting:
        """A subscription's pool takes part; gives what it has ready."""
        self._pools.append(pool)
        self._on_failed.append(on_failed)
        return self._ready

    def enqueue(self, pool: Pool, owned: OwnedPartition, lane: Lane) -> None:
        """Queue a lane (already marked active) for the next free worker."""
        self._ready.append((pool, owned, lane))
        if not self._waking:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._idle:
            sleeper = self._idle.pop()
            if not sleeper.done():
                self._waking = True
                sleeper.set_result(None)
                return
        if len(self.workers) < self.concurrency:
            self._waking = True
            worker = Worker(self)
            self.workers.append(worker)
            worker.task = asyncio.get_running_loop().create_task(self._work(worker), name=f"{self.name} worker")
            worker.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self.stopping:
                self._failed(RuntimeError(f"a worker of subscription {self.name} was cancelled"))
        elif (error := task.exception()) is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        for told in self._on_failed:
            told(error)

    async def _work(self, worker: Worker) -> None:
        HANDLING.set(self.name)
        HANDLED.set(worker)
        self._waking = False
        while not self.stopping:  # a handler may have swallowed the cancellation
            try:
                await self._pull(worker)
            except asyncio.CancelledError:
                self.undo_cancel(worker)

    async def _pull(self, worker: Worker) -> None:
        """Run lanes for as long as the worker isn't cancelled: by a handler that cancelled its own task, say."""
        ready = self._ready
        self._waking = False
        while not self.stopping:
            while not ready:
                await self._sleep()
            pool, owned, lane = ready.popleft()
            if ready and not self._waking:
                self._wake_one()
            await pool.take(worker, owned, lane)

    async def _sleep(self) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        self._idle.append(sleeper)
        self._waking = False
        await sleeper
        self._waking = False

    def undo_cancel(self, worker: Worker) -> None:
        """Take back a cancellation that meant one attempt; raises if it means the worker itself."""
        if self.stopping:
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
        for circuit in set(self.circuits.values()):
            circuit.forget(owned)

    async def leave(self, pool: Pool) -> None:
        """A pool takes part no more. The last one ends all tasks; attempts that still run are cancelled then."""
        if pool in self._pools:
            self._pools.remove(pool)
        if self._pools:
            return
        self.stopping = True
        for circuit in set(self.circuits.values()):
            circuit.close()
        tasks = [worker.task for worker in self.workers if worker.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.workers.clear()


class TurnCrew(Crew):
    """A crew that chooses anew after each attempt: by priority, and by what limits leave open.

    `doors` limit all its attempts; those of the app as a whole stand open to its crews in turn.
    """

    turns = True

    def __init__(self, name: str, concurrency: int, ready: Ready, clock: Clock, doors: Sequence[Limiter]) -> None:
        super().__init__(name, concurrency)
        self._turns, self._clock, self._doors = ready, clock, tuple(doors)
        self._ranks: dict[Pool, int] = {}
        self._timer: Timer | None = None
        self._at_door = False

    @property
    def waits_for_time(self) -> bool:
        """Whether lanes wait until a rate lets them begin."""
        return self._timer is not None or any(door.waits_for_time for door in self._doors)

    def join(self, pool: Pool, plan: Plan, on_failed: Callable[[BaseException], None]) -> ReadyClass:
        """As `Crew.join`; by the plan's priority."""
        super().join(pool, plan, on_failed)
        self._ranks[pool] = plan.priority.rank if plan.priority else 0
        return self._turns.classes[self._ranks[pool]]

    def enqueue(self, pool: Pool, owned: OwnedPartition, lane: Lane) -> None:
        """Queue a lane (already marked active) for the next free worker that may take it."""
        self._turns.append(self._ranks[pool], (pool, owned, lane))
        if not self._turns:
            self._wake_in_time()
        elif not (self._waking or self._at_door):
            self._wake_one()

    def drop_attempts(self, owned: OwnedPartition) -> None:
        """As `Crew.drop_attempts`; its lanes are forgotten, which a limit could keep waiting for long."""
        super().drop_attempts(owned)
        self._turns.forget(owned)

    async def leave(self, pool: Pool) -> None:
        """As `Crew.leave`."""
        await super().leave(pool)
        if self.stopping and self._timer is not None:
            self._timer.cancel()

    async def _pull(self, worker: Worker) -> None:
        self._waking = False
        while not self.stopping:
            await self._may_begin()
            turn = self._turns.popleft()
            limiters = self._doors if turn.limiter is None else (turn.limiter, *self._doors)
            for limiter in limiters:
                limiter.enter()
            if self._turns and not self._waking:
                self._wake_one()
            await self._run(worker, turn, limiters)

    async def _may_begin(self) -> None:
        """Wait until something is ready that every limit lets begin. Nobody else gets in between."""
        while True:
            if not self._turns:
                self._wake_in_time()
                await self._sleep()
            elif self._at_door:
                await self._sleep()
            elif (closed := next((door for door in self._doors if not door.is_open), None)) is not None:
                # One worker stands there for all, so that several crews take turns; it wakes the next as it passes.
                self._at_door = True
                try:
                    await closed.wait()
                finally:
                    self._at_door = False
                if not self._turns or not all(door.is_open for door in self._doors):
                    closed.wake()
            else:
                return

    def _wake_in_time(self) -> None:
        """Have a worker woken when the rate of a limit, behind which lanes wait, lets one begin."""
        times = [seconds for each in self._turns.closed if (seconds := each.opens_in_seconds) is not None]
        if self._timer is not None:
            self._timer.cancel()  # another limit may open earlier than the one that it was for
        self._timer = self._clock.call_later(min(times), self._came_due) if times else None

    def _came_due(self) -> None:
        self._timer = None
        if self._turns:
            self._wake_one()
        else:
            self._wake_in_time()

    async def _run(self, worker: Worker, turn: Turn, limiters: Sequence[Limiter]) -> None:
        pool, owned, lane = turn.entry
        before = worker.attempt
        worker.last_attempt = before + 1
        handled = worker.handled
        try:
            await pool.take(worker, owned, lane)
        finally:
            unused = worker.attempt == before
            for limiter in limiters:
                limiter.leave(unused=unused)
            more = max(worker.attempt - before, worker.handled - handled) - 1
            if more > 0:
                self._turns.also_handled(turn, more)


def crew_of(plans: Sequence[Plan], clock: Clock, door: Limiter | None = None) -> Crew:
    """The crew of plans that were declared as one subscription; `door` limits the app as a whole."""
    first = plans[0]
    limiters: Mapping[str, Limiter] = {
        handler.type_name: Limiter(handler.limit, clock) for handler in first.handlers.values() if handler.limit
    }
    doors = [Limiter(Limit(rate=first.rate), clock)] if first.rate is not None else []
    doors += [door] if door is not None else []
    if len(plans) == 1 and not limiters and not doors:
        crew = Crew(first.name, first.concurrency)
    else:
        ranked = sorted((plan.priority for plan in plans if plan.priority), key=lambda each: each.rank)
        classes: list[Any] = [(each.name, each.share) for each in ranked] or [("", 0.0)]
        crew = TurnCrew(first.declared_as or first.name, first.concurrency, Ready(classes, limiters), clock, doors)
    crew.circuits = _circuits_of(first, clock)
    return crew


def _circuits_of(plan: Plan, clock: Clock) -> dict[str, Circuit]:
    """One circuit for each breaker, by the types of the handlers that were given it."""
    names: dict[int, list[str]] = {}
    for handler in {each.type_name: each for each in plan.handlers.values()}.values():
        if handler.breaker is not None:
            names.setdefault(id(handler.breaker), []).append(handler.type_name)
    found: dict[str, Circuit] = {}
    for together in names.values():
        breaker = plan.handlers[together[0]].breaker
        assert breaker is not None
        title = f"subscription {plan.declared_as or plan.name}, handler of {', '.join(together)}"
        found |= dict.fromkeys(together, Circuit(breaker, clock, ", ".join(together), title))
    return found
