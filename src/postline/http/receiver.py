"""`receiver`: an ASGI application that takes CloudEvents over HTTP and publishes them, durably, by their contracts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from functools import cached_property
from typing import Any

from postline.app import App
from postline.errors import (
    BackPressure,
    ContractError,
    DecodeError,
    LogError,
    MessageTooLarge,
    PostlineError,
    SettingsError,
    UsageError,
)
from postline.http import CloudEvent, read_request

try:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from postline.http.bodies import read_body
    from postline.http.callers import Authenticate, Callers
    from postline.http.doors import Endpoint, Served
    from postline.http.event_keys import KEPT, EventKeys
    from postline.http.idempotency import IDEMPOTENCY_KEY, read_key
    from postline.http.openapi_events import events_document
    from postline.http.patience import within
    from postline.http.problems import RETRY_SECONDS, Problem, busy, problem_of, slow
except ImportError as missing:
    raise SettingsError("Receiving over HTTP needs starlette.", remedy="pip install 'postline[http]'") from missing

__all__ = ["Receiver", "receiver"]

_BODY_BYTES_MAX = 4 << 20
_BODY_SECONDS_MAX = 30.0


def receiver(
    app: App,
    *,
    path: str = "/",
    body_bytes_max: int = _BODY_BYTES_MAX,
    origins: Collection[str] = (),
    authenticate: Authenticate | None = None,
    challenge: str = "Bearer",
    rate: tuple[float, int] | None = None,
) -> Receiver:
    """What answers `POST path` with CloudEvents in binary or structured mode or in a batch.

    Declare it before the app starts. Served on its own, as by `postline serve`, it starts the app, to publish alone,
    and stops it in the end; mounted in another application, `async with receiver.running():` does both.

    202 once all of them are stored durably; a sender that hears anything else, or nothing, sends them again, and
    repetitions are dropped by source and id. Under an `Idempotency-Key` they are those of the first request, whatever
    their ids, for 7 days (the topic `<service>.intake`): other events under the same key are refused (422), and a
    repetition while the first is being stored (409). Else none is stored, and problem details say why: 400 for what is
    no event, 408 for a body that takes longer than 30 s, 413 over `body_bytes_max` or a topic's limit, 422 for a type
    that no contract of the app declares or data that it refuses, 429 with `Retry-After` over the sender's `rate` (a
    second, and so many at once above that) or while a topic's bound is reached, 503 while the log can't store. A `path`
    with `{topic}` in it takes events of the topic that it names alone, and knows no others (404). `OPTIONS` answers the
    handshake of CloudEvents' web hooks for senders in `origins` ("*" is all).

    `authenticate` says by a request who sends it, None for nobody (401, with `challenge`); without it only this machine
    is served (403), as by the gateway. Raises UsageError for an app that runs already.
    """
    intake = _EventIntake(app, body_bytes_max)
    handshake = Route(path, _Handshake(origins).answer, methods=["OPTIONS"])
    callers = Callers(authenticate, challenge, rate)
    return Receiver(app, (path, "POST", intake.post), callers, handshake, challenge if authenticate else "")


class Receiver(Served):
    """The application that others send events to; made by `receiver`."""

    def __init__(self, app: App, intake: Endpoint, callers: Callers, handshake: Route, challenge: str) -> None:
        self._path, self._challenge = intake[0], challenge
        endpoints: list[Endpoint] = [intake, ("/openapi.json", "GET", self._describe)]
        super().__init__(app, endpoints, callers, asyncio.Event(), open_routes=[handshake])

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document of what it takes. Raises ContractError for a contract that can't be said."""
        topics = (*self.app.owns, *self.app.publishes_to)
        return events_document(self.app.name, self._path, topics, kept=KEPT, challenge=self._challenge)


class _EventIntake:
    """Takes events in. Event loop only."""

    def __init__(self, app: App, body_bytes_max: int) -> None:
        self._app, self._body_bytes_max = app, body_bytes_max
        self._keys = EventKeys(app)

    async def post(self, request: Request, principal: str) -> Response:
        """Store the events of a request, and answer 202. Raises Problem."""
        topic = _topic(self._app, request)
        key = read_key(request.headers.getlist(IDEMPOTENCY_KEY))
        body = await within(self._app.clock, _BODY_SECONDS_MAX, read_body(request, self._body_bytes_max))
        if body is None:
            raise slow()
        events = _events(request, body)
        try:
            if key is None:
                await self._app.relay(events, topic=topic)
            else:
                await self._keys.take(events, topic, principal, key)
        except PostlineError as error:
            raise _problem(error) from error
        return Response(status_code=202)


class _Handshake:
    """Tells senders of web hooks whether they are welcome."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    async def answer(self, request: Request) -> Response:
        """Answer `OPTIONS`."""
        origin = request.headers.get("webhook-request-origin", "")
        if origin and (origin in self._origins or "*" in self._origins):
            granted = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "POST"}
            return Response(status_code=200, headers=granted)
        return Response(status_code=403 if origin else 200, headers={"Allow": "POST"})


def _topic(app: App, request: Request) -> str:
    """The topic that the path names; "" where it names none. Raises Problem (404) for one that takes no events."""
    named: str = request.path_params.get("topic", "")
    if named and named not in {each.name for each in (*app.owns, *app.publishes_to) if each.takes_events}:
        raise Problem(404, "unknown-topic", "Not Found", "There is no such topic for you.")
    return named


def _events(request: Request, body: bytes) -> list[CloudEvent]:
    """What the body has. Raises Problem (400)."""
    try:
        return read_request(request.headers, body)
    except DecodeError as error:
        raise Problem(400, "malformed", "The body is no CloudEvent", f"{error.message} {error.remedy}") from error


def _problem(error: PostlineError) -> Problem:
    said = f"{error.message} {error.remedy}".strip()
    match error:
        case MessageTooLarge():
            return Problem(413, "too-large", "The event is too large", said)
        case BackPressure(retry_after_seconds=seconds):
            return busy(said, max(1, math.ceil(seconds)))
        case ContractError():
            return Problem(422, "invalid", "The event is not as its contract has it", said)
        case LogError() | UsageError():  # the latter is that the app is not running
            headers = {"Retry-After": str(RETRY_SECONDS)}
            return Problem(503, "unavailable", "Nothing can be stored now", said, headers=headers)
    return problem_of(error)
