"""How a handler is called: directly, through middleware, or in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, TypeVar

from postline.errors import UsageError
from postline.runtime.answering import Answers
from postline.runtime.context import Context
from postline.runtime.handlers import Handler, HandlerFunction
from postline.runtime.outcomes import Outcome
from postline.runtime.plan import Plan

__all__ = ["HANDLING", "Calls", "Halting", "call_each", "publish_result"]

#: The subscription whose handler is running here; None outside handlers.
HANDLING: contextvars.ContextVar[str | None] = contextvars.ContextVar("postline_handling", default=None)

T = TypeVar("T")


class Halting(Protocol):
    """Tells a thread that its partition went away."""

    draining: bool
    answers: Answers | None


class Calls:
    """The callables of a plan's handlers, put together once."""

    def __init__(self, plan: Plan, executor: Executor) -> None:
        self._plan = plan
        self._executor = executor
        #: By task, the thread that is at its call.
        self.threads: dict[asyncio.Task[Any] | None, int] = {}
        #: With middleware every call is given the context, whatever the handler itself wants.
        self.wrapped = bool(plan.middleware)
        self._wrapped: dict[int, HandlerFunction] = {}
        if plan.middleware:
            for handler in plan.handlers.values():
                self._wrapped[id(handler)] = self._wrap(handler)

    def in_threads(self, handler: Handler) -> bool:
        """Whether records of this handler run in threads, stretch by stretch."""
        return not handler.is_async and not self.wrapped

    def of(self, handler: Handler) -> HandlerFunction | None:
        """What to await for one attempt; None if the handler runs in threads."""
        if self.wrapped:
            return self._wrapped.get(id(handler)) or handler.function  # what refuses the unreadable is not wrapped
        return handler.function if handler.is_async else None

    def _wrap(self, handler: Handler) -> HandlerFunction:
        async def innermost(message: Any, context: Context[Any]) -> Any:
            arguments = (message, context) if handler.wants_context else (message,)
            if handler.is_async:
                return await handler.function(*arguments)
            return await self.in_thread(handler.function, *arguments)

        call: Callable[[Any, Any], Any] = innermost
        for middleware in reversed(self._plan.middleware):
            call = functools.partial(middleware, call)
        return call

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a plain function in the pool's threads, with this task's context variables."""
        task, context = asyncio.current_task(), contextvars.copy_context()

        def run() -> T:
            self.threads[task] = threading.get_ident()
            try:
                return context.run(function, *arguments)
            finally:
                self.threads.pop(task, None)

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)


def publish_result(context: Context[Any], result: Any) -> None:
    """Publish what a handler returned: one message, or each of a list or tuple of them."""
    for message in result if isinstance(result, list | tuple) else (result,):
        try:
            context.publish(message)
        except UsageError as error:
            raise UsageError(
                f"A handler of subscription {context.subscription!r} returned {message!r:.80}: {error.message}",
                remedy="Return a message that a topic of the app declares, a list of them, or None.",
            ) from error


def call_each(
    handler: Handler, calls: Sequence[tuple[Any, Context[Any]]], halting: Halting
) -> tuple[int, BaseException | None]:
    """Call a plain handler for each message in turn: how many succeeded, and what stopped it."""
    staged: dict[bytes, bytes | None] | None = None
    for done, (message, context) in enumerate(calls):
        if halting.draining and done:
            return done, None
        if message is Outcome.FILTERED:
            continue
        if staged:
            # What earlier records of this stretch put is not in the partition's states yet.
            context.staged = dict(staged)
        try:
            result = handler.function(message, context) if handler.wants_context else handler.function(message)
            if (answers := halting.answers) is not None:
                answers.conclude(context, result)
            elif result is not None:
                publish_result(context, result)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - becomes a retry decision
            return done, error
        finally:
            context.closed = True
        staged = context.staged
    return len(calls), None
