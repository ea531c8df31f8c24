"""`POST /commands/{name}`: a command read, stored with the note of whose it is, and answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from postline.app import App
from postline.clock import Clock
from postline.commands import Accepted, Outcome, Requests, Standing, Ticket
from postline.contracts.json_faults import reading_fault
from postline.contracts.reading import Reading
from postline.errors import ContractError, DecodeError, ForbiddenAddress, PostlineError, RequestTimeout
from postline.http.bodies import read_body, require_json, require_sound
from postline.http.callbacks import CALLBACK_HEADER, callbacks_of
from postline.http.exposed import Exposed, Exposure
from postline.http.idempotency import IDEMPOTENCY_KEY, RequestName, read_key
from postline.http.limits import Limits
from postline.http.locating import Locating
from postline.http.patience import unless_gone, within
from postline.http.preferences import Preferences, read_preferences
from postline.http.problems import Problem, invalid, slow
from postline.http.repeating import Repeating
from postline.http.statuses import JSON, RETRY_SECONDS, StatusWriter, links, status_response
from postline.logs.events import event

__all__ = ["PRIORITY_HEADER", "Intake"]

_log = logging.getLogger("postline.http")

#: Of RFC 9218's `Priority` servers make the order of their answers; this one is about when a command is handled.
PRIORITY_HEADER = "Postline-Priority"


class Intake:
    """Takes commands in. Event loop only."""

    def __init__(
        self, app: App, parts: tuple[Exposure, Locating, asyncio.Event], limits: Limits, *, key_required: bool
    ) -> None:
        self._app, self._limits, self._key_required = app, limits, key_required
        self._exposure, self._locating, self._ending = parts
        self._statuses = StatusWriter(self._exposure)
        self._repeating = Repeating(
            "command", f"Repeat the first one unchanged, its {CALLBACK_HEADER} too, or use a new key."
        )

    def clock(self) -> Clock:
        """The running app's clock."""
        return self._app.requests(next(iter(self._exposure.topics.values()))).clock

    def url(self, request: Request, path: str) -> str:
        """Where a path of the gateway is reached."""
        return self._locating.url(request, path)

    async def post(self, request: Request, principal: str) -> Response:
        """Store a command, and answer 202, or 200 with its outcome if that is waited for. Raises Problem."""
        exposed = self._exposure.commands.get(request.path_params["name"])
        if exposed is None:
            raise Problem(404, "unknown-command", "Not Found", "There is no such command; see openapi.json.")
        key = read_key(request.headers.getlist(IDEMPOTENCY_KEY))
        if key is None and self._key_required and not exposed.spec.is_query:
            raise Problem(400, "idempotency-key", f"{IDEMPOTENCY_KEY} is missing", "Commands are taken with one alone.")
        require_json(request)
        requests = self._app.requests(exposed.topic)
        body = await within(requests.clock, self._limits.body_seconds_max, self._body(request))
        if body is None:
            raise slow()
        callback_url = self._callback(request, exposed)
        if key is None:
            name = RequestName.fresh(principal, exposed.topic.name, requests.fresh_id())
            arrival = _Arrival(request, exposed, requests, principal, name, (body, callback_url))
            return await self._answer(arrival, requests.ticket(name.request_id), await self._stored(arrival))
        name = RequestName.keyed(principal, exposed.topic.name, f"POST /commands/{exposed.spec.name}", key)
        return await self._keyed(_Arrival(request, exposed, requests, principal, name, (body, callback_url)))

    def _callback(self, request: Request, exposed: Exposed) -> str:
        """Where the reply shall be posted; "" for nowhere. Raises Problem (400, 422)."""
        urls = request.headers.getlist(CALLBACK_HEADER)
        if not urls:
            return ""
        callbacks = callbacks_of(self._app, exposed.topic)
        if callbacks is None or len(urls) > 1:
            said = "Give one alone." if callbacks else "Replies to this command are not posted; ask for its status."
            raise Problem(400, "callback", f"{CALLBACK_HEADER} can't be heeded", said)
        try:
            callbacks.require(urls[0])
        except ForbiddenAddress as error:
            raise Problem(422, "callback", f"{CALLBACK_HEADER} can't be called", str(error)) from error
        return urls[0]

    async def _body(self, request: Request) -> bytes:
        return await read_body(request, self._limits.body_bytes_max)

    async def _keyed(self, arrival: _Arrival) -> Response:
        """Take a request whose key may have been used before."""
        request_id = arrival.name.request_id

        async def known() -> Accepted | None:
            return (await arrival.requests.standing(request_id)).accepted

        fingerprint = arrival.fingerprint()
        accepted = await self._repeating.accepted(
            request_id, fingerprint, known, partial(self._stored, arrival, fingerprint)
        )
        # It may have been answered before, to another process: so the ticket is looked up if it is waited for.
        return await self._answer(arrival, arrival.requests.ticket(request_id), accepted)

    async def _stored(self, arrival: _Arrival, fingerprint: bytes = b"") -> Accepted:
        """Store the command; durable when this returns. Raises Problem for what its contract refuses."""
        require_sound(arrival.body)
        accepted = Accepted(
            command=arrival.exposed.spec.name,
            principal=arrival.principal,
            fingerprint=fingerprint,
            accepted_ms=arrival.requests.clock.now_ms(),
            callback_url=arrival.callback_url,
        )
        try:
            command = _read(arrival.exposed.reading, arrival.body)
            name, priority = arrival.name.request_id, arrival.priority
            return await self._app.accept(arrival.exposed.topic, command, name, accepted, priority)
        except ContractError as error:
            raise invalid(error) from error

    def _wait_seconds(self, arrival: _Arrival) -> float:
        prefers = arrival.prefers
        if prefers.wait_seconds is not None:
            return min(prefers.wait_seconds, self._limits.wait_seconds_max)
        waits = arrival.exposed.spec.is_query and not prefers.respond_async
        return self._limits.query_wait_seconds if waits else 0

    async def _answer(self, arrival: _Arrival, ticket: Ticket, accepted: Accepted) -> Response:
        name = arrival.name.text(accepted.accepted_ms)
        url = self._locating.status_url(arrival.request, name)
        seconds = self._wait_seconds(arrival)
        headers = {"Location": url, "Cache-Control": "no-store", **arrival.prefers.applied(seconds)}
        outcome = await unless_gone(arrival.request, self._ending, _outcome(ticket, seconds)) if seconds > 0 else None
        if outcome is None:
            told = {"id": name, "status": "pending", "links": links(url)}
            headers["Retry-After"] = str(RETRY_SECONDS)
            return Response(msgspec.json.encode(told), 202, headers, JSON)
        body = self._statuses.document(arrival.exposed.topic, Standing(accepted, outcome, "", 0), name, url)
        return status_response(body, headers, "", ended=True)


