"""Subscriptions as users declare them: a name, a topic, a policy, and handlers by message type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, TypeVar

from postline.contracts import ForeignTopic, Kind, Reading, Rule, Topic
from postline.errors import SettingsError, UsageError
from postline.log.port import EMPTY_TYPE, StartAt
from postline.runtime.annotations import require_annotated_for
from postline.runtime.breaker import Breaker
from postline.runtime.dead_letter_policy import DeadLetterPolicy
from postline.runtime.dedup import Dedup
from postline.runtime.handlers import Handler, HandlerFunction, inspect_handler
from postline.runtime.limits import Limit, Rate
from postline.runtime.plan import After, Middleware, Order, Plan, StateCodec
from postline.runtime.retry import Retry

__all__ = ["Policy", "PolicyOptions", "Start", "Subscription"]

FunctionT = TypeVar("FunctionT", bound=HandlerFunction)

#: Where a new subscription begins.
Start = Literal["earliest", "latest"] | datetime


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What may be said about a subscription besides its name, topic and start.

    `order`: "key" (default), "partition" or "none". `after` a record was given up: "hold" its key
    until someone redrives or discards it (default where there is a key and order), or "continue".
    `dead_letters`: when they are an alarm, and when they end.
    `batch`: most messages given to a batch handler at once. `timeout` of one async attempt, in
    seconds or as timedelta; one that goes on for longer than `slow_after` is named in the log, with its
    stack. `state`: the type of the handlers' keyed state. `concurrency`: most attempts at the same time,
    and `rate`: most that begin in a time, both in each process.
    """

    aliases: Sequence[str] = ()
    concurrency: int = 64
    rate: Rate | None = None
    retry: Retry | None = None
    order: Order = "key"
    after: After | None = None
    dedup: Dedup | None = None
    dead_letters: DeadLetterPolicy | None = None
    batch: int | None = None
    timeout: timedelta | float | None = None
    slow_after: timedelta | float = 30.0
    state: type | None = None
    middleware: Sequence[Middleware] = ()
    in_flight_records_max: int = 16_384
    held_records_max: int = 1_000


class PolicyOptions(TypedDict, total=False):
    """The fields of `Policy`, as keywords of `App.subscribe`."""

    aliases: Sequence[str]
    concurrency: int
    rate: Rate | None
    retry: Retry | None
    order: Order
    after: After | None
    dedup: Dedup | None
    dead_letters: DeadLetterPolicy | None
    batch: int | None
    timeout: timedelta | float | None
    slow_after: timedelta | float
    state: type | None
    middleware: Sequence[Middleware]
    in_flight_records_max: int
    held_records_max: int


@dataclass(frozen=True)
class _Registration:
    kind: type
    function: HandlerFunction
    where: Callable[[Any], bool] | None
    limit: Limit
    dry_run: bool
    breaker: Breaker | None


