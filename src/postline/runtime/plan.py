"""A subscription as data: names, policy and handlers, checked as a whole before it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

from postline.contracts.priorities import Priority
from postline.errors import SettingsError
from postline.log.port import UNREADABLE_TYPE, StartAt
from postline.runtime.answering import Answering
from postline.runtime.dead_letter_policy import DeadLetterPolicy
from postline.runtime.dedup import Dedup
from postline.runtime.handlers import Handler, refusing
from postline.runtime.limits import Limit, Rate
from postline.runtime.retry import Retry

__all__ = ["CONTROL_SUFFIX", "DEAD_LETTER_SUFFIX", "REPLAY_INFIX", "After", "Middleware", "Order", "Plan", "StateCodec"]

DEAD_LETTER_SUFFIX = ".dead-letters"
CONTROL_SUFFIX = ".control"
#: Between the name of a subscription and that of a replay of it.
REPLAY_INFIX = ".replay."

Order = Literal["key", "partition", "none"]
After = Literal["hold", "continue"]

#: `async def middleware(call_next, message, ctx)`: a function around the handler's call.
Middleware = Callable[[Callable[[Any, Any], Awaitable[Any]], Any, Any], Awaitable[Any]]


@dataclass(frozen=True)
class StateCodec:
    """How the handlers' keyed state becomes bytes."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


