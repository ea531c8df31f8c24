"""Wire taps: copies of a topic's records on a topic of their own, as they were, with where they came from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec

from postline.contracts import Kind, Retention, Sensitive, Topic
from postline.contracts.masking import has_sensitive
from postline.contracts.topics import DEFAULT_PARTITIONS
from postline.errors import UsageError
from postline.events import Subscription
from postline.runtime.context import Context

__all__ = ["TapTopic", "tap"]


def tapped_key(copy: Any) -> str:
    """The key of the record that was copied; of one without, its place."""
    return copy.key or f"{copy.topic}/{copy.partition}/{copy.offset}"


class TapTopic(Topic):
    """A topic of copies: messages of its class `Copy`, in the order of the keys that the copied records have.

    A `Copy` is a message of its own, caused by the original, whose identity it names: `id`, `source`, `type` and
    `time_ms` as its publisher gave them, `topic`, `partition` and `offset` as it lies, `key`, `headers`, and the
    `message` as JSON text. With `sensitive=True`, which it needs where originals have `Sensitive` fields, the message
    is masked wherever people look at copies.
    """

    Copy: Any
    takes_events = False

    def __init__(
        self,
        name: str,
        *,
        owner: str,
        partitions: int = DEFAULT_PARTITIONS,
        retention: timedelta | Retention | None = None,
        sensitive: bool = False,
    ) -> None:
        super().__init__(name, owner=owner, key=tapped_key, partitions=partitions, retention=retention)
        fields: list[Any] = [(each, str) for each in ("id", "source", "type", "topic")]
        fields += [("partition", int), ("offset", int), ("time_ms", int), ("key", str)]
        fields.append(("message", Sensitive[str] if sensitive else str))
        self.sensitive = sensitive
        fields.append(("headers", dict[str, str], msgspec.field(default_factory=dict)))
        self.Copy = msgspec.defstruct("Copy", fields, frozen=True, kw_only=True, module=__name__)
        self.event(f"{name}.Copy")(self.Copy)


def tap(subscription: Subscription, to: TapTopic, published: Iterable[Topic]) -> None:
    """Have the subscription copy messages of all types that its topic declares. Raises UsageError."""
    if to not in published:
        raise UsageError(
            f"Tap {subscription.name!r} copies to topic {to.name!r}, which the app does not publish to.",
            remedy="List it in owns=[…] or publishes_to=[…] of the app.",
        )
    for name in map(subscription.topic.type_name_of, subscription.topic.classes):
        if not to.sensitive and has_sensitive(subscription.topic.reading_of(name).schema):
            raise UsageError(
                f"Tap {subscription.name!r}: {name} has sensitive fields, which copies would show.",
                remedy="Say TapTopic(…, sensitive=True), which masks the copied message.",
            )
    for kind in subscription.topic.classes:
        subscription.on(kind)(_copying(subscription.topic.format.name == "json", Kind(kind), to.Copy))


def _copying(is_json: bool, kind: Kind, copy: Any) -> Any:
    async def copying(message: Any, ctx: Context[Any]) -> Any:
        offset, _, key, type_name, value, *_ = ctx.record
        envelope = ctx.envelope
        # As it was written, fields that this version doesn't know included; a frame or another format becomes JSON.
        written = value if is_json and value is not None and value.startswith(b"{") else kind.encode(message)
        return copy(
            id=envelope.id,
            source=envelope.source,
            type=type_name,
            topic=ctx.desk.topic,
            partition=ctx.desk.partition,
            offset=offset,
            time_ms=envelope.time_ms,
            key="" if key is None else key.decode("utf-8", "backslashreplace"),
            message=written.decode(),
            headers=dict(envelope.headers),
        )

    return copying
