"""`/healthz`, `/readyz`, `/scale`: whether a process lives and does its work, and how many it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

import msgspec

from postline.app import App
from postline.clock import Clock, SystemClock
from postline.errors import PostlineError
from postline.http.hosting import is_running
from postline.http.scaling import Scaling

__all__ = ["Health"]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[Any], Awaitable[None]]
_Application = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

#: How long the log may take to answer before it counts as away.
_LOG_SECONDS = 2.0


class Health:
    """An ASGI application that answers probes for apps of this process; the rest goes to `then`, else is 404.

    `/healthz` is 200 as long as the event loop turns: nothing but that mends by a restart. `/readyz` is 200 once every
    app runs, its groups are joined and the log answers, and 503 with what is missing before, or while it stops. Neither
    depends on lag. `/scale` says how many processes the services should have, by what their log knows of all of them
    (`?min=1&max=8&drain_seconds=60`); 503 while that can't be read. Nobody is asked who they are, so names of apps and
    subscriptions, and counts, are all that is told.
    """

    def __init__(
        self,
        apps: Iterable[App],
        then: _Application | None = None,
        *,
        consume: bool = True,
        stopping: Callable[[], bool] = bool,
        clock: Clock | None = None,
    ) -> None:
        """`consume` says whether subscriptions run here, `stopping` whether the process was told to stop."""
        self._apps, self._then, self._consume, self._stopping = list(apps), then, consume, stopping
        self._scaling = Scaling(self._apps, clock or SystemClock())

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer as ASGI asks."""
        path = scope.get("path") if scope["type"] == "http" else None
        if path == "/healthz":
            await _answer(scope, send, 200, {"status": "ok"})
        elif path == "/readyz":
            missing = await self.missing()
            said = {"status": "not ready", "missing": missing} if missing else {"status": "ready"}
            await _answer(scope, send, 503 if missing else 200, said)
        elif path == "/scale":
            await _answer(scope, send, *await self._scaling.answer(scope.get("query_string", b"")))
        elif self._then is not None:
            await self._then(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(scope, send, 404, {"status": "not found"})

    async def missing(self) -> list[str]:
        """What keeps the process from being ready, in sentences; [] if it is."""
        if self._stopping():
            return ["The process stops."]
        found = [sentence for app in self._apps for sentence in self._unjoined(app)]
        return found or await self._away()

    def _unjoined(self, app: App) -> list[str]:
        if not is_running(app):
            return [f"App {app.name} does not run yet."]
        if not self._consume:
            return []
        declared = {app.full_name(name) for name in app.subscriptions}
        begun = {each.plan.declared_as for each in app.consumers}
        waiting = [each.plan.name for each in app.consumers if not each.joined]
        return [f"Subscription {name} has not joined its group." for name in [*sorted(declared - begun), *waiting]]

    async def _away(self) -> list[str]:
        answers = await asyncio.gather(*(_answers(app) for app in self._apps))
        return list(dict.fromkeys(answer for answer in answers if answer))


async def _answers(app: App) -> str:
    """Why the app's log does not answer; "" if it does."""
    topics: Sequence[str] = [consumer.plan.topic for consumer in app.consumers]
    try:
        async with asyncio.timeout(_LOG_SECONDS):
            await (app.log.bounds(topics[0]) if topics else app.log.topics())
    except (PostlineError, TimeoutError) as error:
        return f"The log of app {app.name} does not answer ({type(error).__name__})."
    return ""


async def _answer(scope: _Scope, send: _Send, status: int, content: Any) -> None:
    body = msgspec.json.encode(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"cache-control", b"no-store")]}
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
