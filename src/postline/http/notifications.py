"""`notifications`: an ASGI application by which others follow topics, as event streams and by webhooks of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from postline.app import App
from postline.contracts import Topic
from postline.errors import SettingsError

try:
    from postline.http.addresses import Addresses
    from postline.http.callers import Authenticate, Callers
    from postline.http.delivering import Post
    from postline.http.doors import Endpoint, Served
    from postline.http.endpoints import Endpoints
    from postline.http.limits import Limits
    from postline.http.openapi_following import following_document
    from postline.http.registering import Registering
    from postline.http.streams import Streams
except ImportError as missing:
    raise SettingsError("Notifications need starlette.", remedy="pip install 'postline[http]'") from missing

__all__ = ["Notifications", "Webhooks", "notifications"]


def notifications(
    app: App,
    *,
    streams: Sequence[Topic] = (),
    webhooks: Webhooks | Sequence[Topic] = (),
    authenticate: Authenticate | None = None,
    challenge: str = "Bearer",
    reveal: bool = False,
    limits: Limits | None = None,
) -> Notifications:
    """What answers `GET /topics/{name}/events` for the topics in `streams`, and `/webhooks` for those in `webhooks`.

    A webhook that a client makes is a durable subscription of the service, in all processes that run its subscriptions:
    declare this before the app starts, in each of them. It is made in the topic `<service>.webhooks`.
    `authenticate` names who asks, or None to refuse, as for `gateway`; without it only this machine is served.
    Sensitive fields are masked unless `reveal`. Raises SettingsError.
    """
    limits = limits or Limits()
    ending = asyncio.Event()
    followed = Streams(app, streams, limits, ending, reveal=reveal)
    routes: list[Endpoint] = [("/topics/{name}/events", "GET", followed.events)]
    made = webhooks if isinstance(webhooks, Webhooks) else Webhooks(topics=webhooks)
    _require_known(app, (*streams, *made.topics))
    if made.topics:
        kept = Endpoints(app, made.topics, addresses=made.addresses or Addresses(), post=made.post, reveal=reveal)
        registering = Registering(app, kept, limits)
        routes += [
            ("/webhooks", "POST", registering.post),
            ("/webhooks", "GET", registering.list),
            ("/webhooks/{id}", "GET", registering.get),
            ("/webhooks/{id}", "DELETE", registering.delete),
            ("/webhooks/{id}/enable", "POST", registering.enable),
            ("/webhooks/{id}/secret", "POST", registering.rotate),
        ]
    asked = challenge if authenticate else ""
    describe = partial(following_document, app.name, followed.topics, made.topics, challenge=asked)
    return Notifications(app, routes, Callers(authenticate, challenge, limits.rate), ending, describe)


def _require_known(app: App, topics: Sequence[Topic]) -> None:
    known = {*app.owns, *app.publishes_to, *(each.topic for each in app.subscriptions.values())}
    if unknown := [topic.name for topic in topics if topic not in known]:
        raise SettingsError(
            f"App {app.name!r} does not know topic {unknown[0]!r}, which others shall follow.",
            remedy="List it in owns=[…] or publishes_to=[…] of the app.",
        )


@dataclass(frozen=True, kw_only=True)
class Webhooks:
    """The topics that clients may have posted to them, and which addresses may be called for that.

    `post` stands in for the network in tests.
    """

    topics: Sequence[Topic]
    addresses: Addresses | None = None
    post: Post | None = None


class Notifications(Served):
    """The application that others follow topics by, served alone or mounted beside a gateway; by `notifications`."""

    def __init__(
        self,
        app: App,
        endpoints: list[Endpoint],
        callers: Callers,
        ending: asyncio.Event,
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        self._make_document = describe
        super().__init__(app, [*endpoints, ("/openapi.json", "GET", self._describe)], callers, ending)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document of what can be followed. Raises ContractError for a contract that can't be said."""
        return self._make_document()
