"""Aggregates: messages gathered by a key of their own until they are complete, kept in partition state meanwhile."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, get_args

import msgspec

from postline.contracts import ForeignTopic, Kind, Reading, Rule, Sensitive, Topic
from postline.contracts.keys import KeySpec, compile_key
from postline.contracts.masking import has_sensitive
from postline.contracts.topics import DEFAULT_PARTITIONS
from postline.errors import EncodeError, MessageError, UsageError
from postline.events import PolicyOptions, Start, Subscription
from postline.routing.completion import Completion, Count, Predicate, Whole
from postline.routing.declaring import Declaring, kind_of, published_by
from postline.routing.splitting import Part, carried, messages_of
from postline.routing.targets import require_results
from postline.runtime.context import Context
from postline.runtime.intents import DeadLetter
from postline.runtime.retry import Retry

__all__ = ["Aggregate", "AggregateOptions", "Late", "aggregate"]

PARTS_SUFFIX = ".parts"
_PARTS_MAX = 1_000

#: What becomes of a part whose aggregate was complete: it begins the next of its key, or is a dead letter.
Late: TypeAlias = Literal["new", "dead-letter"]


class AggregateOptions(TypedDict, total=False):
    """What may be said about an aggregate besides its name, topic, start, key, completion and result.

    `of`: the types that are gathered, where the topic has several. `late`: "new" (default) or "dead-letter", where a
    key has one aggregate and what comes after it is none of it. `parts_max`: most parts that wait for completion,
    1,000 unless said; one more is a dead letter. `retention` of the topic of parts, 14 days unless said.
    """

    of: type | Sequence[type]
    late: Late
    parts_max: int
    concurrency: int
    retry: Retry | None
    retention: timedelta


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """One part as it waits: what tells it from others, its type, and its JSON text."""

    identity: str
    type: str
    message: str
    index: int = 0


class Gathered(msgspec.Struct):
    """The state of one key: the parts that wait, or, once complete, the identities of those that were in it."""

    parts: list[Kept]
    done: list[str] | None = None


@dataclass(frozen=True)
class Aggregate:
    """What stands for an aggregate in the log: two subscriptions around a topic of parts. Made by `App.aggregate`."""

    #: On the topic that is aggregated; gives each message its aggregate's key.
    collecting: Subscription
    #: Parts by the aggregate's key, internal to the service.
    parts: Topic
    #: On the parts; keeps them until they are complete, and publishes the result.
    gathering: Subscription


class _Plan(NamedTuple):
    """All that both halves go by."""

    name: str
    kinds: dict[str, Kind]
    complete: Completion
    into: Callable[..., Any]
    late: Late
    parts_max: int
    part: Any


def aggregate(
    app: Declaring,
    name: str,
    topic: Topic | ForeignTopic,
    start: Start | None,
    key: KeySpec | None,
    complete: Completion,
    into: Callable[..., Any],
    options: AggregateOptions,
) -> Aggregate:
    """Declare both subscriptions, and the topic between them, which the app then owns."""
    given = options.get("of")
    of = [kind_of(name, topic, given)] if given is None or isinstance(given, type) else list(given)
    _check(name, complete, key, of, options)
    require_results(name, into, of, published_by(app))
    partitions = topic.partitions if isinstance(topic, Topic) else DEFAULT_PARTITIONS
    retention = options.get("retention", timedelta(days=14))
    parts = Topic(name + PARTS_SUFFIX, owner=app.name, key="key", partitions=partitions, retention=retention)
    masks = any(has_sensitive(topic.reading_of(topic.type_name_of(each)).schema) for each in of)
    fields: list[tuple[str, Any]] = [(each, str) for each in ("key", "identity", "type")]
    fields += [("message", Sensitive[str] if masks else str), ("index", int), ("count", int)]
    part = parts.event(f"{parts.name}.Part")(msgspec.defstruct("Part", fields, frozen=True, module=__name__))
    plan = _Plan(
        name=name,
        kinds={name: _kind(topic.reading_of(name)) for name in map(topic.type_name_of, of)},
        complete=complete,
        into=into,
        late=options.get("late", "new"),
        parts_max=options.get("parts_max", _PARTS_MAX),
        part=part,
    )
    # A part that is given up holds nothing back: order among parts is not promised.
    policy = PolicyOptions(after="continue", concurrency=options.get("concurrency", 64), retry=options.get("retry"))
    with_state = PolicyOptions(**policy, state=Gathered)
    made = Aggregate(
        app.subscribe(name, topic, start=start, **policy),
        parts,
        app.subscribe(parts.name, parts, start="earliest", **with_state),
    )
    app.owns = (*app.owns, parts)
    for each in of:
        made.collecting.on(each)(_collector(plan, topic, each, key))
    made.gathering.on(part)(_gatherer(plan))
    return made


def _kind(reading: Reading) -> Kind:
    """How kept parts of a type are read: as JSON, and without a word of what is sensitive in them."""
    return Kind(reading.cls, name=reading.name, schema=lambda: reading.schema)


def _check(name: str, complete: Completion, key: KeySpec | None, of: Sequence[type], options: AggregateOptions) -> None:
    if not isinstance(complete, Count | Whole | Predicate):
        raise UsageError(
            f"Aggregate {name!r} can't be complete by {complete!r:.80}.",
            remedy="Say complete=Count(3), Whole() or Predicate(…).",
        )
    if isinstance(complete, Whole) != (key is None):
        raise UsageError(
            f"Aggregate {name!r} needs a key, or Whole() without one.",
            remedy='Say key="order_id" (a field, a dotted path or a function); Whole() goes by the split itself.',
        )
    if unknown := sorted(set(options) - AggregateOptions.__annotations__.keys()):
        raise UsageError(
            f"Aggregate {name!r} was given {', '.join(unknown)}, which it does not know.",
            remedy=f"It knows {', '.join(sorted(AggregateOptions.__annotations__))}.",
        )
    parts_max, late = options.get("parts_max", _PARTS_MAX), options.get("late", "new")
    if parts_max < 1 or (isinstance(complete, Count) and complete.parts > parts_max):
        raise UsageError(
            f"Aggregate {name!r} keeps {parts_max} parts at most, and would never be complete by {complete}.",
            remedy="Raise parts_max=, which bounds the state of a key, or count less.",
        )
    if late not in get_args(Late):
        raise UsageError(
            f"Aggregate {name!r} can't treat what is late as {late!r}.", remedy='Say "new" or "dead-letter".'
        )
    if isinstance(complete, Predicate) and isinstance(complete.test, Rule):
        for each in of:
            complete.test.require(each)


# -- giving messages their key --------------------------------------------------------------------


def _collector(plan: _Plan, topic: Topic | ForeignTopic, cls: type, key: KeySpec | None) -> Callable[..., Any]:
    """The handler of the aggregated topic: each message becomes a part."""
    type_name = topic.type_name_of(cls)
    encode = plan.kinds[type_name].encode
    key_of = None if key is None else compile_key(key, cls, topic.name, type_name, "aggregate key")

    async def collect(message: Any, ctx: Context[Any]) -> Any:
        place = Part.of(ctx)
        if key_of is None:
            if place is None:
                raise DeadLetter(f"aggregate {plan.name!r}: the message carries no headers of a split")
            its_key, identity = place.group, str(place.index)
        else:
            its_key, identity = _key_text(plan, key_of, message), f"{ctx.envelope.source} {ctx.message_id}"
        index, count = (place.index, place.count) if place else (0, 0)
        made = plan.part(its_key, identity, type_name, encode(message).decode(), index, count)
        ctx.publish(made, headers=carried(ctx))

    return collect


def _key_text(plan: _Plan, key_of: Callable[[Any], bytes], message: Any) -> str:
    try:
        return key_of(message).decode()
    except (EncodeError, UnicodeDecodeError) as error:
        raise DeadLetter(f"aggregate {plan.name!r}: {error}") from error


# -- gathering ------------------------------------------------------------------------------------


def _gatherer(plan: _Plan) -> Callable[..., Any]:
    """The handler of the parts: keeps one, or completes with it."""

    async def gather(part: Any, ctx: Context[Any]) -> None:
        held = ctx.state.get() or Gathered([])
        if held.done is not None:
            if part.identity not in held.done:
                raise DeadLetter(f"aggregate {plan.name!r}: {part.key!r} was complete before this part came")
            return
        if any(each.identity == part.identity for each in held.parts):
            return
        held.parts.append(Kept(part.identity, part.type, part.message, part.index))
        if _is_complete(plan, held, part):
            await _complete(plan, held, ctx)
        else:
            _keep(plan, held, part, ctx)

    return gather


def _is_complete(plan: _Plan, held: Gathered, part: Any) -> bool:
    match plan.complete:
        case Count(parts=wanted):
            return len(held.parts) >= wanted
        case Whole():
            return len(held.parts) >= int(part.count)
        case Predicate(test=Rule() as rule):
            return rule(_read(plan, held.parts[-1]))
        case Predicate(test=test):
            return bool(test([_read(plan, each) for each in held.parts]))


def _read(plan: _Plan, kept: Kept) -> Any:
    return plan.kinds[kept.type].read(kept.message.encode())


async def _complete(plan: _Plan, held: Gathered, ctx: Context[Any]) -> None:
    """Publish the result and forget the parts, together."""
    if isinstance(plan.complete, Whole):
        held.parts.sort(key=lambda each: each.index)
    result = plan.into([_read(plan, each) for each in held.parts])
    for message in messages_of(await result if inspect.isawaitable(result) else result):
        ctx.publish(message)
    if plan.late == "new":
        ctx.state.delete()
    else:
        ctx.state.put(Gathered([], [each.identity for each in held.parts]))


def _keep(plan: _Plan, held: Gathered, part: Any, ctx: Context[Any]) -> None:
    if len(held.parts) > plan.parts_max:
        raise DeadLetter(f"aggregate {plan.name!r}: {part.key!r} has {plan.parts_max} parts and is not complete")
    try:
        ctx.state.put(held)
    except MessageError as error:
        raise DeadLetter(f"aggregate {plan.name!r}: the parts of {part.key!r} are too large: {error}") from error
