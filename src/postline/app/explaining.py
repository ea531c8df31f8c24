"""What apps declare, as facts for whoever runs them: per handler and per topic, with the worst case worked out."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Union, get_args, get_origin

import msgspec

from postline.app.application import App
from postline.commands import ReplySubscription, Serving
from postline.contracts import ForeignTopic, Topic
from postline.contracts.commands import CommandTopic
from postline.events import Subscription
from postline.queues import Queue
from postline.runtime.announce import DEAD_LETTERS_KEPT_MS
from postline.runtime.breaker import Breaker
from postline.runtime.dedup import OWN_ID_WINDOW
from postline.runtime.handlers import Handler
from postline.runtime.plan import Plan
from postline.runtime.retry import Retry

__all__ = [
    "BreakerFacts",
    "Facts",
    "HandlerFacts",
    "RetryFacts",
    "ScheduleFacts",
    "SubscriptionFacts",
    "TopicFacts",
    "facts_of",
]


class RetryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A retry ladder, and the most that it can come to."""

    attempts_max: int
    immediate: int
    delays_seconds: list[float]
    jitter: float
    #: From the first attempt to the last, jitter included, and time limits of all attempts where there are any.
    seconds_max: float
    #: Errors that go to dead letters at once, and those that have a ladder of their own.
    never: list[str]
    by_type: list[str]


class BreakerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """From when on records wait for a backend, without using up attempts."""

    failures: int
    probe_seconds: float
    probe_seconds_max: float
    #: Only these count.
    errors: list[str]


class HandlerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One handler: what it is given, how often at most, and what it may do more than once."""

    message: str
    function: str
    #: "event", "command", "query", "task", "schedule" or "reply".
    kind: str
    retry: RetryFacts
    timeout_seconds: float | None
    filtered: bool
    concurrency: int | None
    rate: str
    breaker: BreakerFacts | None
    #: Whether a dry run of dead letters may call it.
    dry_run: bool
    #: Wire names of what its annotation says that it returns, which is published.
    returns: list[str]
    #: Topics that it may publish or send to through its context.
    may_publish_to: list[str]
    #: Why something that it does outside the log may be done twice; [] for a query.
    effects_twice: list[str]


class SubscriptionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as its service declares it."""

    service: str
    name: str
    topic: str
    foreign: bool
    start: str
    order: str
    #: What becomes of a key after a record of it was given up: "hold" or "continue".
    after: str
    keyed: bool
    batch: int | None
    #: In each process.
    concurrency: int
    #: What makes two records the same; always "own ids" for those that were published with one.
    dedup: str
    dedup_window_seconds: float
    priorities: list[str]
    #: From when on dead letters are discarded, and from which number and age on they are an alarm; None for never.
    dead_letters_discarded_seconds: float | None
    dead_letters_alarm_count: int | None
    dead_letters_alarm_seconds: float | None
    handlers: list[HandlerFacts]


class TopicFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A topic that one of the apps owns."""

    name: str
    owner: str
    partitions: int
    retention_seconds: float | None
    compacted: bool
    dead_letters_kept_seconds: float
    types: list[str]
    #: Types that no handler of these apps has.
    unhandled: list[str]


class ScheduleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A function that runs by the clock."""

    service: str
    name: str
    rule: str
    missed: str
    function: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that some apps declare."""

    subscriptions: list[SubscriptionFacts]
    topics: list[TopicFacts]
    schedules: list[ScheduleFacts]


def facts_of(apps: Sequence[App]) -> Facts:
    """What the apps declare, without a log. Names are those of the contracts, without a namespace."""
    subscriptions = [_subscription(app, each) for app in apps for each in app.subscriptions.values()]
    handled = {(each.topic, handler.message) for each in subscriptions for handler in each.handlers}
    return Facts(
        subscriptions=subscriptions,
        topics=[_topic(topic, handled) for app in apps for topic in _declared(app)],
        schedules=[
            ScheduleFacts(
                service=app.name,
                name=each.name,
                rule=each.rule.text,
                missed=each.missed,
                function=_name_of(each.function),
            )
            for app in apps
            if app.schedules is not None
            for each in app.schedules.periodics.by_name.values()
        ],
    )


# -- subscriptions ------------------------------------------------------------------------------------------


def _subscription(app: App, subscription: Subscription) -> SubscriptionFacts:
    plan = subscription.plan(app.name, subscription.topic.name, subscription.name)
    by_id = OWN_ID_WINDOW[0]
    return SubscriptionFacts(
        service=app.name,
        name=subscription.name,
        topic=subscription.topic.name,
        foreign=isinstance(subscription.topic, ForeignTopic),
        start=_start(plan),
        order=plan.order,
        after=plan.after,
        keyed=plan.keyed,
        batch=plan.batch,
        concurrency=plan.concurrency,
        dedup=_dedup(plan),
        dedup_window_seconds=(by_id if plan.dedup is None else plan.dedup.window).total_seconds(),
        priorities=list(subscription.topic.siblings),
        dead_letters_discarded_seconds=_seconds(plan.dead_letter_policy.max_age),
        dead_letters_alarm_count=plan.dead_letter_policy.alarm_count,
        dead_letters_alarm_seconds=_seconds(plan.dead_letter_policy.alarm_age),
        handlers=[
            _handler(app, subscription, plan, handler)
            for name, handler in plan.handlers.items()
            if name == handler.type_name
        ],
    )


def _seconds(time: timedelta | None) -> float | None:
    return None if time is None else time.total_seconds()


def _start(plan: Plan) -> str:
    return plan.start.kind if plan.start.kind != "time" else f"time {plan.start.time_ms}"


def _dedup(plan: Plan) -> str:
    if plan.dedup is None:
        return "own ids"
    if plan.dedup.field is not None:
        return f"field {plan.dedup.field}"
    left_out = f" without {', '.join(plan.dedup.ignore)}" if plan.dedup.ignore else ""
    return "ids" if plan.dedup.by_id else f"content{left_out}"


def _handler(app: App, subscription: Subscription, plan: Plan, handler: Handler) -> HandlerFacts:
    kind, function = _kind(app, subscription, handler), function_of(subscription, handler)
    timeout = handler.timeout_seconds or plan.timeout_seconds
    retry = _retry(handler.retry or plan.retry, timeout)
    limit = handler.limit
    speaks = handler.wants_context and kind != "query"
    return HandlerFacts(
        message=handler.type_name,
        function=_name_of(function),
        kind=kind,
        retry=retry,
        timeout_seconds=timeout,
        filtered=handler.where is not None,
        concurrency=limit.concurrency if limit else None,
        rate=str(limit.rate) if limit and limit.rate else "",
        breaker=_breaker(handler.breaker) if handler.breaker else None,
        dry_run=handler.dry_run,
        returns=_returned(app, function),
        may_publish_to=[each.name for each in _written(app)] if speaks else [],
        effects_twice=[] if kind == "query" else list(_twice(plan, handler, retry)),
    )


def _breaker(breaker: Breaker) -> BreakerFacts:
    return BreakerFacts(
        failures=breaker.failures,
        probe_seconds=breaker.probe_seconds,
        probe_seconds_max=breaker.probe_seconds_max,
        errors=[each.__qualname__ for each in breaker.errors],
    )


def _kind(app: App, subscription: Subscription, handler: Handler) -> str:
    if isinstance(subscription, Queue):
        return "task"
    if isinstance(subscription, Serving):
        return "query" if subscription.commands.specs[handler.type_name].is_query else "command"
    if app.schedules is not None and subscription.topic is app.schedules.topic:
        return "schedule"
    return "reply" if isinstance(subscription, ReplySubscription) else "event"


def _twice(plan: Plan, handler: Handler, retry: RetryFacts) -> Iterable[str]:
    if retry.attempts_max > 1:
        yield f"a failed attempt is followed by up to {retry.attempts_max - 1} more"
    yield "a process that dies between the handler and its commit leaves the record to the next one"
    if plan.batch is not None:
        yield "a batch that fails is split, and its members are given again"
    if not handler.is_async:
        yield "a thread that loses its partition goes on beside the partition's new owner"


def _retry(retry: Retry, timeout_seconds: float | None) -> RetryFacts:
    """The worst case of a policy whose attempts have this time limit."""
    policies = [retry, *retry.by_type.values()]
    ladder = max(sum(each.delays_seconds) * (1 + each.jitter) for each in policies)
    return RetryFacts(
        attempts_max=retry.attempts_max,
        immediate=retry.immediate,
        delays_seconds=list(retry.delays_seconds),
        jitter=retry.jitter,
        seconds_max=ladder + retry.attempts_max * (timeout_seconds or 0.0),
        never=[each.__qualname__ for each in retry.never],
        by_type=[each.__qualname__ for each in retry.by_type],
    )


# -- functions ----------------------------------------------------------------------------------------------


def function_of(subscription: Subscription, handler: Handler) -> Callable[..., Any]:
    """The function that somebody wrote: a task's own, not what calls it."""
    if isinstance(subscription, Queue):
        return subscription.tasks[handler.type_name][0].function
    return handler.function


def _name_of(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
    return f"{module}:{name}" if module else name


def _returned(app: App, function: Callable[..., Any]) -> list[str]:
    """Wire names of the message classes in the annotation of what a function returns."""
    try:
        said = typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):  # an annotation that can't be evaluated says nothing
        return []
    topics = _written(app) + [topic for each in _served(app) for topic in each.topics]
    found = [topic.type_name_of(cls) for cls in _classes(said) for topic in topics if cls in topic.classes]
    return list(dict.fromkeys(found))


def _classes(said: Any) -> list[type]:
    """All classes that an annotation names: of a union's members, of a list's or tuple's items."""
    if isinstance(said, type) and get_origin(said) is None:
        return [said]
    if get_origin(said) in (Union, types.UnionType, list, tuple, Sequence, Iterable):
        return [cls for each in get_args(said) for cls in _classes(each)]
    return []


# -- topics -------------------------------------------------------------------------------------------------


def _written(app: App) -> list[Topic]:
    """Topics for messages of its own, without those of its queues, replies and schedules."""
    inner = None if app.schedules is None else app.schedules.topic
    commanded = {topic for each in app.commands for topic in (each.replies, each.tickets)}
    topics = dict.fromkeys((*app.owns, *app.publishes_to))
    return [topic for topic in topics if topic is not inner and topic not in commanded]


def _served(app: App) -> list[CommandTopic]:
    return [each.commands for each in app.subscriptions.values() if isinstance(each, Serving)]


def _declared(app: App) -> list[Topic]:
    return [topic for topic in _written(app) if topic.owner == app.name]


def _topic(topic: Topic, handled: set[tuple[str, str]]) -> TopicFacts:
    age: timedelta | None = topic.retention.age
    return TopicFacts(
        name=topic.name,
        owner=topic.owner,
        partitions=topic.partitions,
        retention_seconds=None if age is None else age.total_seconds(),
        compacted=topic.compaction is not None,
        dead_letters_kept_seconds=DEAD_LETTERS_KEPT_MS / 1000,
        types=list(topic.contracts),
        unhandled=[name for name in topic.contracts if (topic.name, name) not in handled],
    )
