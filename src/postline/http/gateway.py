"""`gateway`: an ASGI application by which web clients send commands, and learn what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from postline.app import App
from postline.contracts.commands import CommandTopic
from postline.errors import SettingsError

try:
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import Request
    from starlette.responses import Response

    from postline.http.callbacks import describe_callbacks
    from postline.http.callers import Authenticate, Callers
    from postline.http.doors import Endpoint, Served
    from postline.http.exposed import Exposure
    from postline.http.intake import Intake
    from postline.http.limits import Limits
    from postline.http.locating import Locating
    from postline.http.openapi import document
    from postline.http.tracking import Tracking
except ImportError as missing:
    raise SettingsError("The gateway needs starlette.", remedy="pip install 'postline[http]'") from missing

__all__ = ["Authenticate", "Gateway", "Limits", "gateway"]


def gateway(
    app: App,
    *,
    authenticate: Authenticate | None = None,
    challenge: str = "Bearer",
    topics: Sequence[CommandTopic] | None = None,
    limits: Limits | None = None,
    key_required: bool = False,
    origins: Collection[str] = (),
    public_url: str = "",
) -> Gateway:
    """The web's door to the commands and queries of `topics` (all that the app knows).

    `POST /commands/{wire name}` answers 202 once the command is stored durably, `GET` of its `Location` tells what
    became of it; docs/howto/http.md has all of it. `authenticate` names who asks, or None to refuse, and `challenge` is
    what `WWW-Authenticate` then says; without it only this machine is served. With `key_required` every command needs
    an `Idempotency-Key`. Pages of `origins` ("https://shop.example") may call it from a browser, nobody else's.
    `public_url` is where clients reach it, if proxies hide that. Raises SettingsError.
    """
    if "*" in origins:
        raise SettingsError(
            "The gateway was given the origin '*', by which any page could send commands.",
            remedy='Name the origins: origins=["https://shop.example"].',
        )
    limits = limits or Limits()
    exposure = Exposure(app.commands if topics is None else topics)
    callers = Callers(authenticate, challenge, limits.rate)
    shared = (exposure, Locating(app, exposure, public_url), asyncio.Event())
    intake, tracking = Intake(app, shared, limits, key_required=key_required), Tracking(app, shared, limits)
    described = document(app.name, exposure, key_required=key_required, challenge=challenge if authenticate else "")
    describe_callbacks(described, app, exposure.commands)
    return Gateway(app, (callers, intake, tracking, shared[2]), described, tuple(origins))


class Gateway(Served):
    """The application that web clients send commands by; made by `gateway`."""

    def __init__(
        self,
        app: App,
        parts: tuple[Callers, Intake, Tracking, asyncio.Event],
        document: dict[str, Any],
        origins: tuple[str, ...],
    ) -> None:
        self._document = document
        callers, self._intake, tracking, ending = parts
        endpoints: list[Endpoint] = [
            ("/commands/{name}", "POST", self._intake.post),
            ("/requests/{name}", "GET", tracking.get),
            ("/requests/{name}", "DELETE", tracking.delete),
            ("/requests/{name}/events", "GET", tracking.events),
            ("/openapi.json", "GET", self._describe),
        ]
        super().__init__(app, endpoints, callers, ending, [_cors(origins)] if origins else [])

    @property
    def document(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document of what it answers."""
        return self._document

    async def _describe(self, request: Request, principal: str) -> Response:
        servers = [{"url": self._intake.url(request, "") or "/"}]
        return Response(msgspec.json.encode({**self.document, "servers": servers}), media_type="application/json")


def _cors(origins: tuple[str, ...]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=[
            *("Authorization", "Content-Type", "Idempotency-Key", "Prefer", "If-None-Match", "Last-Event-ID"),
            *("Postline-Callback", "Postline-Priority"),
        ],
        expose_headers=["Location", "Retry-After", "ETag", "Preference-Applied"],
    )
