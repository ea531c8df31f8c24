"""Callbacks: the reply to a command, posted to the URL that its client gave with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, Unpack
from urllib.parse import urlsplit

from postline.app import App
from postline.clock import SystemClock
from postline.commands import ReplySubscription
from postline.contracts.cloudevents import CALLBACK
from postline.contracts.commands import CommandTopic
from postline.contracts.replies import BUILT_IN
from postline.errors import ForbiddenAddress
from postline.events import PolicyOptions, Start
from postline.http.addresses import Addresses
from postline.http.calling import Caller
from postline.http.delivering import STANDARD_RETRY, Deliver, Post, Target
from postline.http.exposed import Exposed
from postline.http.hosts import Hosts
from postline.http.outgoing import STRUCTURED, EventWriter
from postline.http.signing import Secret, Secrets, secrets_of
from postline.http.webhooks import closing
from postline.runtime.context import Context
from postline.runtime.intents import DeadLetter

__all__ = ["CALLBACK_HEADER", "Callbacks", "callbacks", "callbacks_of", "describe_callbacks"]

#: The header by which a client of the gateway gives its URL.
CALLBACK_HEADER = "Postline-Callback"
#: Attempts at a time in each process: many, for some may hang.
_CONCURRENCY = 512

#: One's secrets for all, or a function of the URL, for clients with secrets of their own; None refuses the URL.
SecretsOf: TypeAlias = Secrets | Callable[[str], Secrets | None]


class Callbacks:
    """Who posts replies of one command topic; made by `callbacks`."""

    def __init__(self, topic: CommandTopic, caller: Caller, secret: SecretsOf) -> None:
        self.topic, self._caller = topic, caller
        self._secrets_of = secret if callable(secret) else _always(secrets_of(secret))
        self.subscription: ReplySubscription

    def require(self, url: str) -> None:
        """Raise ForbiddenAddress for a URL that no reply would be posted to, as far as it can be told at once."""
        self._caller.addresses.require(url)
        if self._secrets_of(url) is None:
            raise _unknown(url)

    def target_of(self, ctx: Context[Any]) -> Target | None:
        """Where a reply goes; None for one whose client gave no URL."""
        url = ctx.envelope.headers.get(CALLBACK)
        if not url:
            return None
        secrets = self._secrets_of(url)
        if secrets is None:
            raise _unknown(url)
        return Target(url, secrets_of(secrets))

    def __call__(self, app: App, consuming: bool) -> AbstractAsyncContextManager[None]:
        """As a companion of the app it closes its connections."""
        context: AbstractAsyncContextManager[None] = closing(self._caller)(app, consuming)
        return context


def callbacks(
    app: App,
    topic: CommandTopic,
    *,
    secret: SecretsOf,
    name: str = "",
    start: Start = "earliest",
    addresses: Addresses | None = None,
    post: Post | None = None,
    **options: Unpack[PolicyOptions],
) -> Callbacks:
    """Post the replies to this service's commands to the URLs that came with them.

    The app's gateway takes such a URL by the header `Postline-Callback`, and refuses those that may not be called. A
    reply is posted at least once, whatever its outcome, as a signed CloudEvent whose `requestid` and `outcome` tell
    which and how; see `notify` for retries and dead letters. Replies have no order among them, and a host that hangs
    holds up no other. They are posted by processes that run the app's subscriptions (`postline run`). `secret` may be
    a function of the URL, for clients that have their own.
    """
    caller = Caller(addresses or Addresses())
    made = Callbacks(topic, caller, secret)
    given: PolicyOptions = {"retry": STANDARD_RETRY, "order": "none", "concurrency": _CONCURRENCY}
    given.update(options)
    subscription = made.subscription = app.replies(
        name or f"{app.name}.{topic.name}.callbacks", topic, start=start, **given
    )
    kinds = [*sorted(topic.replies.classes, key=topic.replies.type_name_of), *(kind.cls for kind in BUILT_IN.values())]
    hosts = Hosts(post or caller.post, SystemClock())
    deliver = Deliver(hosts.post, EventWriter(topic.replies, kinds, reveal=True), made.target_of, _give_up)
    for kind in kinds:
        subscription.on(kind)(deliver)
    app.companions.append(made)
    return made


def callbacks_of(app: App, topic: CommandTopic) -> Callbacks | None:
    """Who posts the replies of a topic, if the app has it done."""
    for each in app.companions:
        if isinstance(each, Callbacks) and each.topic is topic:
            return each
    return None


def describe_callbacks(document: dict[str, Any], app: App, commands: Mapping[str, Exposed]) -> None:
    """Say in a gateway's OpenAPI document which commands take a callback, and what is posted there."""
    for name, exposed in commands.items():
        path = document["paths"].get(f"/commands/{name}")
        if path is None or callbacks_of(app, exposed.topic) is None:
            continue
        said = "Where the outcome is posted: one signed CloudEvent, by Standard Webhooks."
        uri = {"type": "string", "format": "uri"}
        path["post"]["parameters"].append({"name": CALLBACK_HEADER, "in": "header", "schema": uri, "description": said})
        taken = {"description": "It was taken; anything else is tried again."}
        body = {"required": True, "content": {STRUCTURED: {"schema": {"type": "object"}}}}
        posted = {"post": {"requestBody": body, "responses": {"2XX": taken}}}
        path["post"]["callbacks"] = {"outcome": {f"{{$request.header.{CALLBACK_HEADER}}}": posted}}


def _unknown(url: str) -> ForbiddenAddress:
    """The refusal of a URL that nobody has a secret for."""
    return ForbiddenAddress(
        f"No client is known whose callbacks go to {urlsplit(url).netloc:.200}.", remedy="Register it with the service."
    )


async def _give_up(ctx: Context[Any], place: str) -> None:
    """One reply's client is gone; the others' are not."""
    raise DeadLetter(f"{place} answered 410: nobody wants the reply any more")


def _always(secrets: tuple[Secret, ...]) -> Callable[[str], Secrets | None]:
    return lambda _: secrets