class _Arrival:
    """A command that has come, with all that is known of it."""

    def __init__(
        self,
        request: Request,
        exposed: Exposed,
        requests: Requests,
        principal: str,
        name: RequestName,
        sent: tuple[bytes, str],
    ) -> None:
        self.request, self.exposed, self.requests = request, exposed, requests
        self.principal, self.name = principal, name
        self.body, self.callback_url = sent
        self.priority = _priority(request.headers.getlist(PRIORITY_HEADER), exposed)
        self.prefers: Preferences = read_preferences(request.headers.getlist("prefer"))

    def fingerprint(self) -> bytes:
        """By which it is told from others; the same command with another callback is another request."""
        return sha256(self.body + (f"\n{self.callback_url}".encode() if self.callback_url else b"")).digest()


def _priority(values: Sequence[str], exposed: Exposed) -> str | None:
    """The priority that is asked for; None for the usual one. Raises Problem (400) for one that the topic has not."""
    if not values:
        return None
    known = exposed.topic.priorities_of(exposed.spec)
    if len(values) == 1 and values[0] in known:
        return values[0]
    said = f"Give one of {', '.join(known)}." if known else "This command has no priorities: leave it out."
    raise Problem(400, "priority", f"{PRIORITY_HEADER} can't be heeded", said)


async def _outcome(ticket: Ticket, seconds: float) -> Outcome | None:
    try:
        return await ticket.ended(seconds)
    except RequestTimeout:
        return None
    except PostlineError:
        # The command is stored: whoever sent it must not be told to send it again.
        _log.exception(
            "request %s is stored, and its outcome can't be waited for now",
            ticket.request_id,
            extra=event("http.wait_failed", request=ticket.request_id),
        )
        return None


def _read(reading: Reading, body: bytes) -> Any:
    """The command in a body. Raises DecodeError for what its contract refuses."""
    try:
        return reading.decode(body)
    except Exception as error:
        raise DecodeError(
            f"It can't be read as {reading.name}: {reading_fault(error, body, reading.decode)[0]}.",
            remedy="See its schema in openapi.json.",
        ) from error