class Subscription:
    """A durable, named reading position on one topic, and the handlers that serve it.

    Made by `App.subscribe`. It holds data only: handlers are registered here and run by the app.
    """

    def __init__(self, name: str, topic: Topic | ForeignTopic, start: Start, policy: Policy) -> None:
        self.name = name
        self.topic = topic
        self.start = start
        self.policy = policy
        #: For patterns: as in `Plan`.
        self.timers: dict[str, Callable[[Any, Any], None]] = {}
        self.taken_up: Callable[[Any], Awaitable[None]] | None = None
        self._registrations: dict[str, _Registration] = {}

    def on(
        self,
        kind: type,
        *,
        where: Callable[[Any], bool] | None = None,
        concurrency: int | None = None,
        rate: Rate | None = None,
        dry_run: bool = False,
        breaker: Breaker | None = None,
    ) -> Callable[[FunctionT], FunctionT]:
        """Handle messages of `kind` with the decorated function, which is given back unchanged.

        The function takes the message (a list of them where `batch=` is set) and, if it has a
        second parameter, the `Context`. It may be async or plain; what it returns is published.
        `where` runs after decoding and before deduplication; what it turns down counts as
        filtered, and an exception in it is a failure of the handler. It may be a `Rule`, which is
        checked against the type. `concurrency` and `rate` limit, in each process, how many attempts
        run at once and begin in a time; what waits for that is in nobody's way. `dry_run` says that
        it does no harm where `ctx.dry_run` is set, so that a dry run of dead letters may call it. `breaker` is that
        of the backend that it needs: while that is away, records wait instead of using up their attempts.

        Raises UsageError for a wrong signature, an annotation that contradicts `kind` or a second handler of a type,
        ContractError for a type that the topic doesn't declare, or a rule on other fields.
        """

        def register(function: FunctionT) -> FunctionT:
            type_name = self.topic.type_name_of(kind)
            inspect_handler(function, self.name)
            require_annotated_for(function, kind, batch=bool(self.policy.batch), subscription=self.name)
            if isinstance(where, Rule):
                where.require(kind)
            if type_name in self._registrations:
                raise UsageError(
                    f"Subscription {self.name!r} has two handlers for {type_name!r}.",
                    remedy="Keep one; several subscriptions can handle the same type independently.",
                )
            limit = Limit(concurrency, rate)
            self._registrations[type_name] = _Registration(kind, function, where, limit, dry_run, breaker)
            return function

        return register

    def plan(self, service: str, topic_name: str, name: str) -> Plan:
        """Everything the runtime must know, under the full names that a namespace gives."""
        policy = self.policy
        timeout = policy.timeout.total_seconds() if isinstance(policy.timeout, timedelta) else policy.timeout
        slow = policy.slow_after.total_seconds() if isinstance(policy.slow_after, timedelta) else policy.slow_after
        return Plan(
            name=name,
            topic=topic_name,
            service=service,
            start=self._start_at(),
            keyed=self.topic.keyed,
            key_text=getattr(self.topic, "key_text", ""),
            aliases=tuple(policy.aliases),
            concurrency=policy.concurrency,
            rate=policy.rate,
            retry=policy.retry or Retry(),
            order=policy.order,
            after=policy.after or self._after_by_default(),
            dedup=policy.dedup,
            dead_letter_policy=policy.dead_letters or DeadLetterPolicy(),
            batch=policy.batch,
            timeout_seconds=timeout,
            slow_seconds=slow,
            state=self._state_codec(),
            handlers=self._handlers(),
            middleware=tuple(policy.middleware),
            in_flight_records_max=policy.in_flight_records_max,
            held_records_max=policy.held_records_max,
            timers=self.timers,
            taken_up=self.taken_up,
        )

    def _after_by_default(self) -> After:
        return "hold" if self.topic.keyed and self.policy.order != "none" else "continue"

    def _state_codec(self) -> StateCodec | None:
        if self.policy.state is None:
            return None
        kind = Kind(self.policy.state)
        return StateCodec(kind.encode, kind.decode)

    def _start_at(self) -> StartAt:
        match self.start:
            case "earliest" | "latest" as kind:
                return StartAt(str(kind))
            case datetime() if self.start.tzinfo is not None:
                return StartAt("time", int(self.start.timestamp() * 1000))
        raise SettingsError(
            f"Subscription {self.name!r} can't start at {self.start!r}.",
            remedy='Say start="earliest", start="latest", or a datetime with a time zone.',
        )

    @property
    def types(self) -> list[str]:
        """The wire names of the message types that it handles."""
        return list(self._registrations)

    @property
    def readings(self) -> dict[str, Reading]:
        """How it reads messages, by their wire names, former ones too."""
        found = [self.topic.reading_of(name) for name in self._registrations]
        # An owner who has not renamed a type yet sees by these who reads it.
        return {name: reading for reading in found for name in (*reading.aliases, reading.name)}

    def _handlers(self) -> dict[str, Handler]:
        handlers = {}
        for type_name, registered in self._registrations.items():
            is_async, wants_context = inspect_handler(registered.function, self.name)
            handlers[type_name] = handler = Handler(
                type_name=type_name,
                function=registered.function,
                reading=self.topic.reading_of(type_name),
                is_async=is_async,
                wants_context=wants_context,
                where=registered.where,
                limit=registered.limit or None,
                dry_run=registered.dry_run,
                breaker=registered.breaker,
            )
            handlers |= dict.fromkeys(handler.reading.aliases, handler)
        if len(self._registrations) == 1 and self.topic.declares_one_type:
            # Records without our headers, from foreign producers, can only mean that one type.
            handlers[EMPTY_TYPE] = next(iter(handlers.values()))
        return handlers
