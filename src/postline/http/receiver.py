"""`receiver`: an ASGI application that takes CloudEvents over HTTP and publishes them, durably, by their contracts."""

from __future__ import annotations

import math
from collections.abc import Collection

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
from postline.http.hosting import Hosting

try:
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route

    from postline.http.bodies import read_body
    from postline.http.callers import Authenticate, Callers
    from postline.http.patience import within
    from postline.http.problems import RETRY_SECONDS, Problem, busy, problem_of, problem_response, slow
except ImportError as missing:
    raise SettingsError("Receiving over HTTP needs starlette.", remedy="pip install 'postline[http]'") from missing

__all__ = ["receiver"]

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
) -> Starlette:
    """What answers `POST path` with CloudEvents in binary or structured mode or in a batch.

    The app has to run in the same process: served on its own, as by uvicorn, this starts it, to publish alone, and
    stops it in the end; mounted in another application it is that one's to start.

    202 once all of them are stored durably; a sender that hears anything else, or nothing, sends them again, and
    repetitions are dropped by source and id. Else none is stored, and problem details say why: 400 for what is no
    event, 408 for a body that takes longer than 30 s, 413 over `body_bytes_max` or a topic's limit, 422 for a type that
    no contract of the app declares or data that it refuses, 429 with `Retry-After` over the sender's `rate` (a second,
    and so many at once above that) or while a topic's bound is reached, 503 while the log can't store. A `path` with
    `{topic}` in it takes events of the topic that it names alone, and knows no others (404). `OPTIONS` answers the
    handshake of CloudEvents' web hooks for senders in `origins` ("*" is all).

    `authenticate` says by a request who sends it, None for nobody (401, with `challenge`); without it only this machine
    is served (403), as by the gateway.
    """
    callers = Callers(authenticate, challenge, rate)

    async def post(request: Request) -> Response:
        try:
            principal = await callers.admit(request)
            topic = _topic(app, request)
            callers.count(principal, app.clock)
            body = await within(app.clock, _BODY_SECONDS_MAX, read_body(request, body_bytes_max))
            if body is None:
                raise slow()
            await app.relay(_events(request, body), topic=topic)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Problem as refused:
            return problem_response(refused, request.url.path)
        except PostlineError as error:
            return problem_response(_problem(error), request.url.path)
        return Response(status_code=202)

    async def options(request: Request) -> Response:
        origin = request.headers.get("webhook-request-origin", "")
        if origin and (origin in origins or "*" in origins):
            granted = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "POST"}
            return Response(status_code=200, headers=granted)
        return Response(status_code=403 if origin else 200, headers={"Allow": "POST"})

    routes = [Route(path, post, methods=["POST"]), Route(path, options, methods=["OPTIONS"])]
    return Starlette(routes=routes, lifespan=lambda _: Hosting(app).running())


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
