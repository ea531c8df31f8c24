"""`gateway`: an ASGI application by which web clients send commands, and learn what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
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
    from starlette.types import Receive, Scope, Send

    from postline.http.callbacks import describe_callbacks
    from postline.http.callers import Authenticate, Callers
    from postline.http.doors import Endpoint, web_of
    from postline.http.exposed import Exposure
    from postline.http.hosting import Hosting
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


class Gateway:
    """An ASGI application, to be served on its own or mounted in another; made by `gateway`.

    Served on its own it starts the app, to send alone, and stops it in the end. Mounted nobody tells it of either:
    `async with gateway.running():` in the outer application's lifespan does both; else the first request starts the
    app. An app that runs already is left alone.
    """

    def __init__(
        self,
        app: App,
        parts: tuple[Callers, Intake, Tracking, asyncio.Event],
        document: dict[str, Any],
        origins: tuple[str, ...],
    ) -> None:
        self.app = app
        #: The OpenAPI 3.1 document of what it answers.
        self.document = document
        self._callers, intake, tracking, ending = parts
        self._intake, self._ending = intake, ending
        self._hosting = Hosting(app)
        #: Whether somebody says who asks; else only this machine is served.
        self.authenticates = self._callers.authenticates
        endpoints: list[Endpoint] = [
            ("/commands/{name}", "POST", intake.post),
            ("/requests/{name}", "GET", tracking.get),
            ("/requests/{name}", "DELETE", tracking.delete),
            ("/requests/{name}/events", "GET", tracking.events),
            ("/openapi.json", "GET", self._describe),
        ]
        middleware = [_cors(origins)] if origins else []
        self._web = web_of(endpoints, self._callers, self._hosting, self.running, middleware)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI asks."""
        await self._web(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The app runs meanwhile, for the lifespan of the application that this one is mounted in."""
        self._ending.clear()
        async with self._hosting.running():
            yield

    def let_go(self) -> None:
        """End streams and waits with what is known, since whoever serves this is about to stop."""
        self._ending.set()

    async def _describe(self, request: Request, principal: str) -> Response:
        servers = [{"url": self._intake.url(request, "") or "/"}]
        return Response(msgspec.json.encode({**self.document, "servers": servers}), media_type="application/json")


def _cors(origins: tuple[str, ...]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "If-None-Match", "Last-Event-ID"],
        expose_headers=["Location", "Retry-After", "ETag", "Preference-Applied"],
    )
