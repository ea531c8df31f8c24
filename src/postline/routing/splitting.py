"""One message cut into several, each knowing its place among them, and how that knowledge travels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postline.contracts import Topic
from postline.contracts.cloudevents import RESERVED, TRACE
from postline.errors import UsageError
from postline.events import Subscription
from postline.routing.declaring import kind_of
from postline.routing.targets import require_results, require_taking
from postline.runtime.context import Context
from postline.runtime.handlers import inspect_handler

__all__ = ["Part", "carried", "messages_of", "split"]

_GROUP, _INDEX, _COUNT = "ce_splitgroup", "ce_splitindex", "ce_splitcount"


@dataclass(frozen=True, slots=True)
class Part:
    """The place of a message among those that one was split into."""

    #: The same for all parts of one message, and for no others; unchanged by retries, redrives and replays.
    group: str
    #: From 0.
    index: int
    #: How many parts there are.
    count: int

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say so: `ctx.publish(result, headers=part.headers)` lets a result stand for its part."""
        return {_GROUP: self.group, _INDEX: str(self.index), _COUNT: str(self.count)}

    @classmethod
    def of(cls, ctx: Context[Any]) -> Part | None:
        """The place of the message being handled; None if it is no part, or its headers say nothing that can be."""
        return cls.read(ctx.envelope.headers)

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Part | None:
        """As `of`, from a message's headers."""
        group, index, count = (headers.get(name, "") for name in (_GROUP, _INDEX, _COUNT))
        if not (group and _is_number(index) and _is_number(count) and int(index) < int(count)):
            return None
        return cls(group, int(index), int(count))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def carried(ctx: Context[Any]) -> dict[str, str]:
    """The headers that go on with what is made of a message: those of its sender, and its place among parts.

    Extensions of CloudEvents stay behind: what they say is said of the message itself. The trace goes on by itself.
    """
    headers = ctx.envelope.headers
    part = Part.read(headers)
    kept = {
        name: value
        for name, value in headers.items()
        if name not in RESERVED and name not in TRACE and not name.startswith("ce_")
    }
    return kept if part is None else kept | part.headers


def messages_of(result: Any) -> list[Any]:
    """What a function gave: nothing, one message, or several."""
    if result is None:
        return []
    return list(result) if isinstance(result, list | tuple) else [result]


def split(subscription: Subscription, into: Callable[..., Any], of: type | None, published: Sequence[Topic]) -> None:
    """Have the subscription publish what `into` makes of each message, each with its place among them."""
    kind = kind_of(subscription.name, subscription.topic, of)
    _, wants_context = inspect_handler(into, subscription.name)
    require_taking(subscription.name, into, kind)
    require_results(subscription.name, into, (kind,), published)

    async def cut(message: Any, ctx: Context[Any]) -> None:
        result = into(message, ctx) if wants_context else into(message)
        parts = await result if inspect.isawaitable(result) else result
        if not isinstance(parts, list | tuple):
            raise UsageError(
                f"Subscription {subscription.name!r} splits into a list, and was given {parts!r:.80}.",
                remedy="Return a list of messages; an empty one if there are none.",
            )
        headers = carried(ctx)
        for index, part in enumerate(parts):
            ctx.publish(part, headers=headers | Part(ctx.idempotency_key, index, len(parts)).headers)

    subscription.on(kind)(cut)
