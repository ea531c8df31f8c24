"""Aggregates: messages gathered by a key of their own until they are complete, kept in partition state meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict, get_args

import msgspec

from postline.contracts import ForeignTopic, Kind, Reading, Rule, Sensitive, Topic
from postline.contracts.keys import KeySpec
from postline.contracts.masking import has_sensitive
from postline.contracts.topics import DEFAULT_PARTITIONS
from postline.errors import UsageError
from postline.events import PolicyOptions, Start, Subscription
from postline.routing.completion import After, Completion, Count, Predicate, Whole
from postline.routing.declaring import Declaring, kind_of, published_by
from postline.routing.gathering import (
    PARTS_MAX,
    RETENTION,
    Gathered,
    GatheringPlan,
    Late,
    collector,
    gatherer,
    ticker,
)
from postline.routing.targets import require_results
from postline.runtime.retry import Retry

__all__ = ["Aggregate", "AggregateOptions", "aggregate"]

#: Behind an aggregate's name, the name of its topic of parts and of the subscription to that.
PARTS_SUFFIX = ".parts"


class AggregateOptions(TypedDict, total=False):
    """What may be said about an aggregate besides its name, topic, start, key, completion and result.

    `of`: the types that are gathered, where the topic has several. `late`: "new" (default) or "dead-letter", where a
    key has one aggregate and what comes within `retention` after it is none of it. `parts_max`: most parts that wait
    for completion, 1,000 unless said; one more is a dead letter. `expires`: how long after its first part an aggregate
    that is not complete is given up: what `incomplete` makes of the list of its parts is published and they are
    forgotten; without `incomplete` there is a dead letter that names it, and the parts stay for those that are missing
    for as long as `retention`, which is that of the topic of parts, 14 days unless said; then they are forgotten.
    """

    of: type | Sequence[type]
    late: Late
    parts_max: int
    expires: timedelta
    incomplete: Callable[[list[Any]], Any] | None
    concurrency: int
    retry: Retry | None
    retention: timedelta


@dataclass(frozen=True)
class Aggregate:
    """What stands for an aggregate in the log: two subscriptions around a topic of parts. Made by `App.aggregate`."""

    #: On the topic that is aggregated; gives each message its aggregate's key.
    collecting: Subscription
    #: Parts by the aggregate's key, internal to the service.
    parts: Topic
    #: On the parts; keeps them until they are complete, and publishes the result.
    gathering: Subscription


def aggregate(
    app: Declaring,
    name: str,
    topic: Topic | ForeignTopic,
    start: Start | None,
    key: KeySpec | None,
    complete: Completion | Sequence[Completion],
    into: Callable[..., Any],
    options: AggregateOptions,
) -> Aggregate:
    """Declare both subscriptions, and the topic between them, which the app then owns."""
    given = options.get("of")
    of = [kind_of(name, topic, given)] if given is None or isinstance(given, type) else list(given)
    completions = [*complete] if isinstance(complete, Sequence) else [complete]
    _check(name, completions, key, of, options)
    for each in (into, options.get("incomplete") or into):
        require_results(name, each, of, published_by(app))
    partitions = topic.partitions if isinstance(topic, Topic) else DEFAULT_PARTITIONS
    retention = options.get("retention", RETENTION)
    parts = Topic(name + PARTS_SUFFIX, owner=app.name, key="key", partitions=partitions, retention=retention)
    parts.takes_events = False
    readings = [topic.reading_of(topic.type_name_of(each)) for each in of]
    masks = any(has_sensitive(each.schema) for each in readings)
    fields: list[tuple[str, Any]] = [(each, str) for each in ("key", "identity", "type")]
    fields += [("message", Sensitive[str] if masks else str), ("index", int), ("count", int)]
    part = parts.event(f"{parts.name}.Part")(msgspec.defstruct("Part", fields, frozen=True, module=__name__))
    ticking = [(each, str) for each in ("key", "opened", "why")]
    tick = parts.event(f"{parts.name}.Tick")(msgspec.defstruct("Tick", ticking, frozen=True, module=__name__))
    kinds = {name: kind for each in readings for kind in [_kind(each)] for name in (each.name, *each.aliases)}
    chosen: dict[str, Any] = {each: said for each, said in options.items() if each in GatheringPlan._fields}
    plan = GatheringPlan(name, kinds, completions, into, part, tick, **chosen)
    # A part that is given up holds nothing back: order among parts is not promised.
    policy = PolicyOptions(after="continue", concurrency=options.get("concurrency", 64), retry=options.get("retry"))
    with_state = PolicyOptions(**policy, state=Gathered)
    made = Aggregate(
        app.subscribe(name, topic, start=start, **policy),
        parts,
        app.subscribe(parts.name, parts, start="earliest", **with_state),
    )
    app.owns = (*app.owns, parts)
    for cls in of:
        made.collecting.on(cls)(collector(plan, topic, cls, key))
    made.gathering.on(part)(gatherer(plan))
    made.gathering.on(tick)(ticker(plan))
    return made


def _kind(reading: Reading) -> Kind:
    """How kept parts of a type are read: as JSON, and without a word of what is sensitive in them."""
    return Kind(reading.cls, name=reading.name, schema=lambda: reading.schema)


def _check(
    name: str, complete: list[Completion], key: KeySpec | None, of: Sequence[type], options: AggregateOptions
) -> None:
    if not complete or not all(isinstance(each, Count | Whole | Predicate | After) for each in complete):
        raise UsageError(
            f"Aggregate {name!r} can't be complete by {complete!r:.80}.",
            remedy="Say complete=Count(3), Whole(), Predicate(…) or After(…), or several in a list.",
        )
    if any(isinstance(each, Whole) for each in complete) != (key is None):
        raise UsageError(
            f"Aggregate {name!r} needs a key, or Whole() without one.",
            remedy='Say key="order_id" (a field, a dotted path or a function); Whole() goes by the split itself.',
        )
    if unknown := sorted(set(options) - AggregateOptions.__annotations__.keys()):
        raise UsageError(
            f"Aggregate {name!r} was given {', '.join(unknown)}, which it does not know.",
            remedy=f"It knows {', '.join(sorted(AggregateOptions.__annotations__))}.",
        )
    parts_max, late = options.get("parts_max", PARTS_MAX), options.get("late", "new")
    if parts_max < 1 or any(isinstance(each, Count) and each.parts > parts_max for each in complete):
        raise UsageError(
            f"Aggregate {name!r} keeps {parts_max} parts at most, and would never be complete by {complete}.",
            remedy="Raise parts_max=, which bounds the state of a key, or count less.",
        )
    if late not in get_args(Late):
        raise UsageError(
            f"Aggregate {name!r} can't treat what is late as {late!r}.", remedy='Say "new" or "dead-letter".'
        )
    if options.get("incomplete") and not options.get("expires"):
        raise UsageError(f"Aggregate {name!r} has incomplete= and never expires.", remedy="Say expires=timedelta(…).")
    rules = [each.test for each in complete if isinstance(each, Predicate) and isinstance(each.test, Rule)]
    for rule, cls in itertools.product(rules, of):
        rule.require(cls)
