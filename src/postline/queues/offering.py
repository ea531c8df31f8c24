"""What an app offers of queues: `@app.task` and `app.queue`, over serving commands alone."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

from postline.commands import Ticket
from postline.contracts.commands import CommandTopic
from postline.errors import UsageError
from postline.queues.definitions import define
from postline.queues.queue import Queue, QueueOptions, QueueSaid, TaskOptions
from postline.queues.tasks import ContextTask, SendOptions, Task
from postline.runtime.breaker import Breaker
from postline.runtime.context import Context
from postline.runtime.limits import Rate
from postline.runtime.retry import Retry

__all__ = ["Queueing", "TaskDecorator"]

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULT_QUEUE = "tasks"


class TaskDecorator(Protocol):
    """Makes a task of a function; what `@app.task(…)` is."""

    @overload
    def __call__(  # type: ignore[overload-overlap] # the first that matches is meant
        self, function: Callable[Concatenate[Context[Any], P], Coroutine[Any, Any, R]]
    ) -> ContextTask[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context[Any], P], R]) -> ContextTask[P, R, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Task[P, R, R]: ...


class Queueing(Protocol):
    """Queues and tasks of an app; `App` inherits them."""

    name: str
    queues: dict[str, Queue]

    async def send(
        self,
        command: Any,
        *,
        request_id: str | None = None,
        timeout: timedelta | float | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> Ticket:
        """As `App.send`."""

    async def send_many(
        self, commands: Iterable[Any], *, timeout: timedelta | float | None = None, priority: str | None = None
    ) -> list[Ticket]:
        """As `App.send_many`."""

    def ticket(self, request_id: str, *, of: CommandTopic | None = None) -> Ticket:
        """As `App.ticket`."""

    def take_up(self, queue: Queue) -> None:
        """Own the queue's topic, and serve it."""

    def queue(self, name: str, **options: Unpack[QueueSaid]) -> Queue:
        """Declare a queue `<service>.<name>` with a policy, before its first task; others are made by naming them.

        `concurrency`, how many calls run at once, and `rate`, how many begin in a time, are of each process; `retry` is
        of tasks without one of their own. Results and outcomes can be asked for during `results_kept`. Each of
        `partitions` is worked off by one process at a time, so no more processes than that have work. A call that
        nobody has begun when `retention` ends is lost to it. `priorities` are names from the highest to the lowest,
        each with the share of calls that it is guaranteed; `normal` is one of them. The other options are of all of
        them together; `dead_letters` says when they are an alarm, and when they end. Raises UsageError for a name
        that is taken, ContractError for priorities that can't be.
        """
        if name in self.queues:
            raise UsageError(
                f"Queue {name!r} of app {self.name!r} is declared already, or has a task.",
                remedy="Declare each queue once, above its first task.",
            )
        queue = self.queues[name] = Queue(self.name, name, QueueOptions(**options))
        self.take_up(queue)
        return queue

    @overload
    def task(  # type: ignore[overload-overlap] # the first that matches is meant
        self, function: Callable[Concatenate[Context[Any], P], Coroutine[Any, Any, R]], /
    ) -> ContextTask[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def task(self, function: Callable[Concatenate[Context[Any], P], R], /) -> ContextTask[P, R, R]: ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(
        self,
        *,
        name: str = "",
        queue: str | Queue = _DEFAULT_QUEUE,
        aliases: Sequence[str] = (),
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        expires: timedelta | float | None = None,
        concurrency: int | None = None,
        rate: Rate | None = None,
        breaker: Breaker | None = None,
        priority: str | None = None,
        unique: timedelta | Literal["until-done"] | None = None,
        unique_by: Callable[..., object] | None = None,
        isolation: Literal["process"] | None = None,
        dry_run: bool = False,
    ) -> TaskDecorator: ...
    def task(
        self,
        *functions: Any,
        name: str = "",
        queue: str | Queue = _DEFAULT_QUEUE,
        **said: Any,
    ) -> Any:
        """Make a task of the decorated function: `await resize.send(path="cat.jpg", width=80)` has a worker call it.

        Its contract is its signature: each parameter a field, the annotated result its reply; so all must be
        annotated, and `*args` are refused. A first parameter of type `Context` is the worker's. Its wire name is
        `<service>.<name>`, by default the function's; a renamed task keeps what waits by `aliases`, whole wire names.

        `concurrency` and `rate` limit it in each process, as those of a queue limit all its tasks. `retry` is its own
        policy, and `breaker` that of the backend it needs. An attempt of an async function has a `timeout`, a plain one
        only with isolation="process": it runs in a child process then, which is killed at the limit, and whose crash is
        a failed attempt; it must stand at the top of a module, and can't have the context. A call that no attempt has
        begun within `expires` ends as expired. Of calls with the same arguments (or the same `unique_by` of them),
        those that are sent while one is waiting, run or retried are not run with unique="until-done": their tickets
        give its outcome. Where `unique` is a span, of those that this service sends within one window of it the first
        is run, and the others give its ticket; windows follow each other from the epoch on, so two calls around a
        border may both run. `priority` is that of calls that say none, and of all calls of a unique task. Raises
        ContractError for a signature that is no contract, UsageError for a second task of a name.
        """
        options = TaskOptions(**said)

        def make(function: Callable[..., Any]) -> Any:
            definition = define(function, f"{self.name}.{name or getattr(function, '__name__', 'task')}")
            found = self._queue_of(queue)
            self._require_unused(definition.name)
            found.add(definition, options)
            made = ContextTask if definition.wants_context else Task
            return made(definition, found.commands, self, SendOptions())

        return make(*functions) if functions else make

    def _require_unused(self, name: str) -> None:
        for queue in self.queues.values():
            if name in queue.tasks:
                raise UsageError(
                    f"App {self.name!r} has two tasks named {name!r}.", remedy='Name one: @app.task(name="…").'
                )

    def _queue_of(self, queue: str | Queue) -> Queue:
        if isinstance(queue, str):
            return self.queues.get(queue) or self.queue(queue)
        if queue not in self.queues.values():
            raise UsageError(
                f"{queue.name!r} is no queue of app {self.name!r}.",
                remedy="Declare the task on the app that the queue belongs to.",
            )
        return queue
