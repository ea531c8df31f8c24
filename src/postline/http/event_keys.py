"""`EventKeys`: which events were taken under which `Idempotency-Key`, as notes on the topic `<service>.intake`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from hashlib import sha256

import msgspec

from postline.app import App
from postline.commands import Acceptances, Accepted, FirstSent
from postline.contracts import Compaction, Topic
from postline.contracts.relaying import CloudEvent
from postline.errors import UsageError
from postline.http.hosting import is_running
from postline.http.idempotency import IDEMPOTENCY_KEY, RequestName
from postline.http.problems import Problem
from postline.http.repeating import Repeating

__all__ = ["KEPT", "EventKeys"]

#: How long keys are remembered, unless settings say otherwise.
KEPT = timedelta(days=7)
#: What the note of the first request can hold of its events' ids: a quarter of a message, in whatever writing.
_IDS_CHARACTERS_MAX = 256 << 10
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

        Raises Problem (409, 413, 422), and as `App.relay`.
        """
        route, now, fingerprint = f"POST /events/{topic}", self._app.clock.now_ms(), _fingerprint(events)
        ids = tuple(event.envelope.id for event in events)
        if sum(map(len, ids)) > _IDS_CHARACTERS_MAX:
            said = f"Their ids are over {_IDS_CHARACTERS_MAX:,} characters together: send fewer at once."
            raise Problem(413, "too-large", f"Too many events under one {IDEMPOTENCY_KEY}", said)
        request_id = RequestName.keyed(principal, topic, route, key).request_id
        sent = FirstSent(command=route, sent_ms=now, fingerprint=fingerprint, ids=ids)
        accepted = Accepted(command=route, principal=principal, fingerprint=fingerprint, accepted_ms=now)

        async def store() -> Accepted:
            note = self._notes.record(request_id, accepted)
            await self._app.relaying().store(events, topic, (note,), renamed)
            return accepted

        async def renamed() -> Sequence[str]:
            return (await self._notes.first(request_id, sent)).ids

        await self._repeating.accepted(request_id, fingerprint, partial(self._notes.find, request_id), store)


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
