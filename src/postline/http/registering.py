"""`/webhooks`: clients make, see, change and delete webhooks of their own."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from postline.app import App
from postline.errors import ContractError, ForbiddenAddress, SettingsError, UnknownSubscription
from postline.http.bodies import read_body, require_json, require_sound
from postline.http.endpoints import Endpoints, WebhookEndpoint
from postline.http.idempotency import IDEMPOTENCY_KEY, read_key
from postline.http.limits import Limits
from postline.http.patience import within
from postline.http.problems import Problem
from postline.http.signing import Secret
from postline.http.topic_reader import read_rule
from postline.ids import derived_id, random_bytes
from postline.log.port import Capability
from postline.monitor import Monitor

__all__ = ["Registering"]

_JSON = "application/json"
_ENDPOINTS_MAX = 100
_BODY_BYTES_MAX = 64 << 10
_SECRETS_MAX = 2


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    topic: str
    filter: dict[str, Any] | None = None
    types: list[str] = []
    secret: str = ""


class Registering:
    """Keeps endpoints for clients, who see their own alone. Event loop only."""

    def __init__(self, app: App, endpoints: Endpoints, limits: Limits) -> None:
        self._app, self._endpoints, self._limits = app, endpoints, limits
        self._making = asyncio.Lock()

    async def post(self, request: Request, principal: str) -> Response:
        """Make an endpoint: 201 once it is stored, with its secret. Raises Problem.

        It is sent what is published from now on. Repeated with the same Idempotency-Key it gives the first answer.
        """
        if Capability.CREATES_TOPICS not in self._app.log.capabilities:  # each webhook has topics of its own
            why = "This service may not make topics, so that none could be served (create_topics=true allows it)."
            raise Problem(501, "no-topics", "No webhook can be made", why)
        key = read_key(request.headers.getlist(IDEMPOTENCY_KEY))
        asked = await self._asked(request)
        self._require_sound(asked)
        unique = random_bytes(16).hex() if key is None else derived_id("webhook", principal, key)
        async with self._making:  # of two that come with one key at once, the second gets the first one's answer
            found = await self._made(unique, asked, principal)
        told = {**_shown(found), "secret": found.secrets[0]}
        return _answer(told, 201, {"Location": f"{request.url.path.rstrip('/')}/{found.id}"})

    async def _made(self, unique: str, asked: _Asked, principal: str) -> WebhookEndpoint:
        await self._endpoints.catch_up()
        found = self._endpoints.known.get(unique)
        if unique in self._endpoints.deleted:
            raise Problem(410, "deleted", "Gone", f"The webhook of this {IDEMPOTENCY_KEY} was deleted; use a new key.")
        if found is None:
            if len(self._of(principal)) >= _ENDPOINTS_MAX:
                raise Problem(422, "too-many", "Too many webhooks", f"At most {_ENDPOINTS_MAX} of one client's.")
            made = WebhookEndpoint(
                id=unique,
                url=asked.url,
                topic=asked.topic,
                secrets=[asked.secret or Secret.fresh().text()],
                principal=principal,
                created_ms=self._app.clock.now_ms(),
                filter=_text(asked),
                types=asked.types,
                made=random_bytes(8).hex(),
            )
            found = await self._endpoints.make(made)
        if not _is_same(found, asked):
            raise Problem(422, "key-reused", f"The {IDEMPOTENCY_KEY} was used for another webhook", "Use a new key.")
        return found

    async def _asked(self, request: Request) -> _Asked:
        require_json(request)
        body = await within(self._app.clock, self._limits.body_seconds_max, read_body(request, _BODY_BYTES_MAX))
        if body is None:
            raise Problem(408, "slow", "Request Timeout", "The body did not come in time.")
        require_sound(body)
        try:
            return msgspec.json.decode(body, type=_Asked)
        except msgspec.MsgspecError as error:
            raise Problem(422, "invalid", "The webhook can't be made", str(error)) from error

    def _require_sound(self, asked: _Asked) -> None:
        reader = self._endpoints.readers.get(asked.topic)
        if reader is None:
            raise Problem(422, "unknown-topic", "The webhook can't be made", "There is no such topic for you.")
        try:
            self._endpoints.addresses.require(asked.url)
            reader.chosen(asked.types, read_rule(_text(asked)))
            if asked.secret:
                Secret.read(asked.secret)
        except (ForbiddenAddress, ContractError, SettingsError) as error:
            raise Problem(422, "invalid", "The webhook can't be made", str(error)) from error

    def _of(self, principal: str) -> list[WebhookEndpoint]:
        return [each for each in self._endpoints.known.values() if each.principal == principal]

    async def _found(self, request: Request, principal: str) -> WebhookEndpoint:
        await self._endpoints.catch_up()
        found = self._endpoints.known.get(request.path_params["id"])
        if found is None or found.principal != principal:  # another's is not told from one that is not there
            raise Problem(404, "unknown-webhook", "Not Found", "There is no such webhook of yours.")
        return found

    async def list(self, request: Request, principal: str) -> Response:
        """All of the client's endpoints."""
        await self._endpoints.catch_up()
        return _answer({"webhooks": [_shown(each) for each in self._of(principal)]})

    async def get(self, request: Request, principal: str) -> Response:
        """One endpoint, and how far it is: what waits, and what was given up. Raises Problem (404)."""
        found = await self._found(request, principal)
        told = _shown(found)
        name = self._app.full_name(self._endpoints.subscription_name(found))
        try:
            view = await Monitor(self._app.log, self._app.clock).subscription(name)
            told |= {"pending": view.lag_records + view.held, "dead_letters": view.dead_letters}
        except UnknownSubscription:  # no process has begun it yet
            pass
        return _answer(told)

    async def delete(self, request: Request, principal: str) -> Response:
        """Delete an endpoint, with what waits for it. Raises Problem (404)."""
        await self._endpoints.delete((await self._found(request, principal)).id)
        return Response(status_code=204)

    async def enable(self, request: Request, principal: str) -> Response:
        """Go on with an endpoint that was disabled, from where it was. Raises Problem (404)."""
        found = msgspec.structs.replace(await self._found(request, principal), disabled="")
        await self._endpoints.put(found)
        return _answer(_shown(found))

    async def rotate(self, request: Request, principal: str) -> Response:
        """Give an endpoint a new secret; the one before signs, too, until the next. Raises Problem (404)."""
        found = await self._found(request, principal)
        secrets = [Secret.fresh().text(), *found.secrets][:_SECRETS_MAX]
        await self._endpoints.put(msgspec.structs.replace(found, secrets=secrets))
        return _answer({"id": found.id, "secret": secrets[0]})


def _text(asked: _Asked) -> str:
    return "" if asked.filter is None else msgspec.json.encode(asked.filter).decode()


def _shown(endpoint: WebhookEndpoint) -> dict[str, Any]:
    status: Literal["enabled", "disabled"] = "disabled" if endpoint.disabled else "enabled"
    told: dict[str, Any] = {"id": endpoint.id, "url": endpoint.url, "topic": endpoint.topic, "status": status}
    optional = {"reason": endpoint.disabled, "types": endpoint.types}
    told |= {name: value for name, value in optional.items() if value}
    return told | ({"filter": msgspec.Raw(endpoint.filter.encode())} if endpoint.filter else {})


def _answer(told: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(told), status, {"Cache-Control": "no-store", **(headers or {})}, _JSON)


def _is_same(found: WebhookEndpoint, asked: _Asked) -> bool:
    """Whether an endpoint is what is asked for; of a secret that was not given any may have been made."""
    if asked.secret and asked.secret not in found.secrets:
        return False
    return (found.url, found.topic, found.filter, found.types) == (asked.url, asked.topic, _text(asked), asked.types)
