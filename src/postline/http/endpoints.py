"""Endpoints that clients made at run time: kept in a topic of the service, each a subscription wherever it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec

from postline.app import App
from postline.contracts import Compaction, Sensitive, Topic
from postline.errors import LogError, PostlineError, UnknownSubscription, UsageError
from postline.events import Policy, Subscription
from postline.http.addresses import Addresses
from postline.http.calling import Caller
from postline.http.delivering import STANDARD_RETRY, Deliver, Post, Target
from postline.http.outgoing import EventWriter
from postline.http.signing import secrets_of
from postline.http.topic_reader import TopicReader, read_rule
from postline.http.webhooks import CONCURRENCY
from postline.ids import random_bytes
from postline.log.port import Append
from postline.logs.events import event
from postline.message import JSON_CONTENT_TYPE, UNREADABLE, Envelope
from postline.runtime.consumer import Consumer
from postline.runtime.context import Context

__all__ = ["Endpoints", "WebhookEndpoint"]

_log = logging.getLogger("postline.http")

_TYPE = "postline.WebhookEndpoint"
_LOOK_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
_GRACE_SECONDS = 5.0
_SHOWN_SECONDS = 0.05


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as its client made it."""

    id: str
    url: Sensitive[str]
    topic: str
    #: The newest first; all sign.
    secrets: Sensitive[list[str]]
    #: Who made it, and alone may see it.
    principal: str
    created_ms: int
    #: A rule as JSON text; "" for none.
    filter: str = ""
    #: Wire names of the types that are sent; none for all.
    types: list[str] = []
    #: Why nothing is sent to it; "" while something is.
    disabled: str = ""
    #: Tells from one another those that two processes make of one id; "" of what versions before this have made.
    made: str = ""


class _Served(NamedTuple):
    """An endpoint that is served in this process."""

    endpoint: WebhookEndpoint
    subscription: Subscription
    #: One for each priority of the topic.
    consumers: list[Consumer]
    caller: Caller


