"""The way that every request takes: who asks, whether the app runs, the endpoint, and refusals as problem details."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from postline.errors import PostlineError
from postline.http.callers import Callers
from postline.http.hosting import Hosting
from postline.http.problems import Problem, problem_of, problem_response

__all__ = ["Answering", "Endpoint", "web_of"]

#: Answers a request of a principal. Raises Problem, PostlineError.
Answering: TypeAlias = Callable[[Request, str], Awaitable[Response]]
#: Path, method, and what answers.
Endpoint: TypeAlias = tuple[str, str, Answering]


def web_of(
    endpoints: Sequence[Endpoint],
    callers: Callers,
    hosting: Hosting,
    running: Callable[[], AbstractAsyncContextManager[None]],
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """The application of these endpoints, each with and without a slash behind it; `running` is its lifespan."""
    routes: dict[str, dict[str, Answering]] = {}
    for path, method, endpoint in endpoints:
        for each in (path, path + "/"):
            routes.setdefault(each, {})[method] = endpoint
    web = Starlette(
        routes=[_route(path, methods, callers, hosting) for path, methods in routes.items()],
        middleware=list(middleware),
        exception_handlers={HTTPException: _no_such, Exception: _failed},
        lifespan=lambda _: running(),
    )
    web.router.redirect_slashes = False
    return web


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
