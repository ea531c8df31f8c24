"""The way that every request takes: who asks, whether the app runs, the endpoint, and refusals as problem details."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from postline.app import App
from postline.errors import PostlineError
from postline.http.callers import Callers
from postline.http.hosting import Hosting
from postline.http.problems import Problem, problem_of, problem_response

__all__ = ["Answering", "Endpoint", "Served"]

#: Answers a request of a principal. Raises Problem, PostlineError.
Answering: TypeAlias = Callable[[Request, str], Awaitable[Response]]
#: Path, method, and what answers.
Endpoint: TypeAlias = tuple[str, str, Answering]


class Served(ABC):
    """An ASGI application of endpoints, to be served on its own or mounted in another.

    Served on its own it starts the app, to send alone, and stops it in the end. Mounted nobody tells it of either:
    `async with served.running():` in the outer application's lifespan does both; else the first request starts the
    app. An app that runs already is left alone.
    """

    @property
    @abstractmethod
    def document(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document of what it answers. Raises ContractError for a contract that can't be said."""

    async def _describe(self, request: Request, principal: str) -> Response:
        """`GET /openapi.json`."""
        servers = [{"url": request.scope.get("root_path", "").rstrip("/") or "/"}]
        return Response(msgspec.json.encode({**self.document, "servers": servers}), media_type="application/json")

    def __init__(
        self,
        app: App,
        endpoints: Sequence[Endpoint],
        callers: Callers,
        ending: asyncio.Event,
        middleware: Sequence[Middleware] = (),
        open_routes: Sequence[Route] = (),
    ) -> None:
        """`open_routes` are asked by anybody, whether the app runs or not."""
        self.app = app
        #: Whether somebody says who asks; else only this machine is served.
        self.authenticates = callers.authenticates
        self._hosting, self._ending = Hosting(app), ending
        routes: dict[str, dict[str, Answering]] = {}
        for path, method, endpoint in endpoints:
            for each in (path, path + "/"):  # with and without a slash behind it
                routes.setdefault(each, {})[method] = endpoint
        self._web = Starlette(
            routes=[
                *(_route(path, methods, callers, self._hosting) for path, methods in routes.items()),
                *open_routes,
            ],
            middleware=list(middleware),
            exception_handlers={HTTPException: _no_such, Exception: _failed},
            lifespan=lambda _: self.running(),
        )
        self._web.router.redirect_slashes = False

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


def _route(path: str, endpoints: dict[str, Answering], callers: Callers, hosting: Hosting) -> Route:
    async def answer(request: Request) -> Response:
        try:
            endpoint = endpoints["GET" if request.method == "HEAD" else request.method]
            principal = await callers.admit(request)
            await hosting.begin()
            callers.count(principal, hosting.app.clock)
            return await endpoint(request, principal)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Problem as problem:
            return problem_response(problem, _path(request))
        except PostlineError as error:
            return problem_response(problem_of(error), _path(request))

    return Route(path, answer, methods=list(endpoints))


def _no_such(request: Request, error: Exception) -> Response:
    """What the router itself refuses: a path or a method that is not there."""
    assert isinstance(error, HTTPException)
    return problem_response(Problem(error.status_code, "", error.detail, headers=error.headers), _path(request))


def _failed(request: Request, error: Exception) -> Response:
    """A fault of the program's own; the server logs it."""
    return problem_response(Problem(500, "", "Internal Server Error"), _path(request))


def _path(request: Request) -> str:
    return quote(request.scope["path"], safe="/%:@!$&'()*+,;=~")