class Endpoints:
    """The endpoints of one service, by the topic `<service>.webhooks`, which every process of it follows.

    Each is a subscription `<topic>.<id>` in all processes that run the service's subscriptions. A companion of its app.
    Event loop only.
    """

    def __init__(
        self, app: App, topics: Iterable[Topic], *, addresses: Addresses, post: Post | None, reveal: bool
    ) -> None:
        self.addresses = addresses
        self.readers = {topic.name: TopicReader(topic, reveal=reveal) for topic in topics}
        self.known: dict[str, WebhookEndpoint] = {}
        self._app, self._post, self._reveal = app, post, reveal
        self._topic = Topic(f"{app.name}.webhooks", owner=app.name, key="id", partitions=1, compaction=Compaction())
        self._topic.takes_events = False
        self._topic.event(_TYPE)(WebhookEndpoint)
        self._reading = self._topic.reading_of(_TYPE)
        self._offset = 0
        self._catching_up = asyncio.Lock()
        #: Something was read since what is served was last compared with it.
        self._stale = False
        #: What was once deleted stays so, whatever a process that did not know it yet says later.
        self.deleted: set[str] = set()
        #: Whose newest record is not what stands (the first one, or that it was deleted): compaction would keep that.
        self._contested: set[str] = set()
        self._served: dict[str, _Served] = {}
        app.owns += (self._topic,)
        app.companions.append(self._meanwhile)

    @asynccontextmanager
    async def _meanwhile(self, app: App, consuming: bool) -> AsyncIterator[None]:
        self.known.clear()
        self.deleted.clear()
        self._contested.clear()
        self._offset = 0
        await self.catch_up()
        following = None
        if consuming:
            await self._sweep()
            await self._serve()
            following = asyncio.create_task(self._follow(), name=f"{app.name} webhooks")
        try:
            yield
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            for each in self._served.values():
                await each.caller.close()
            self._served.clear()

    # -- the topic ------------------------------------------------------------------------------------

    async def put(self, endpoint: WebhookEndpoint) -> None:
        """Keep an endpoint, new or changed; durable when this returns. Raises LogError."""
        await self._append(endpoint.id, self._reading.codec.encode(endpoint))

    async def make(self, endpoint: WebhookEndpoint) -> WebhookEndpoint:
        """Keep a new endpoint: the first of this id, which another process may have made meanwhile. Raises LogError."""
        await self.put(endpoint)
        await self.catch_up()
        while endpoint.id not in self.known and endpoint.id not in self.deleted:  # an engine may show it later
            await self._app.log.wait_for_appends(self._name, _SHOWN_SECONDS)
            await self.catch_up()
        await self._settle()
        return self.known.get(endpoint.id, endpoint)

    async def _settle(self) -> None:
        """Have those that stand be the newest, also for who was killed before it could."""
        while self._contested:
            if (contested := self._contested.pop()) in self.deleted:
                await self.delete(contested)
            else:
                await self.put(self.known[contested])

    async def delete(self, endpoint_id: str) -> None:
        """Forget an endpoint; durable when this returns. Raises LogError."""
        await self._append(endpoint_id, None)

    async def _append(self, endpoint_id: str, value: bytes | None) -> None:
        envelope = Envelope(
            id=random_bytes(16).hex(),
            source=self._app.name,
            type=_TYPE,
            time_ms=self._app.clock.now_ms(),
            content_type=JSON_CONTENT_TYPE,
        )
        await self._app.log.append([Append(self._name, 0, endpoint_id.encode(), value, envelope)])

    @property
    def _name(self) -> str:
        return self._app.spec_of(self._topic).name

    async def catch_up(self) -> None:
        """Know all that is in the topic now. Raises LogError."""
        async with self._catching_up:
            while records := await self._app.log.read(self._name, 0, self._offset):
                for record in records:
                    self._take((record[2] or b"").decode("utf-8", "replace"), record[4])
                self._offset = records[-1][0] + 1
                self._stale = True

    def _take(self, endpoint_id: str, value: bytes | None) -> None:
        if value is None:
            self.deleted.add(endpoint_id)
            self.known.pop(endpoint_id, None)
            self._contested.discard(endpoint_id)
        elif endpoint_id in self.deleted:
            self._contested.add(endpoint_id)
        else:
            try:
                told, known = self._reading.decode(value), self.known.get(endpoint_id)
                if known is None or not (known.made and told.made) or known.made == told.made:
                    self.known[endpoint_id] = told
                    self._contested.discard(endpoint_id)
                else:
                    self._contested.add(endpoint_id)
            except UNREADABLE as error:
                _log.error(
                    "webhook %s of %s can't be read, and is not served: %s",
                    endpoint_id,
                    self._app.name,
                    error,
                    extra=event("webhook.unreadable", webhook=endpoint_id, app=self._app.name),
                )

    # -- serving --------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                await self.catch_up()
                await self._settle()
                if self._stale or self._has_failed():
                    await self._serve()
                else:
                    await self._app.log.wait_for_appends(self._name, _LOOK_SECONDS)
            except LogError as error:
                _log.warning(
                    "the webhooks of %s can't be followed, trying again: %s",
                    self._app.name,
                    error,
                    extra=event("webhooks.unreadable", app=self._app.name),
                )
                await self._app.clock.sleep(_AGAIN_SECONDS)
            except Exception:  # noqa: BLE001 - logged; nobody else would see that webhooks no longer come and go
                _log.exception(
                    "the webhooks of %s can't be followed, trying again",
                    self._app.name,
                    extra=event("webhooks.failed", app=self._app.name),
                )
                await self._app.clock.sleep(_AGAIN_SECONDS)

    def _has_failed(self) -> bool:
        return any(_failure(each) is not None for each in self._served.values())

    async def _serve(self) -> None:
        """Serve what is known and enabled, and nothing else."""
        self._stale = False
        wanted = {each.id: each for each in self.known.values() if not each.disabled and each.topic in self.readers}
        for endpoint_id, served in list(self._served.items()):
            failure = _failure(served)
            if failure is not None:
                _log.error(
                    "webhook %s stopped and is begun again: %s",
                    served.subscription.name,
                    failure,
                    extra=event("webhook.stopped", subscription=served.subscription.name),
                )
                await self._app.clock.sleep(_AGAIN_SECONDS)
            if failure is not None or wanted.get(endpoint_id) != served.endpoint:
                await self._end(served)
        for endpoint in wanted.values():
            if endpoint.id not in self._served:
                await self._begin(endpoint)

    async def _begin(self, endpoint: WebhookEndpoint) -> None:
        caller = Caller(self.addresses)
        try:
            subscription = self._subscription(endpoint, caller)
            consumers = await self._app.add(subscription)
        except PostlineError as error:
            _log.error(
                "webhook %s of %s can't be served: %s",
                endpoint.id,
                self._app.name,
                error,
                extra=event("webhook.not_served", webhook=endpoint.id, app=self._app.name),
            )
            await caller.close()
            if isinstance(error, LogError) and error.retryable:
                self._stale = True
                await self._app.clock.sleep(_AGAIN_SECONDS)
            return
        self._served[endpoint.id] = _Served(endpoint, subscription, consumers, caller)

    def _subscription(self, endpoint: WebhookEndpoint, caller: Caller) -> Subscription:
        reader = self.readers[endpoint.topic]
        chosen = reader.chosen(endpoint.types, read_rule(endpoint.filter))
        start = datetime.fromtimestamp(endpoint.created_ms / 1000, UTC)
        policy = Policy(retry=STANDARD_RETRY, after="continue", concurrency=CONCURRENCY)
        subscription = Subscription(self.subscription_name(endpoint), reader.topic, start, policy)
        target = Target(endpoint.url, secrets_of(endpoint.secrets))
        writer = EventWriter(reader.topic, chosen.kinds, reveal=self._reveal)
        deliver = Deliver(self._post or caller.post, writer, lambda _: target, partial(self._disable, endpoint))
        for kind in sorted(chosen.kinds, key=reader.topic.type_name_of):
            subscription.on(kind, where=chosen.rule)(deliver)
        return subscription

    @staticmethod
    def subscription_name(endpoint: WebhookEndpoint) -> str:
        """What the endpoint's subscription is called."""
        return f"{endpoint.topic}.{endpoint.id}"

    async def _disable(self, endpoint: WebhookEndpoint, ctx: Context[Any], place: str) -> None:
        """Send nothing more to who answered 410; what waits, and what comes, is kept for when it is enabled again."""
        _log.warning(
            "webhook %s is disabled: %s answered 410",
            ctx.subscription,
            place,
            extra=event("webhook.disabled", subscription=ctx.subscription),
        )
        if endpoint.id not in self.deleted:
            newest = self.known.get(endpoint.id, endpoint)
            await self.put(msgspec.structs.replace(newest, disabled="The target answered 410 Gone."))

    async def _end(self, served: _Served) -> None:
        del self._served[served.endpoint.id]
        await self._app.remove(served.subscription, _GRACE_SECONDS)
        await served.caller.close()
        if served.endpoint.id in self.deleted:
            for consumer in served.consumers:
                await self._remove(consumer.plan.name)

    async def _sweep(self) -> None:
        """Forget what was deleted while nobody ran who could."""
        ours = {self._app.full_name(f"{topic}.{each}") for topic in self.readers for each in self.deleted}
        for info in await self._app.log.subscriptions():
            declared = info.name.removesuffix("." + info.name.rpartition(".")[2])
            if info.service == self._app.name and not ours.isdisjoint((info.name, declared)):
                await self._remove(info.name)

    async def _remove(self, name: str) -> None:
        """Forget a deleted endpoint's position; the last process that served it does."""
        try:
            await self._app.log.remove_subscription(name)
        except UnknownSubscription:
            pass  # another process was faster
        except UsageError:
            _log.info(
                "subscription %s is left to the process that serves it still",
                name,
                extra=event("webhook.left", subscription=name),
            )


def _failure(served: _Served) -> BaseException | None:
    ended = [each.failed.result() for each in served.consumers if each.failed is not None and each.failed.done()]
    return ended[0] if ended else None
