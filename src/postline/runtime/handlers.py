"""Handlers as data: what a subscription calls for a message type, checked when it is declared."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from postline.contracts import Reading
from postline.contracts.cloudevents_json import STRUCTURED, read_structured
from postline.contracts.frame import looks_framed, unframe
from postline.contracts.schema import Schema
from postline.errors import DecodeError, UsageError
from postline.log.port import SCHEMA_ID_SHIFT, UNREADABLE_TYPE, Record
from postline.runtime.breaker import Breaker
from postline.runtime.limits import Limit
from postline.runtime.retry import Retry

__all__ = ["Handler", "HandlerFunction", "inspect_handler", "refusing"]

#: The user's function: async or plain, taking the message (a list of them in batches) and,
#: if it has a second parameter, the `Context`.
HandlerFunction = Callable[..., Any]

#: What the runtime awaits for one attempt: (message, context) to the handler's result.
Call = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Handler:
    """One message type of a subscription and the function that handles it."""

    type_name: str
    function: HandlerFunction
    reading: Reading
    is_async: bool
    wants_context: bool
    where: Callable[[Any], bool] | None = None
    #: Its own policy and limit of an attempt, instead of the subscription's.
    retry: Retry | None = None
    timeout_seconds: float | None = None
    #: How many attempts run at once, and begin in a time, in each process.
    limit: Limit | None = None
    #: It does no harm where `ctx.dry_run` is set, so a dry run may call it.
    dry_run: bool = False
    #: Of the backend that it needs.
    breaker: Breaker | None = None
    #: By the id of the schema that a value was written under; 0 where a record names none.
    decoders: dict[int, Callable[[bytes], Any]] = field(default_factory=dict, compare=False)

    #: What wrote the values that come, by the same ids, as far as it is known.
    writers: dict[int, Schema] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        self.decoders.setdefault(0, self.reading.decode)

    @property
    def decode(self) -> Callable[[bytes], Any]:
        """Reads values of the handler's own version."""
        return self.reading.decode

    def name_for(self, error: BaseException) -> str:
        """Where an error without a frame of the user's code came from."""
        if isinstance(error, DecodeError):
            return f"reading {self.type_name or 'a record'}"
        return f"{self.function.__module__}:{getattr(self.function, '__qualname__', self.type_name)}"

    def read(self, record: Record) -> Any:
        """The record's message. Raises DecodeError, without the cause where that would tell values."""
        try:
            return self.decoders[record[5] >> SCHEMA_ID_SHIFT](record[4])  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - becomes a refusal
            said, remedy, cause = self.fault(error, record)
            raise DecodeError(
                f"The {record[3] or 'record'} at offset {record[0]} can't be read as the handler's type: {said}.",
                remedy=remedy or "Mend the contract or the handler's view of it, then redrive; or discard it.",
            ) from cause

    def fault(self, error: Exception, record: Record) -> tuple[str, str, Exception | None]:
        """See `Reading.fault`; of a record that names no schema, any of the writers may have written it."""
        writer = self.writers.get(record[5] >> SCHEMA_ID_SHIFT)
        writers = self.writers.values() if writer is None else (writer,)
        return self.reading.fault(error, record[4] or b"", *writers)

    def plain(self, record: Record) -> Any:
        """The record's value as JSON has it. Raises what reading it raises."""
        number, value, format = record[5] >> SCHEMA_ID_SHIFT, record[4] or b"", self.reading.format
        if not number and looks_framed(value):
            frame = unframe(value, protobuf=self.reading.framed_with_indexes)
            number, value = frame.schema_id, frame.payload
        writer = self.writers.get(number)
        return msgspec.to_builtins(format.plain(self.reading.schema if writer is None else writer)(value))


@functools.cache
def refusing() -> Handler:
    """What stands for the handler of a record whose envelope can't be read: decoding tells why."""

    def refuse(value: bytes) -> Any:
        try:
            read_structured(value)
            why = "The value is a batch of CloudEvents, or one in another format than JSON."
        except DecodeError as error:
            why = error.message
        raise DecodeError(
            f"The record's envelope can't be read: the name of a header is no UTF-8, or: {why}",
            remedy=f"Have its sender write one event to a record, as {STRUCTURED} or in binary mode; or discard it.",
        )

    return Handler(UNREADABLE_TYPE, refuse, Reading(dict, UNREADABLE_TYPE), True, False, decoders={0: refuse})


def inspect_handler(function: HandlerFunction, subscription: str) -> tuple[bool, bool]:
    """(is async, wants a context); raises UsageError for a function of a wrong shape."""
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise UsageError(
            f"Subscription {subscription!r}: {name} is not callable.", remedy="Put `.on(Type)` above a function."
        )
    wrapped = isinstance(function, functools.partial) or inspect.isroutine(function)
    called = function if wrapped else type(function).__call__
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise UsageError(
            f"Subscription {subscription!r}: handler {name} is a generator, which would never run.",
            remedy="Return one message, or call ctx.publish for each.",
        )
    return inspect.iscoroutinefunction(called), _wants_context(function, name, subscription)


def _wants_context(function: HandlerFunction, name: str, subscription: str) -> bool:
    by_position, required_by_name, variadic = 0, [], False
    required = 0
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            variadic = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            by_position += 1
            required += parameter.default is parameter.empty
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            required_by_name.append(parameter.name)
    if required_by_name or required > 2 or (by_position == 0 and not variadic):
        raise UsageError(
            f"Subscription {subscription!r}: handler {name} has a signature that can't be called.",
            remedy="Write it as `def handler(message)` or `def handler(message, ctx)`; "
            "resources come by `App(lifespan=…)` and `ctx.resources`.",
        )
    return by_position >= 2 or variadic
