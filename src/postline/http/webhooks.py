"""`notify`: webhooks declared in code, each a durable subscription whose handler posts to one URL."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Unpack

from postline.app import App
from postline.contracts import ForeignTopic, Rule, Topic
from postline.errors import UsageError
from postline.events import PolicyOptions, Start, Subscription
from postline.http.addresses import Addresses
from postline.http.calling import Caller
from postline.http.delivering import STANDARD_RETRY, Deliver, Post, Target
from postline.http.outgoing import EventWriter
from postline.http.signing import Secrets, secrets_of
from postline.ids import derived_id
from postline.logs.events import event
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.control import ControlOp, control_record
from postline.runtime.plan import CONTROL_SUFFIX

__all__ = ["CONCURRENCY", "STANDARD_RETRY", "Endpoint", "notify"]

#: Posts at a time to one endpoint, in each process.
CONCURRENCY = 16

_log = logging.getLogger("postline.http")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A URL that messages are posted to, and which.

    `secret` is `whsec_…` or a `Secret`; several while it is rotated, and then all sign. `where` is a rule on the
    messages' fields, `types` the classes that are sent, by default all of the topic. `reveal` sends sensitive fields,
    which else are masked.
    """

    url: str
    secret: Secrets = field(repr=False)
    where: Rule | None = None
    types: Sequence[type] | None = None
    reveal: bool = False


def notify(
    app: App,
    name: str,
    topic: Topic | ForeignTopic,
    endpoint: Endpoint,
    *,
    start: Start | None = None,
    addresses: Addresses | None = None,
    post: Post | None = None,
    **options: Unpack[PolicyOptions],
) -> Subscription:
    """Post the topic's messages to an endpoint: a durable subscription `name`, with its own position and dead letters.

    Each message is a CloudEvent in JSON, signed as Standard Webhooks asks, and is delivered at least once: a repetition
    has the same `webhook-id`. What the target does not take with a 2xx is tried again by `STANDARD_RETRY` (or
    `retry=`), later messages of its key behind it, and then lies among the dead letters while the key goes on
    (`after="hold"` holds it). A target that answers 410 has its subscription paused, until somebody resumes it.
    `addresses` says which may be called; `post` stands in for the network in tests. Otherwise as `App.subscribe`;
    raises also ForbiddenAddress and SettingsError.
    """
    if options.get("batch") is not None:
        raise UsageError(f"Webhook {name!r} can't post in batches.", remedy="Leave out batch=; raise concurrency=.")
    caller = Caller(addresses or Addresses())
    caller.addresses.require(endpoint.url)
    target = Target(endpoint.url, secrets_of(endpoint.secret))
    given: PolicyOptions = {"retry": STANDARD_RETRY, "after": "continue", "concurrency": CONCURRENCY}
    given.update(options)
    subscription = app.subscribe(name, topic, start=start, **given)
    kinds = sorted(topic.classes, key=topic.type_name_of) if endpoint.types is None else list(endpoint.types)

    writer = EventWriter(topic, kinds, reveal=endpoint.reveal)
    deliver = Deliver(post or caller.post, writer, lambda _: target, partial(_pause, app))
    for kind in kinds:
        subscription.on(kind, where=endpoint.where)(deliver)
    app.companions.append(closing(caller))
    return subscription


async def _pause(app: App, ctx: Context[Any], place: str) -> None:
    """Ask the owners of all partitions to pause, as an operator would; what waits is kept."""
    name, op = ctx.subscription, ControlOp(op="pause", reason=f"{place} answered 410")
    _log.error(
        "subscription %s pauses: %s answered 410, it wants no more messages; ask its owner, then "
        "`postline subscriptions resume %s` or remove it",
        *(name, place, name),
        extra=event("webhook.gone", subscription=name),
    )
    places = [info.partition for info in await app.log.partitions(name)]
    ids = [derived_id(ctx.idempotency_key, "gone", ctx.attempt, each) for each in places]
    said = [Envelope(id=each, source=app.name, time_ms=ctx.desk.now_ms()) for each in ids]
    await app.log.append(
        [control_record(name + CONTROL_SUFFIX, *each) for each in zip(places, [op] * len(places), said, strict=True)]
    )


def closing(caller: Caller) -> Any:
    """What closes the caller's connections when the app has stopped."""

    @asynccontextmanager
    async def meanwhile(app: App, consuming: bool) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await caller.close()

    return meanwhile
