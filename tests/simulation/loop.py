"""A deterministic event loop: virtual time, no threads, processes that can be hung or killed at any step."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    # The methods for real sockets and signals, which raise NotImplementedError here.
    from asyncio import BaseEventLoop as _LoopBase
else:
    from asyncio import AbstractEventLoop as _LoopBase

__all__ = [
    "LoopClock",
    "Process",
    "SimulationDeadlock",
    "SimulationError",
    "SimulationLoop",
    "SimulationStall",
    "WallClock",
]

T = TypeVar("T")

#: Callbacks that may run without time moving before the loop calls it a livelock.
_TURNS_WITHOUT_TIME = 2_000_000
#: Cancelling everything so often in turn without ending a task is enough.
_VAIN_ROUNDS_MAX = 10


class SimulationError(Exception):
    """The simulated program stands still, or the simulation was misused."""


class SimulationDeadlock(SimulationError):
    """Nothing is ready and no timer is pending: the tasks named wait for each other, or for nothing."""


class SimulationStall(SimulationError):
    """Virtual time ran past the limit, or stands still while callbacks run on and on."""


class Process:
    """One simulated process: everything that was started from its tasks, told by context.

    `kill` and `hang` withhold all of its callbacks, at once and whatever it is waiting for. A killed one
    never goes on; a hung one goes on where it stood. `crash_at_step` kills it before that callback.
    """

    def __init__(self, loop: SimulationLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.stopped = False
        self.steps = 0
        self.crash_at_step = -1
        #: Milliseconds by which its wall clock is off, and seconds by which its steady clock is.
        self.wall_offset_ms = 0
        self.steady_offset = 0.0
        #: Called at once when it is killed.
        self.on_death: list[Callable[[], None]] = []
        self.withheld: list[_Handle] = []
        self._context = contextvars.Context()
        self._context.run(_PROCESS.set, self)
        self._hangs = 0

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str = "task") -> asyncio.Task[T]:
        """Start a task in this process."""
        label = f"{self.name}/{name}"
        return self.loop.create_task(coroutine, name=label, context=self._context.copy())

    def kill(self) -> None:
        """End it, as SIGKILL would; idempotent. The running callback ends at its next await."""
        if not self.alive:
            return
        self.alive = False
        self.stopped = True
        for callback in self.on_death:
            callback()

    def hang(self, seconds: float) -> None:
        """Withhold everything for `seconds`, as SIGSTOP and SIGCONT would."""
        if not self.alive:
            return
        self.stopped = True
        self._hangs += 1
        self.loop.call_later(seconds, self._go_on, self._hangs, context=self.loop.environment)

    def _go_on(self, hang: int) -> None:
        if self.alive and hang == self._hangs:
            self.stopped = False
            self.loop.release(self)

    def __repr__(self) -> str:
        return f"<Process {self.name}>"


_PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("simulated_process")


class _Handle:
    """A callback that is to run once; serves as `asyncio.Handle` and, with `due`, as `TimerHandle`."""

    __slots__ = ("args", "callback", "context", "due", "process")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context, due: float
    ) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context
        self.process = context.get(_PROCESS)
        self.due = due

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.due


class SimulationLoop(_LoopBase):
    """An event loop whose time moves only when nothing is left to do now.

    Callbacks run first in, first out, as asyncio promises. `order="interleaved"` keeps that within each
    process and mixes processes by `randomness`; "shuffled" mixes everything. With `lateness`, every
    timer of a process fires that many seconds late. `run_in_executor` runs the function on the loop.
    """

    def __init__(
        self,
        randomness: random.Random | None = None,
        *,
        order: str = "fifo",
        lateness: Callable[[], float] | None = None,
    ) -> None:
        if order != "fifo" and randomness is None:
            raise SimulationError(f"order={order!r} needs a source of randomness")
        self._random = randomness or random.Random(0)
        self._order = order
        self.lateness = lateness
        self.environment = contextvars.Context()
        self.processes: list[Process] = []
        #: Contexts given to the exception handler: exceptions that nobody awaited.
        self.unhandled: list[dict[str, Any]] = []
        self.limit = float("inf")
        self._time = 0.0
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._numbers = itertools.count()
        self._task_numbers = itertools.count(1)
        self._turns = 0
        self._running = False
        self._stopping = False
        self._closed = False
        self._closing = False
        self._failure: BaseException | None = None

    # What tests drive.

    def process(self, name: str) -> Process:
        """A new process on this loop."""
        process = Process(self, name)
        self.processes.append(process)
        return process

    def current_process(self) -> Process | None:
        """The process whose callback runs now; None in the environment."""
        return _PROCESS.get(None)

    def release(self, process: Process) -> None:
        """Let the callbacks withheld from the process run, in the order in which they came due."""
        self._ready.extend(process.withheld)
        process.withheld.clear()

    def fail(self, error: BaseException) -> None:
        """Make `run_until_complete` raise `error` after the running callback."""
        self._failure = self._failure or error

    def waiting(self) -> str:
        """Where each pending task of a living process stands, one a line, for error messages."""
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=asyncio.Task.get_name):
            process = getattr(task, "process", None)
            if process is None or process.alive:
                name = task.get_name()
                owner = f"{process.name}/" if process is not None and not name.startswith(process.name) else ""
                lines.append(f"  {owner}{name}: {_where(task.get_coro())}")
        lines.sort()
        return "\n".join(lines)

    def dispose(self) -> None:
        """Cancel and unwind whatever is left, of dead processes too, so that nothing is left to the collector."""
        self._unwind()
        self._ready.clear()
        self._timers.clear()
        self.processes.clear()
        self._closed = True

    def _unwind(self) -> None:
        self._closing = True
        self.limit = float("inf")
        self._failure = None
        before, rounds = -1, 0
        # Workers go on when a cancellation is none of theirs: they are what is left after rounds that end nobody.
        while rounds < _VAIN_ROUNDS_MAX:
            for process in self.processes:
                process.stopped = False
                process.crash_at_step = -1
                self.release(process)
            pending = asyncio.all_tasks(self)
            if not pending:
                break
            rounds, before = (rounds + 1 if len(pending) == before else 0), len(pending)
            for task in pending:
                task.cancel()
            self._run(lambda: not self._ready or self._turns > 20_000)
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    # What asyncio calls.

    def time(self) -> float:
        return self._time

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, self._time)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        if self.lateness is not None and handle.process is not None:
            when += self.lateness()
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: object,
    ) -> asyncio.Task[T]:
        context = contextvars.copy_context() if context is None else context
        process = context.get(_PROCESS)
        if name is None:
            # asyncio numbers tasks for the whole interpreter; ours must repeat with the seed.
            place = process.name if process else "environment"
            name = f"{place}/{getattr(coro, '__name__', 'task')}-{next(self._task_numbers)}"
        task = _Task(coro, loop=self, name=name, context=context)
        task.process = process
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        outcome = self.create_future()

        def run() -> None:
            if outcome.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 (handed on to whoever waits)
                outcome.set_exception(error)
            else:
                if not outcome.cancelled():
                    outcome.set_result(result)

        self.call_soon(run)
        return outcome

    def run_until_complete(self, future: Any) -> Any:
        main = asyncio.ensure_future(future, loop=self)
        self._run(main.done)
        return main.result()

    def run_forever(self) -> None:
        self._stopping = False
        self._run(lambda: self._stopping)

    def stop(self) -> None:
        self._stopping = True

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True

    async def shutdown_asyncgens(self) -> None:
        return None

    async def shutdown_default_executor(self) -> None:
        return None

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._closing:
            self.unhandled.append(context)

    # The loop itself.

    def _run(self, finished: Callable[[], bool]) -> None:
        if self._running:
            raise SimulationError("the loop is already running")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._finalize_generator)
        asyncio._set_running_loop(self)
        self._running = True
        self._turns = 0
        try:
            while not finished():
                self._turn()
                if self._failure is not None:
                    raise self._failure
        finally:
            self._running = False
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _turn(self) -> None:
        timers, ready = self._timers, self._ready
        if not ready:
            self._advance()
        while timers and timers[0][0] <= self._time:
            ready.append(heapq.heappop(timers)[2])
        if self._order != "fifo" and len(ready) > 1:
            self._mix()
        self._turns += 1
        if self._turns > _TURNS_WITHOUT_TIME:
            raise SimulationStall(f"callbacks run on at {self._time:.3f} s and time stands still:\n{self.waiting()}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            callback = handle.callback
            if callback is None:
                continue
            process = handle.process
            if process is not None:
                if process.stopped:
                    process.withheld.append(handle)
                    continue
                process.steps += 1
                if process.steps == process.crash_at_step:
                    process.kill()
                    process.withheld.append(handle)
                    continue
            try:
                handle.context.run(callback, *handle.args)
            except (KeyboardInterrupt, SystemExit, SimulationError):
                raise
            except BaseException as error:  # noqa: BLE001 (as asyncio does)
                self.call_exception_handler({"message": f"Exception in {callback!r}", "exception": error})

    def _advance(self) -> None:
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if not timers:
            raise SimulationDeadlock(
                f"nothing is left to do at {self._time:.3f} s, and still waiting are:\n{self.waiting()}"
            )
        due = timers[0][0]
        if due > self.limit:
            raise SimulationStall(
                f"not done after {self.limit:.3f} virtual seconds; still waiting are:\n{self.waiting()}"
            )
        if due > self._time:
            self._time = due
            self._turns = 0

    def _mix(self) -> None:
        handles = list(self._ready)
        self._ready.clear()
        if self._order == "shuffled":
            self._random.shuffle(handles)
            self._ready.extend(handles)
            return
        # A shuffled sequence of processes, each taking its own callbacks in order.
        turns = [handle.process for handle in handles]
        queues: dict[Process | None, deque[_Handle]] = {}
        for handle in handles:
            queues.setdefault(handle.process, deque()).append(handle)
        if len(queues) > 1:
            self._random.shuffle(turns)
        self._ready.extend(queues[process].popleft() for process in turns)

    def _finalize_generator(self, generator: Any) -> None:
        self.call_soon(self.create_task, generator.aclose())


class _Task(asyncio.Task[Any]):
    """A task that knows its process."""

    process: Process | None = None


def _where(awaited: Any) -> str:
    """The innermost frame of a suspended coroutine."""
    place = "not started"
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            place = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} in {frame.f_code.co_name}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return place


class WallClock:
    """The wall time that all processes of a simulation share; it can be made to jump."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start_ms: int = 1_700_000_000_000) -> None:
        self._loop = loop
        self._start_ms = start_ms
        self._jumped_ms = 0

    def now_ms(self) -> int:
        """Wall-clock milliseconds, jumps included."""
        return self._start_ms + self._jumped_ms + int(self._loop.time() * 1000)

    def jump(self, milliseconds: int) -> None:
        """Move wall time alone, either way."""
        self._jumped_ms += milliseconds


class LoopClock:
    """A process's `postline.clock.Clock` on a simulation loop, off from the shared one as the process says."""

    def __init__(self, loop: SimulationLoop, wall: WallClock, process: Process) -> None:
        self._loop = loop
        self._wall = wall
        self._process = process

    def now_ms(self) -> int:
        """Wall-clock milliseconds as this process sees them."""
        return self._wall.now_ms() + self._process.wall_offset_ms

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time() + self._process.steady_offset

    def call_later(self, delay_seconds: float, callback: Callable[[], None]) -> _Handle:
        """Call `callback` after `delay_seconds` of virtual time."""
        return self._loop.call_later(delay_seconds, callback)

    async def sleep(self, delay_seconds: float) -> None:
        """Wait `delay_seconds` of virtual time."""
        await asyncio.sleep(delay_seconds)
