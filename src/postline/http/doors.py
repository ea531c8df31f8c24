"""The way that every request takes: who asks, whether the app runs, the endpoint, and refusals as problem details."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from postline.app import App
from postline.errors import PostlineError
from postline.http.callers import Callers
from postline.http.hosting import Hosting
from postline.http.problems import Problem, problem_of, problem_response

__all__ = ["Endpoint", "path_of", "routes_of"]

#: Path, method, and what answers whom it is told.
Endpoint: TypeAlias = tuple[str, str, Callable[[Request, str], Awaitable[Response]]]


def routes_of(endpoints: Sequence[Endpoint], app: App, callers: Callers, hosting: Hosting) -> list[Route]:
    """Routes of these endpoints, each with and without a slash behind it."""
    methods: dict[str, dict[str, Callable[[Request, str], Awaitable[Response]]]] = {}
    for path, method, endpoint in endpoints:
        for each in (path, path + "/"):
            methods.setdefault(each, {})[method] = endpoint

    def route(path: str) -> Route:
        async def answer(request: Request) -> Response:
            try:
                endpoint = methods[path]["GET" if request.method == "HEAD" else request.method]
                principal = await callers.admit(request)
                await hosting.begin()
                callers.count(principal, app.clock)
                return await endpoint(request, principal)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it
            except Problem as problem:
                return problem_response(problem, path_of(request))
            except PostlineError as error:
                return problem_response(problem_of(error), path_of(request))

        return Route(path, answer, methods=list(methods[path]))

    return [route(path) for path in methods]


def path_of(request: Request) -> str:
    """The path that was asked for, as problems name it."""
    return quote(request.url.path, safe="/%:@!$&'()*+,;=~")
