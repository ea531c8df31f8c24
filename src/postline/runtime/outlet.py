"""From a message to the record to be appended: its contract, key, place, envelope and identity."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from postline.clock import Clock
from postline.contracts.cloudevents import (
    CLIENT_ID,
    EXPIRY,
    HANDED_ON,
    NOT_GIVEN,
    REQUEST_ID,
    TRACE,
    UNIQUE_ID,
    timestamp,
)
from postline.contracts.priorities import NORMAL, marked_id
from postline.errors import EncodeError, MessageTooLarge, UsageError
from postline.ids import IdSource, derived_id
from postline.log.port import FLAG_OWN_ID, Append
from postline.message import ENCODING_ERRORS, JSON_CONTENT_TYPE, Envelope
from postline.runtime.context import Context

__all__ = ["Outlet", "Route"]

#: Keys and ids up to here need no look.
_SHORT = 512
#: What a record's key and envelope may have before they count against the limit of its value: engines leave room.
_AROUND_FREE = 3_072


@dataclass(frozen=True, slots=True)
class Route:
    """Where messages of one type go and how they are written; made once per type."""

    topic: str
    type_name: str
    partitions: int
    #: Raises EncodeError for a value that the contract refuses.
    encode: Callable[[Any], bytes]
    #: Raises EncodeError where a declared key is missing.
    key_of: Callable[[Any], bytes | None]
    #: The bytes that choose the partition, given value and key; None for a keyless message.
    placed_by: Callable[[Any, bytes | None], bytes | None]
    partition_of: Callable[[bytes], int]
    bytes_max: int
    content_type: str = JSON_CONTENT_TYPE
    #: The id of the schema that values are written under, where records carry it, and how they are written.
    flags: int = 0
    #: The same id, also where values carry it in a frame of their own; 0 without one.
    schema_id: int = 0
    #: A command or query: it is sent, not published.
    is_command: bool = False
    #: Of a command and the time: its id, where its sender gives none; and how long it may wait to be begun.
    own_id: Callable[[Any, int], str] | None = None
    #: Of a command: what equal ones have in common, which then lie in one partition.
    unique_id: Callable[[Any], str] | None = None
    expires_ms: int | None = None
    #: Where they go by their priority; {} where the topic has none.
    siblings: Mapping[str, Route] = field(default_factory=dict)
    #: Of a command, the priority that it is the way of; "" where its topic has none.
    priority: str = ""
    #: The priority of a command whose sender says nothing of it.
    usual_priority: str = NORMAL

    def of(self, priority: str) -> Route:
        """Where messages of a priority go. Raises UsageError for one that the topic doesn't have."""
        if (found := self.siblings.get(priority)) is not None:
            return found
        known = ", ".join(map(repr, self.siblings))
        raise UsageError(
            f"Topic {self.topic!r} has no priority {priority!r} for {self.type_name!r}; it has {known or 'none'}.",
            remedy="Use one of these." if known else "Declare them: Topic(…, priorities={…}); or leave priority= out.",
        )

    def of_command(self, priority: str | None) -> Route:
        """Where a command goes, of which its sender says this. Raises UsageError for a priority that it can't have."""
        unique = self.own_id is not None or self.unique_id is not None
        if priority is not None and unique and priority != self.usual_priority:
            raise UsageError(
                f"{self.type_name!r} is unique, so that it has one priority, {self.usual_priority!r}, and was given "
                f"{priority!r}: calls of several could not be told to be the same.",
                remedy="Leave priority= out here, and say it of the task: @app.task(unique=…, priority=…).",
            )
        return self.of(priority or self.usual_priority) if self.siblings or priority is not None else self

    def made_id(self, request_id: str) -> str:
        """A request id that is made, and says the priority of what it is sent with."""
        return marked_id(request_id, self.priority) if self.priority else request_id