@dataclass(kw_only=True)
class Plan:
    """Everything that the runtime must know of one subscription."""

    name: str
    topic: str
    service: str
    start: StartAt
    keyed: bool = True
    #: The topic's key as text, as its contract declares it; "" if it has none.
    key_text: str = ""
    aliases: tuple[str, ...] = ()
    #: Attempts at the same time, in each process.
    concurrency: int = 64
    retry: Retry = field(default_factory=Retry)
    order: Order = "key"
    after: After = "continue"
    dedup: Dedup | None = None
    dead_letter_policy: DeadLetterPolicy = field(default_factory=DeadLetterPolicy)
    #: Most messages given to one call of a batch handler; None for one by one.
    batch: int | None = None
    #: Limit of one attempt of an async handler.
    timeout_seconds: float | None = None
    #: An attempt that goes on for longer is named with where it stands.
    slow_seconds: float = 30.0
    state: StateCodec | None = None
    state_bytes_max: int = 1 << 20
    handlers: dict[str, Handler] = field(default_factory=dict)
    #: How many attempts of all its handlers begin in a time, in each process.
    rate: Rate | None = None
    #: The priority of its topic's records, where there are several.
    priority: Priority | None = None
    #: The name of the declaration that it and its siblings of other priorities come from.
    declared_as: str = ""
    middleware: tuple[Middleware, ...] = ()
    #: Makes replies of how commands end, where the subscription serves them.
    answering: Answering | None = None
    #: How long marks of messages with own ids are kept at least, if that is longer than usual.
    marks_kept: timedelta = timedelta(0)
    #: The service that the subscription belonged to before.
    takes_over: str = ""
    #: Records of other keys are filtered, where it is given.
    only_key: bytes | None = None
    #: Records that a partition may hold before it pauses with an alarm (DESIGN §5, guarantee 5).
    held_records_max: int = 1_000
    held_bytes_max: int = 64 << 20
    #: Fetched and not yet settled, in this process.
    in_flight_records_max: int = 16_384
    in_flight_bytes_max: int = 64 << 20
    fetch_records: int = 8_000
    fetch_bytes: int = 4 << 20
    commit_linger_seconds: float = 0.02
    #: What is called when a timer of its kind is due (`runtime/timers.py`): given the owned partition and the entry.
    timers: dict[str, Callable[[Any, Any], None]] = field(default_factory=dict)
    #: Called with each partition that is taken up, once its timers are there, before anything of it is handled.
    taken_up: Callable[[Any], Awaitable[None]] | None = None

    @property
    def dead_letters(self) -> str:
        """The topic that keeps full copies of what was given up."""
        return self.name + DEAD_LETTER_SUFFIX

    @property
    def control(self) -> str:
        """The topic on which operators reach the partitions' owners."""
        return self.name + CONTROL_SUFFIX

    @cached_property
    def examines(self) -> bool:
        """Whether messages are decoded before they reach their lane; asked once its handlers are there."""
        return self.dedup is not None or any(handler.where is not None for handler in self.handlers.values())

    def handler_of(self, type_name: str) -> Handler | None:
        """Who handles a type; a record whose envelope can't be read has one that refuses it, for its dead letter."""
        return self.handlers.get(type_name) or (refusing() if type_name == UNREADABLE_TYPE else None)

    def check(self) -> list[str]:
        """Everything that contradicts itself, in sentences; [] if it can run."""
        problems = []
        if not self.handlers:
            problems.append("it has no handler; add one with `.on(Type)`.")
        if self.concurrency < 1 or (self.batch is not None and self.batch < 1):
            problems.append("concurrency and batch must be 1 or more.")
        if self.order == "none" and self.after == "hold":
            problems.append('order="none" keeps no order that after="hold" could hold; use after="continue".')
        if self.order == "none" and self.state is not None:
            problems.append('state= needs the order of its key; order="none" gives none.')
        if not self.keyed and self.state is not None:
            problems.append("state= needs a key, and the topic declares none.")
        if self.batch is not None and self.middleware:
            problems.append("middleware wraps single messages; leave it out with batch=.")
        problems += self._limit_problems()
        problems += self.dead_letter_policy.problems()
        if self.batch is not None and self.answering is not None:
            problems.append("commands are answered one by one; leave out batch=.")
        problems += self._timeout_problems()
        for handler in {each.type_name: each for each in self.handlers.values() if each.breaker}.values():
            found = handler.breaker.problems(handler.retry or self.retry) if handler.breaker else []
            problems += [f"handler of {handler.type_name!r}: {problem}" for problem in found]
        if self.dedup is not None and self.dedup.window < timedelta(seconds=self.ladder_seconds):
            problems.append(
                f"the dedup window ({self.dedup.window}) is shorter than the retry ladder "
                f"({self.ladder_seconds:g} s), so a late duplicate would run; make it longer."
            )
        return problems

    def _limit_problems(self) -> list[str]:
        handlers = {handler.type_name: handler for handler in self.handlers.values()}.values()
        limits = [Limit(rate=self.rate), *(handler.limit for handler in handlers if handler.limit)]
        problems = [problem for limit in limits for problem in limit.problems()]
        if self.batch is not None and any(limits):
            problems.append("limits count single attempts; leave out batch=, or rate= and concurrency= of handlers.")
        if self.priority is not None and self.state is not None:
            problems.append(
                "a key's records of several priorities are handled side by side, so state= can't be one key's; "
                "leave it out, or subscribe to a topic without priorities."
            )
        return problems

    def _timeout_problems(self) -> list[str]:
        own = [each for each in self.handlers.values() if each.timeout_seconds is not None]
        limits = [self.timeout_seconds, *(each.timeout_seconds for each in own)]
        if any(limit is not None and limit <= 0 for limit in limits):
            return ["timeout must be above zero."]
        if self.slow_seconds <= 0:
            return ["slow_after must be above zero."]
        limited = own if self.timeout_seconds is None else list(self.handlers.values())
        plain = sorted({handler.function.__qualname__ for handler in limited if not handler.is_async})
        if plain:
            return [f"a thread can't be stopped, so timeout= can't limit {', '.join(plain)}; make it `async def`."]
        return []

    def require(self) -> None:
        """Raise SettingsError naming every problem at once."""
        if problems := self.check():
            raise SettingsError(f"Subscription {self.name!r}: " + " ".join(problems))

    @property
    def ladder_seconds(self) -> float:
        """The longest time between a record's first and last attempt, handlers' own time aside."""
        return sum(delay * (1 + self.retry.jitter) for delay in self.retry.delays_seconds)
