"""Tasks as users hold them: still the function, and what sends its calls to workers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import msgspec

from postline.commands import Ticket
from postline.contracts.commands import CommandTopic
from postline.queues.definitions import Definition
from postline.queues.tickets import TaskTicket
from postline.runtime.context import Context

__all__ = ["ContextTask", "Post", "SendOptions", "Task", "TaskSender"]

P = ParamSpec("P")
R = TypeVar("R")
CallT = TypeVar("CallT")


class Post(Protocol):
    """Whoever stores tasks: the app that they are declared on, while it runs."""

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


class SendOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one sending."""

    request_id: str | None = None
    expires: timedelta | float | None = None
    priority: str | None = None
    delay: timedelta | float | None = None
    at: datetime | None = None


class TaskSender(Generic[P, R]):
    """Sends the calls of one task. Event loop only, and not from handlers: those `ctx.send(task.message(…))`."""

    def __init__(self, definition: Definition, topic: CommandTopic, post: Post, options: SendOptions) -> None:
        #: The function and its contract.
        self.definition = definition
        self._post, self._options = post, options
        #: The command topic that is its queue; other services list it in `publishes_to`.
        self.topic = topic

    @property
    def name(self) -> str:
        """The wire name."""
        return self.definition.name

    def message(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The command that a call makes, for `ctx.send`, `App.send` of other services, and `postline.sync`.

        Raises TypeError for arguments that the function does not take.
        """
        return self.definition.message_of(args, kwargs)

    async def send(self, *args: P.args, **kwargs: P.kwargs) -> TaskTicket[R]:
        """Store a call for the workers; it is durable when this returns. Raises as `App.send`, and as `message`."""
        options = self._options
        message = self.definition.message_of(args, kwargs)
        ticket = await self._post.send(
            message,
            request_id=options.request_id,
            timeout=options.expires,
            priority=options.priority,
            delay=options.delay,
            at=options.at,
        )
        return TaskTicket(ticket, self.definition)

    async def send_many(self, messages: Iterable[Any]) -> list[TaskTicket[R]]:
        """Store many calls, each a `task.message(…)`, with few commits; all are durable when this returns.

        Each thousand is stored whole or not at all. Raises as `send`.
        """
        tickets = await self._post.send_many(messages, timeout=self._options.expires, priority=self._options.priority)
        return [TaskTicket(ticket, self.definition) for ticket in tickets]

    async def request(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Send a call and wait for its result, however long that takes. Raises as `send` and `TaskTicket.result`."""
        return await (await self.send(*args, **kwargs)).result()

    def ticket(self, request_id: str) -> TaskTicket[R]:
        """The ticket of a call that this service sent before, in this process or another."""
        return TaskTicket(self._post.ticket(request_id, of=self.topic), self.definition)

    def options(
        self,
        *,
        request_id: str | None = None,
        expires: timedelta | float | None = None,
        priority: str | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
    ) -> TaskSender[P, R]:
        """A sender of the same task for calls of which more is said: `await resize.options(expires=60).send(…)`.

        `request_id` makes repeating a send safe. A call that no attempt has begun within `expires`, in seconds or as
        timedelta, ends with a timeout. `priority` is one of its queue's, and the task's own unless it is said; a unique
        task has that alone. With `delay`, or `at` a time, it leaves then, which needs `App(schedules=True)`;
        its expiry counts from there. `send_many` knows `expires` and `priority` alone.
        """
        said = SendOptions(request_id=request_id, expires=expires, priority=priority, delay=delay, at=at)
        return TaskSender(self.definition, self.topic, self._post, said)


class Task(TaskSender[P, R], Generic[P, R, CallT]):
    """What `@app.task` makes of a function: calling it still calls the function, here and now.

    It departs from the rule that decorators return what they were given, so that `resize.send(…)` is checked by the
    function's own signature.
    """

    def __init__(self, definition: Definition, topic: CommandTopic, post: Post, options: SendOptions) -> None:
        super().__init__(definition, topic, post, options)
        functools.update_wrapper(self, definition.function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> CallT:
        """Call the function itself."""
        called: CallT = self.definition.function(*args, **kwargs)
        return called

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class ContextTask(TaskSender[P, R], Generic[P, R, CallT]):
    """As `Task`, for a function whose first parameter is the `Context`; no sender gives that."""

    def __init__(self, definition: Definition, topic: CommandTopic, post: Post, options: SendOptions) -> None:
        super().__init__(definition, topic, post, options)
        functools.update_wrapper(self, definition.function, updated=())

    def __call__(self, context: Context[Any], /, *args: P.args, **kwargs: P.kwargs) -> CallT:
        """Call the function itself."""
        called: CallT = self.definition.function(context, *args, **kwargs)
        return called

    def __repr__(self) -> str:
        return f"<task {self.name}>"


#: What the decorator takes, before its types are told apart.
AnyFunction = Callable[..., Any]