class Outlet:
    """Makes records of messages. `route_of` knows the contracts; its answers are cached here."""

    def __init__(
        self, service: str, route_of: Callable[[type], Route], clock: Clock, randomness: random.Random
    ) -> None:
        self.service = service
        self._route_of = route_of
        self._routes: dict[type, Route] = {}
        self._clock = clock
        self._ids = IdSource(clock.now_ms, randomness)
        self._turn = randomness.getrandbits(16)

    def route(self, message: Any) -> Route:
        """The route of the message's type. Raises UsageError if no contract declares it."""
        kind = type(message)
        route = self._routes.get(kind)
        if route is None:
            route = self._routes[kind] = self._route_of(kind)
        return route

    def partitions_of(self, topic: str) -> int:
        """How many partitions a topic has that something was published to."""
        routes = (each for route in self._routes.values() for each in (route, *route.siblings.values()))
        return next(route.partitions for route in routes if route.topic == topic)

    def fresh_id(self) -> str:
        """A new id from this service's source."""
        return self._ids.next_id()

    def fresh(
        self,
        message: Any,
        own_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        priority: str | None = None,
    ) -> Append:
        """The record of a message published from outside handlers.

        An own id decides a keyless message's partition, so that its repetition is found there.
        """
        if own_id is not None:
            _check_id(own_id)
        if headers:
            _check_headers(headers)
        route = self._routes.get(type(message)) or self.route(message)
        if route.is_command:
            raise _to_be_sent(route, "app.request(…) or app.send(…)")
        if priority is not None:
            route = route.of(priority)
        append = self._made(route, message, own_id, dict(headers) if headers else {})
        if headers:
            _require_room(route, append.value or b"", append.key, append.envelope)
        return append

    def command_route(self, command: Any, priority: str | None) -> Route:
        """The way of a command of a priority, or of its usual one. Raises UsageError for what is none, or has not."""
        route = self._routes.get(type(command)) or self.route(command)
        if not route.is_command:
            raise _not_to_be_sent(route)
        return route.of_command(priority)

    def sent(
        self,
        command: Any,
        request_id: str | None,
        expires_ms: int | None = None,
        leaves_ms: int | None = None,
        priority: str | None = None,
    ) -> Append:
        """The record of a command that this service sends as a client, marked so that its repetition is dropped."""
        route = self.command_route(command, priority)
        if request_id is None:
            request_id = route.made_id(self._ids.next_id())
        _check_id(request_id)
        headers = self._of_request(route, request_id, expires_ms, leaves_ms)
        if route.unique_id is not None:
            headers[UNIQUE_ID] = route.unique_id(command)
        return self._made(route, command, request_id, headers)

    def own_id(self, command: Any) -> str | None:
        """The request id that follows from what the command says, if its contract has one made of that."""
        route = self._routes.get(type(command)) or self.route(command)
        return None if route.own_id is None else route.own_id(command, self._clock.now_ms())

    def _of_request(
        self, route: Route, request_id: str, expires_ms: int | None, leaves_ms: int | None
    ) -> dict[str, str]:
        headers = {CLIENT_ID: self.service, REQUEST_ID: request_id}
        if expires_ms is None and route.expires_ms is not None:
            expires_ms = (self._clock.now_ms() if leaves_ms is None else leaves_ms) + route.expires_ms
        return headers if expires_ms is None else {**headers, EXPIRY: timestamp(expires_ms)}

    def _made(self, route: Route, message: Any, own_id: str | None, headers: dict[str, str]) -> Append:
        value, key = route.encode(message), route.key_of(message)
        placed_by = route.placed_by(message, key)
        if placed_by is None and own_id is not None:
            placed_by = headers.get(UNIQUE_ID, own_id).encode()
        if placed_by is None:
            self._turn += 1
            partition = self._turn % route.partitions
        else:
            partition = route.partition_of(placed_by)
        now = self._clock.now_ms()
        envelope = Envelope(
            id=own_id or self._ids.id_at(now),
            source=self.service,
            type=route.type_name,
            time_ms=now,
            content_type=route.content_type,
            headers=headers,
        )
        flags = route.flags | FLAG_OWN_ID if own_id else route.flags
        if len(value) > route.bytes_max or len(own_id or "") + len(key or b"") > _SHORT:
            _require_room(route, value, key, envelope)
        return Append(route.topic, partition, key, value, envelope, flags)

    def derive(
        self, context: Context[Any], message: Any, headers: Mapping[str, str] | None, priority: str | None = None
    ) -> Append:
        """The record of a message published by a handler: its id follows from what is handled."""
        if headers:
            _check_headers(headers)
        route = self._routes.get(type(message)) or self.route(message)
        if route.is_command:
            raise _to_be_sent(route, "ctx.send(…)")
        if priority is not None:
            route = route.of(priority)
        return self._derived(context, route, message, headers)

    def derive_command(
        self,
        context: Context[Any],
        command: Any,
        times: tuple[int | None, int | None],
        priority: str | None = None,
    ) -> Append:
        """The record of a command sent by a handler; its id, which is the request's, follows from what is handled.

        `times` are when it expires, and when it leaves if not now, in milliseconds.
        """
        route = self.command_route(command, priority)
        unique = None if route.unique_id is None else route.unique_id(command)
        append = self._derived(context, route, command, None, self.own_id(command), unique)
        trace = {name: value for name, value in append.envelope.headers.items() if name in TRACE}
        headers = trace | self._of_request(route, append.envelope.id, *times)
        if unique is not None:
            headers[UNIQUE_ID] = unique
        append.envelope = msgspec.structs.replace(append.envelope, headers=headers)
        append.flags |= FLAG_OWN_ID
        return append

    def _derived(
        self,
        context: Context[Any],
        route: Route,
        message: Any,
        headers: Mapping[str, str] | None,
        own_id: str | None = None,
        placed: str | None = None,
    ) -> Append:
        value, key = route.encode(message), route.key_of(message)
        cause = context.envelope
        cause_id = cause.id or context.message_id
        type_name = route.type_name
        ordinal = context.next_ordinal(type_name, key)
        own = own_id or derived_id(context.desk.subscription, cause.source, cause_id, type_name, key, ordinal)
        if route.priority and own_id is None:
            own = route.made_id(own)
        placed_by = route.placed_by(message, key) or (placed or own).encode()
        if cause.headers:
            kept = {name: cause.headers[name] for name in HANDED_ON if name in cause.headers}
            headers = {**kept, **headers} if headers else kept
        envelope = Envelope(
            id=own,
            source=self.service,
            type=type_name,
            time_ms=self._clock.now_ms(),
            content_type=route.content_type,
            correlation_id=cause.correlation_id or cause_id,
            causation_id=cause_id,
            headers=dict(headers) if headers else {},
        )
        if (
            len(value) > route.bytes_max
            or headers
            or len(cause_id) + len(cause.correlation_id) + len(key or b"") > _SHORT
        ):
            _require_room(route, value, key, envelope)
        return Append(route.topic, route.partition_of(placed_by), key, value, envelope, route.flags)

    def relayed(self, message: Any, envelope: Envelope) -> Append:
        """The record of a message that came from elsewhere as an event, under the identity that it has there."""
        route = self._routes.get(type(message)) or self.route(message)
        try:
            value, key = route.encode(message), route.key_of(message)
        except EncodeError as error:
            raise EncodeError(f"The event {envelope.id!r}: {error.message}", remedy=error.remedy) from error
        placed_by = route.placed_by(message, key) or envelope.id.encode()
        told = msgspec.structs.replace(envelope, type=route.type_name, content_type=route.content_type)
        _require_room(route, value, key, told)
        return Append(route.topic, route.partition_of(placed_by), key, value, told, route.flags | FLAG_OWN_ID)


