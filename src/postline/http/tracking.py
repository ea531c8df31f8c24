"""`/requests/{id}`: how a request stands, at once, after a wait or as a stream of events, and its cancelling."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from postline.app import App
from postline.commands import Standing
from postline.errors import PostlineError, UnknownSubscription
from postline.http.exposed import Exposure
from postline.http.limits import Limits
from postline.http.locating import Located, Locating
from postline.http.patience import unless_gone, unless_set
from postline.http.preferences import read_preferences
from postline.http.problems import Problem, busy
from postline.http.statuses import ENDED, StatusWriter, status_response
from postline.logs.events import event

__all__ = ["Tracking"]

_log = logging.getLogger("postline.http")

#: After so many milliseconds a browser whose stream broke asks again.
_RETRY_MS = 2_000
_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Tracking:
    """Tells clients of their requests. Event loop only."""

    def __init__(self, app: App, parts: tuple[Exposure, Locating, asyncio.Event], limits: Limits) -> None:
        self._app, self._limits = app, limits
        exposure, self._locating, self._ending = parts
        self._statuses = StatusWriter(exposure)
        self._streams = 0

    async def get(self, request: Request, principal: str) -> Response:
        """The status; with `Prefer: wait` once the request has ended, or the wait is over. Raises Problem."""
        located = self._locating.located(request, principal)
        standing = await located.standing()
        prefers = read_preferences(request.headers.getlist("prefer"))
        headers = {}
        if prefers.wait_seconds is not None:
            seconds = min(float(prefers.wait_seconds), self._limits.wait_seconds_max)
            headers = prefers.applied(seconds)
            if standing.outcome is None and seconds > 0:
                standing = await unless_gone(request, self._ending, _ended(located, standing, seconds)) or standing
        return self._response(request, located, standing, headers)

    async def delete(self, request: Request, principal: str) -> Response:
        """Ask that the command not be begun: 202, 200 once it is cancelled, 409 if it has ended otherwise."""
        located = self._locating.located(request, principal)
        standing = await located.standing()
        if standing.outcome is None:
            try:
                await located.requests.ticket(located.request_id).cancel()
            except UnknownSubscription as error:
                raise Problem(409, "not-served", "Nobody serves this command yet", error.message) from error
            response = self._response(request, located, standing, {})
            response.status_code = 202
            return response
        if standing.outcome.state != "cancelled":
            raise Problem(409, "ended", "The request has ended", f"It has {standing.outcome.state} before.")
        return self._response(request, located, standing, {})

    def _response(self, request: Request, located: Located, standing: Standing, headers: dict[str, str]) -> Response:
        body = self._body(request, located, standing)
        ended = self._statuses.state_of(standing) in ENDED
        known = "" if request.method == "DELETE" else request.headers.get("if-none-match", "")
        return status_response(body, headers, known, ended=ended)

    def _body(self, request: Request, located: Located, standing: Standing) -> bytes:
        name = request.path_params["name"]
        return self._statuses.document(located.topic, standing, name, self._locating.status_url(request, name))

    # -- the stream ---------------------------------------------------------------------------------

    async def events(self, request: Request, principal: str) -> Response:
        """Server-sent events: the status now, and each time that it changes, until the request has ended.

        An event's id is the offset of what it tells of, so that `Last-Event-ID` goes on where a stream broke; whoever
        was told the end gets 204, after which browsers ask no more. Raises Problem.
        """
        located = self._locating.located(request, principal)
        standing = await located.standing()
        last = request.headers.get("last-event-id", "").strip()
        known = int(last) if last.isascii() and last.isdecimal() and len(last) < 19 else -1
        if known > standing.version:
            known = -1  # no event of ours
        if standing.outcome is not None and known == standing.version:
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        if self._streams >= self._limits.streams_max:
            raise busy("Too many event streams are open.", 5)
        if request.method == "HEAD":
            return Response(headers=_STREAM_HEADERS, media_type="text/event-stream")
        told = self._told(request, located, standing, known)
        return StreamingResponse(told, headers=_STREAM_HEADERS, media_type="text/event-stream")

    async def _told(self, request: Request, located: Located, standing: Standing, known: int) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            yield b"retry: %d\n\n" % _RETRY_MS
            while True:
                if standing.version > known:
                    known = standing.version
                    body = self._body(request, located, standing)
                    yield b"id: %d\nevent: status\ndata: %s\n\n" % (known, body)
                else:
                    yield b": alive\n\n"
                if standing.outcome is not None or self._ending.is_set():
                    return
                changed = located.requests.changed(located.request_id, known, self._limits.heartbeat_seconds)
                standing = await unless_set(self._ending, changed) or standing
        except PostlineError as error:
            _log.warning(
                "a stream of events of %s ends, its client asks again: %s",
                located.request_id,
                error,
                extra=event("stream.ended", request=located.request_id),
            )
        finally:
            self._streams -= 1


async def _ended(located: Located, standing: Standing, seconds: float) -> Standing:
    """How the request stands once it has ended, or after `seconds`."""
    clock = located.requests.clock
    until = clock.monotonic() + seconds
    while standing.outcome is None and (left := until - clock.monotonic()) > 0:
        standing = await located.requests.changed(located.request_id, standing.version, left)
    return standing
