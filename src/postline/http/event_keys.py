"""`EventKeys`: which events were taken under which `Idempotency-Key`, as notes on the topic `<service>.intake`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from hashlib import sha256

import msgspec

from postline.app import App
from postline.commands import Acceptances, Accepted
from postline.contracts import Compaction, Topic
from postline.contracts.relaying import CloudEvent
from postline.errors import UsageError
from postline.http.hosting import is_running
from postline.http.idempotency import RequestName
from postline.http.repeating import Repeating
from postline.log.port import Append

__all__ = ["KEPT", "EventKeys"]

#: How long keys are remembered, unless settings say otherwise.
KEPT = timedelta(days=7)
_TRACE = frozenset(("traceparent", "tracestate"))


class _IntakeTopic(Topic):
    """Where the notes lie, compacted and kept as long as keys are remembered."""

    takes_events = False


class EventKeys:
    """Takes events once for each key. A companion of its app; event loop only."""

    def __init__(self, app: App) -> None:
        self._app = app
        if is_running(app):
            raise UsageError(
                f"App {app.name!r} runs already, without the topic for idempotency keys of events.",
                remedy="Make the receiver before the app is started.",
            )
        topic = next((each for each in app.owns if isinstance(each, _IntakeTopic)), None)  # of another receiver
        if topic is None:
            topic = _IntakeTopic(
                f"{app.name}.intake", owner=app.name, key="request", retention=KEPT, compaction=Compaction()
            )
            app.owns += (topic,)
        self._topic = topic
        self._repeating = Repeating("request")
        self._notes: Acceptances
        app.companions.append(self._meanwhile)

    @asynccontextmanager
    async def _meanwhile(self, app: App, consuming: bool) -> AsyncIterator[None]:
        self._notes = Acceptances(app.log, app.spec_of(self._topic), app.name)
        yield

    async def take(self, events: Sequence[CloudEvent], topic: str, principal: str, key: str) -> None:
        """Publish what comes under a key, unless it was before; durable when this returns.

        Raises Problem (409, 422), and as `App.relay`.
        """
        route = f"POST /events/{topic}"
        request_id = RequestName.keyed(principal, topic, route, key).request_id
        accepted = Accepted(
            command=route,
            principal=principal,
            fingerprint=_fingerprint(events),
            accepted_ms=self._app.clock.now_ms(),
        )
        note = self._notes.record(request_id, accepted)
        known, store = partial(self._notes.find, request_id), partial(self._stored, events, topic, note, accepted)
        await self._repeating.accepted(request_id, accepted.fingerprint, known, store)

    async def _stored(self, events: Sequence[CloudEvent], topic: str, note: Append, accepted: Accepted) -> Accepted:
        await self._app.relay(events, topic=topic, beside=(note,))
        return accepted


def _fingerprint(events: Sequence[CloudEvent]) -> bytes:
    """What a repetition has in common with the first: all but what a sender may make anew for each time it sends."""
    told = [
        (
            event.envelope.type,
            event.envelope.source,
            event.envelope.content_type,
            sorted(each for each in event.envelope.headers.items() if each[0] not in _TRACE),
            event.data,
        )
        for event in events
    ]
    return sha256(msgspec.msgpack.encode(told)).digest()
