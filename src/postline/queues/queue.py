"""Queues: command topics without keys or order, served by workers that compete for their tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypedDict

from postline.commands import Serving
from postline.contracts.commands import CommandTopic
from postline.contracts.priorities import Priorities
from postline.contracts.topics import DEFAULT_PARTITIONS
from postline.errors import UsageError
from postline.events import Policy
from postline.queues.definitions import Definition
from postline.queues.isolation import Children, refuse_isolation
from postline.queues.unique import UNTIL_DONE, unique_id, windowed_id
from postline.runtime.breaker import Breaker
from postline.runtime.context import Context, milliseconds_of
from postline.runtime.dead_letter_policy import DeadLetterPolicy
from postline.runtime.handlers import Handler
from postline.runtime.limits import Rate
from postline.runtime.retry import Retry

__all__ = ["Queue", "QueueOptions", "QueueSaid", "TaskOptions"]


@dataclass(frozen=True, kw_only=True)
class QueueOptions:
    """What may be said of a queue; see `App.queue`."""

    concurrency: int = 64
    rate: Rate | None = None
    retry: Retry | None = None
    results_kept: timedelta = timedelta(days=7)
    partitions: int = DEFAULT_PARTITIONS
    retention: timedelta = timedelta(days=7)
    priorities: Mapping[str, float] | Priorities | None = None
    dead_letters: DeadLetterPolicy | None = None


class QueueSaid(TypedDict, total=False):
    """The fields of `QueueOptions`, as keywords of `App.queue`."""

    concurrency: int
    rate: Rate | None
    retry: Retry | None
    results_kept: timedelta
    partitions: int
    retention: timedelta
    priorities: Mapping[str, float] | Priorities | None
    dead_letters: DeadLetterPolicy | None


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What may be said of one task; see `App.task`."""

    retry: Retry | None = None
    timeout: timedelta | float | None = None
    expires: timedelta | float | None = None
    aliases: Sequence[str] = ()
    concurrency: int | None = None
    rate: Rate | None = None
    breaker: Breaker | None = None
    priority: str | None = None
    unique: timedelta | Literal["until-done"] | None = None
    unique_by: Callable[..., object] | None = None
    isolation: Literal["process"] | None = None
    dry_run: bool = False

    @property
    def timeout_seconds(self) -> float | None:
        """The limit of one attempt, in seconds."""
        return self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else self.timeout


class Queue(Serving):
    """One queue of a service: the topic of its tasks, and the subscription that its workers share."""

    def __init__(self, service: str, name: str, options: QueueOptions) -> None:
        self.service = service
        topic = CommandTopic(
            f"{service}.{name}",
            owner=service,
            partitions=options.partitions,
            retention=options.retention,
            tickets_kept=options.results_kept,
            priorities=options.priorities,
        )
        policy = Policy(
            order="none",
            after="continue",
            concurrency=options.concurrency,
            rate=options.rate,
            retry=options.retry,
            dead_letters=options.dead_letters,
        )
        super().__init__(topic, policy)
        self.tasks: dict[str, tuple[Definition, TaskOptions]] = {}
        self._children: Children | None = None

    def add(self, definition: Definition, options: TaskOptions) -> None:
        """Take a task in. Raises ContractError and UsageError for what contradicts itself."""
        if options.unique_by is not None and options.unique is None:
            raise UsageError(
                f"Task {definition.name} has unique_by=, and is not unique.",
                remedy='Say for how long: unique="until-done" or unique=timedelta(…).',
            )
        if options.timeout_seconds is not None and options.timeout_seconds <= 0:
            raise UsageError(f"Task {definition.name} has a timeout of {options.timeout}.", remedy="Give more than 0.")
        if options.expires is not None:
            milliseconds_of(options.expires)
        if options.isolation is not None:
            refuse_isolation(definition)
        topic = self.commands
        if options.priority is not None and options.priority not in topic.commands.siblings:
            raise UsageError(
                f"Task {definition.name} has the priority {options.priority!r}, and its queue {self.name!r} has "
                f"{', '.join(map(repr, topic.commands.siblings)) or 'none'}.",
                remedy='Declare it: app.queue("…", priorities={"high": 0.6, "normal": 0.4}).',
            )
        reply = definition.result
        if reply is not None:
            topic.reply(f"{definition.name}.result", aliases=[f"{each}.result" for each in options.aliases])(reply)
        topic.command(definition.name, reply=reply, aliases=options.aliases)(definition.message)
        spec = replace(topic.specs[definition.name], expires=options.expires, priority=options.priority)
        topic.specs[definition.name] = replace(spec, **_uniqueness(definition, options))
        called = self._handler(definition, options)
        limits: Any = {"concurrency": options.concurrency, "rate": options.rate, "breaker": options.breaker}
        self.on(definition.message, dry_run=options.dry_run, **limits)(called)
        self.tasks[definition.name] = (definition, options)

    def _handlers(self) -> dict[str, Handler]:
        found = super()._handlers()
        # One for all names of a type, as they come: what is counted of a handler is counted once.
        own = {id(handler): self._with_own_policy(handler) for handler in found.values()}
        return {name: own[id(handler)] for name, handler in found.items()}

    def _with_own_policy(self, handler: Handler) -> Handler:
        _, options = self.tasks[handler.type_name]
        # A child's time is measured from where it begins, not from where an attempt waits for a free one.
        limit = None if options.isolation else options.timeout_seconds
        return replace(handler, retry=options.retry, timeout_seconds=limit)

    def _handler(self, definition: Definition, options: TaskOptions) -> Callable[..., Any]:
        if options.isolation is None:
            return _handler(definition)

        async def run_apart(message: Any) -> Any:
            if self._children is None:
                self._children = Children()
            return await self._children.call(definition, message, options.timeout_seconds)

        run_apart.__qualname__ = run_apart.__name__ = definition.name
        return run_apart

    async def close(self) -> None:
        """End the processes of isolated tasks. Idempotent."""
        children, self._children = self._children, None
        if children is not None:
            await children.close()


def _uniqueness(definition: Definition, options: TaskOptions) -> dict[str, Any]:
    """What a `CommandSpec` says of calls that are equal. Raises UsageError for a window that can't be kept."""
    if options.unique is None:
        return {}
    if isinstance(options.unique, timedelta):
        return {"own_id": windowed_id(definition, options.unique, options.unique_by)}
    if options.unique != UNTIL_DONE:
        raise UsageError(
            f"Task {definition.name} can't be unique={options.unique!r}.",
            remedy=f"Say unique={UNTIL_DONE!r}, or a timedelta.",
        )
    return {"unique_id": unique_id(definition, options.unique_by)}


def _handler(definition: Definition) -> Callable[..., Any]:
    """The handler of a task's messages: it calls the function, and makes the reply of what that returns."""
    function, arguments, reply_of = definition.function, definition.arguments, definition.reply_of

    def call(message: Any, context: Context[Any]) -> Any:
        args, kwargs = arguments(message)
        return function(context, *args, **kwargs) if definition.wants_context else function(*args, **kwargs)

    async def run(message: Any, context: Context[Any]) -> Any:
        return reply_of(await call(message, context))

    def run_plain(message: Any, context: Context[Any]) -> Any:
        return reply_of(call(message, context))

    handler = run if definition.is_async else run_plain
    handler.__qualname__ = handler.__name__ = definition.name
    return handler