def _check_id(own_id: str) -> None:
    if not own_id or not _is_text(own_id):
        raise UsageError(
            f"publish was given the id {own_id!r}; an id must be text, and not empty.",
            remedy="Give text, like 'order-placed-1', or leave it out to have one made.",
        )


def _to_be_sent(route: Route, how: str) -> UsageError:
    return UsageError(
        f"{route.type_name!r} is a command, which is not published.", remedy=f"Send it: {how}; it is answered."
    )


def _not_to_be_sent(route: Route) -> UsageError:
    return UsageError(
        f"{route.type_name!r} is no command: nobody answers it.",
        remedy="Publish it; a command is declared by `@topic.command(…)` or `.query(…)` of a CommandTopic.",
    )


def _require_room(route: Route, value: bytes, key: bytes | None, envelope: Envelope) -> None:
    """Raise MessageTooLarge for a record that its topic does not take, be it for its key and envelope."""
    told = (envelope.id, envelope.source, envelope.correlation_id, envelope.causation_id)
    texts = [*told, *envelope.headers, *envelope.headers.values()]
    around = len(key or b"") + sum(len(text.encode("utf-8", ENCODING_ERRORS)) for text in texts)
    size = len(value) + max(0, around - _AROUND_FREE)
    if size > route.bytes_max:
        raise MessageTooLarge(
            f"A {route.type_name} of {size} bytes is over the limit of {route.bytes_max} of topic {route.topic!r}"
            + (f"; its key and envelope have {around}." if around > _AROUND_FREE else "."),
            remedy="Keep the payload in a blob store and publish a reference to it (claim check), "
            "or raise message_bytes_max on the topic.",
        )


def _check_headers(headers: Mapping[str, object]) -> None:
    if taken := sorted(NOT_GIVEN.intersection(headers)):
        raise UsageError(
            f"The headers {', '.join(taken)} belong to the envelope and can't be given to publish.",
            remedy="Use other names; the id is publish(…, id=).",
        )
    if bad := sorted(repr(name) for name, value in headers.items() if not (_is_text(name) and _is_text(value))):
        raise UsageError(f"The headers {', '.join(bad)} are no Unicode text.", remedy="Give text as name and value.")


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
