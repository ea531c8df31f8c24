"""Both halves of an aggregate as handlers: one gives messages their key, the other keeps parts until all are there."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from postline.contracts import ForeignTopic, Kind, Rule, Topic
from postline.contracts.keys import KeySpec, compile_key
from postline.errors import EncodeError, MessageError
from postline.logs.events import event
from postline.routing.completion import After, Completion, Count, Predicate, Whole
from postline.routing.splitting import Part, carried, messages_of
from postline.runtime.context import Context
from postline.runtime.intents import DeadLetter

__all__ = ["PARTS_MAX", "RETENTION", "Gathered", "GatheringPlan", "Late", "collector", "gatherer", "ticker"]

_log = logging.getLogger("postline.routing")

PARTS_MAX = 1_000
RETENTION = timedelta(days=14)

#: What becomes of a part whose aggregate was complete: it begins the next of its key, or is a dead letter.
Late: TypeAlias = Literal["new", "dead-letter"]


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """One part as it waits: what tells it from others, its type, and its JSON text."""

    identity: str
    type: str
    message: str
    index: int = 0


class Gathered(msgspec.Struct):
    """The state of one key: the parts that wait, or, once complete, the identities of those that were in it."""

    parts: list[Kept]
    #: The id of the first part's message, which tells this aggregate from others of its key.
    opened: str = ""
    done: list[str] | None = None


#: What a tick is for.
_COMPLETE, _EXPIRE, _FORGET, _DROP = "complete", "expire", "forget", "drop"


class GatheringPlan(NamedTuple):
    """All that both halves go by."""

    name: str
    #: By wire name, former ones included.
    kinds: dict[str, Kind]
    complete: list[Completion]
    into: Callable[..., Any]
    part: Any
    tick: Any
    late: Late = "new"
    parts_max: int = PARTS_MAX
    expires: timedelta | None = None
    incomplete: Callable[..., Any] | None = None
    retention: timedelta = RETENTION


# -- giving messages their key --------------------------------------------------------------------


def collector(plan: GatheringPlan, topic: Topic | ForeignTopic, cls: type, key: KeySpec | None) -> Callable[..., Any]:
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


def _key_text(plan: GatheringPlan, key_of: Callable[[Any], bytes], message: Any) -> str:
    try:
        return key_of(message).decode()
    except (EncodeError, UnicodeDecodeError) as error:
        raise DeadLetter(f"aggregate {plan.name!r}: {error}") from error


# -- gathering ------------------------------------------------------------------------------------


def gatherer(plan: GatheringPlan) -> Callable[..., Any]:
    """The handler of the parts: keeps one, or completes with it."""

    async def gather(part: Any, ctx: Context[Any]) -> None:
        held = ctx.state.get() or Gathered([], ctx.message_id)
        if held.done is not None:
            if part.identity not in held.done:
                raise DeadLetter(f"aggregate {plan.name!r}: {part.key!r} was complete before this part came")
            return
        if any(each.identity == part.identity for each in held.parts):
            return
        held.parts.append(Kept(part.identity, part.type, part.message, part.index))
        if any(_is_complete(plan, each, held, part) for each in plan.complete):
            await _end(plan, plan.into, held, part.key, ctx)
        else:
            _keep(plan, held, part.key, ctx)

    return gather


def _is_complete(plan: GatheringPlan, completion: Completion, held: Gathered, part: Any) -> bool:
    match completion:
        case Count(parts=wanted):
            return len(held.parts) >= wanted
        case Whole():
            return len(held.parts) >= int(part.count)
        case Predicate(test=Rule() as rule):
            return rule(_read(plan, held.parts[-1]))
        case Predicate(test=test):
            return bool(test([_read(plan, each) for each in held.parts]))
        case After():
            return False


def _read(plan: GatheringPlan, kept: Kept) -> Any:
    if (kind := plan.kinds.get(kept.type)) is None:
        raise DeadLetter(f"aggregate {plan.name!r}: a part is a {kept.type}, which this version does not gather")
    return kind.read(kept.message.encode())


async def _end(plan: GatheringPlan, into: Callable[..., Any], held: Gathered, key: str, ctx: Context[Any]) -> None:
    """Publish what is made of the parts and forget them, together."""
    if any(isinstance(each, Whole) for each in plan.complete):
        held.parts.sort(key=lambda each: each.index)
    result = into([_read(plan, each) for each in held.parts])
    for message in messages_of(await result if inspect.isawaitable(result) else result):
        ctx.publish(message)
    if plan.late == "new":
        ctx.state.delete()
    else:
        ctx.state.put(Gathered([], held.opened, [each.identity for each in held.parts]))
        ctx.publish(plan.tick(key, held.opened, _FORGET), delay=plan.retention)


def _keep(plan: GatheringPlan, held: Gathered, key: str, ctx: Context[Any]) -> None:
    if len(held.parts) > plan.parts_max:
        raise DeadLetter(f"aggregate {plan.name!r}: {key!r} has {plan.parts_max} parts and is not complete")
    try:
        ctx.state.put(held)
    except MessageError as error:
        raise DeadLetter(f"aggregate {plan.name!r}: the parts of {key!r} are too large: {error}") from error
    if len(held.parts) == 1:
        for each in plan.complete:
            if isinstance(each, After):
                ctx.publish(plan.tick(key, held.opened, _COMPLETE), delay=each.time)
        if plan.expires is not None:
            ctx.publish(plan.tick(key, held.opened, _EXPIRE), delay=plan.expires)
            if plan.incomplete is None:  # its dead letter can be redriven until then
                ctx.publish(plan.tick(key, held.opened, _DROP), delay=plan.expires + plan.retention)


def ticker(plan: GatheringPlan) -> Callable[..., Any]:
    """The handler of what was put off until a time; one that is not of the aggregate that waits now does nothing."""

    async def tick(tick: Any, ctx: Context[Any]) -> None:
        held = ctx.state.get()
        if held is None or held.opened != tick.opened:
            return
        if tick.why == _FORGET:
            ctx.state.delete()
        elif held.done is not None:
            return
        elif tick.why == _DROP:
            _log.warning(
                "aggregate %s: the %d parts of a key were not complete %s after they had expired, and are forgotten",
                *(plan.name, len(held.parts), plan.retention),
                extra=event("aggregate.forgotten", subscription=plan.name, parts=len(held.parts)),
            )
            ctx.state.delete()
        elif tick.why == _COMPLETE:
            await _end(plan, plan.into, held, tick.key, ctx)
        elif plan.incomplete is None:
            raise DeadLetter(
                f"aggregate {plan.name!r}: {tick.key!r} has {len(held.parts)} parts and was not complete in time"
            )
        else:
            await _end(plan, plan.incomplete, held, tick.key, ctx)

    return tick
