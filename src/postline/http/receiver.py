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
from postline.http import read_request
from postline.http.hosting import Hosting

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from postline.http.callers import Authenticate, Callers
    from postline.http.problems import Problem, problem_response
except ImportError as missing:
    raise SettingsError("Receiving over HTTP needs starlette.", remedy="pip install 'postline[http]'") from missing

__all__ = ["receiver"]

_BODY_BYTES_MAX = 4 << 20
_RETRY_SECONDS = 1


def receiver(
    app: App,
    *,
    path: str = "/",
    body_bytes_max: int = _BODY_BYTES_MAX,
    origins: Collection[str] = (),
    authenticate: Authenticate | None = None,
    challenge: str = "Bearer",
) -> Starlette:
    """What answers `POST path` with CloudEvents in binary or structured mode or in a batch.

    The app has to run in the same process: served on its own, as by uvicorn, this starts it, to publish alone, and
    stops it in the end; mounted in another application it is that one's to start.

    202 once all of them are stored durably; a sender that hears anything else, or nothing, sends them again, and
    repetitions are dropped by source and id. Else none is stored: 400 for what is no event, 413 over `body_bytes_max`
    or a topic's limit, 422 for a type that no contract of the app declares or data that it refuses, 429 with
    `Retry-After` while a topic's bound is reached, 503 while the log can't store. `OPTIONS` answers the handshake of
    CloudEvents' web hooks for senders in `origins` ("*" is all).

    `authenticate` says by a request who sends it, None for nobody (401, with `challenge`); without it only this machine
    is served (403), as by the gateway.
    """
    callers = Callers(authenticate, challenge, None)

    async def post(request: Request) -> Response:
        try:
            await callers.admit(request)
        except Problem as refused:
            return problem_response(refused, path)
        try:
            body = await _body(request, body_bytes_max)
            events = read_request(request.headers, body)
        except MessageTooLarge as error:
            return _refusal(413, error)
        except DecodeError as error:
            return _refusal(400, error)
        try:
            await app.relay(events)
        except MessageTooLarge as error:
            return _refusal(413, error)
        except ContractError as error:
            return _refusal(422, error)
        except BackPressure as full:
            return _refusal(429, full, {"Retry-After": str(math.ceil(full.retry_after_seconds))})
        except (LogError, UsageError) as error:  # which is that the app is not running
            return _refusal(503, error, {"Retry-After": str(_RETRY_SECONDS)})
        return Response(status_code=202)

    async def options(request: Request) -> Response:
        origin = request.headers.get("webhook-request-origin", "")
        if origin and (origin in origins or "*" in origins):
            granted = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "POST"}
            return Response(status_code=200, headers=granted)
        return Response(status_code=403 if origin else 200, headers={"Allow": "POST"})

    routes = [Route(path, post, methods=["POST"]), Route(path, options, methods=["OPTIONS"])]
    return Starlette(routes=routes, lifespan=lambda _: Hosting(app).running())


async def _body(request: Request, bytes_max: int) -> bytes:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > bytes_max:
            raise MessageTooLarge(
                f"The request is over {bytes_max} bytes.", remedy="Send fewer events at a time, or smaller ones."
            )
    return bytes(found)


def _refusal(status: int, error: PostlineError, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": error.message, "remedy": error.remedy}, status, headers)
