"""The ambassador: a synchronous HTTP service behind commands, by configuration.

A command becomes a request, the response a reply or a refusal. While the service is away commands wait, in their order
and without using up their attempts, instead of failing; each is given its idempotency key, since a request whose answer
was lost is made again. Needs the extra `http`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

import msgspec

from postline.app import App
from postline.clock import Clock
from postline.commands import Serving
from postline.contracts import Kind
from postline.contracts.cloudevents import EXPIRY, TRACE, time_of
from postline.contracts.commands import CommandTopic
from postline.errors import ContractError, DecodeError, PostlineError, Refused, SettingsError
from postline.events import PolicyOptions
from postline.runtime.breaker import Breaker
from postline.runtime.context import Context
from postline.runtime.intents import RetryLater
from postline.runtime.retry import Retry

if TYPE_CHECKING:
    import httpx

__all__ = ["Backend", "BackendFault", "BackendUnavailable", "Call", "ambassador"]

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: Statuses that say nothing of the command itself: the same request may succeed later.
_PASSING = frozenset({408, 425, 429, *range(500, 600)})
_SAID_CHARACTERS_MAX = 300


class BackendFault(PostlineError):
    """The service answered a command with what its configuration doesn't know; it is not tried again."""


class BackendUnavailable(PostlineError):
    """The service did not answer, or answered that it can't now; a failed attempt, as long as others get through."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The HTTP service: where it is, and how hard it may be used by each process.

    `headers` are sent with every request: text, or a function that gives it, such as one that reads a secret from a
    file. None of their values is ever logged. Each call has a connection of its own: on one that is used again, what a
    service sends after its answer would be taken for the next command's. `keep_alive` is for services that are known to
    answer once, and spares the handshakes. `transport` is httpx's, for tests.
    """

    url: str
    headers: Mapping[str, str | Callable[[], str]] = field(default_factory=dict, repr=False)
    concurrency: int = 8
    timeout_seconds: float = 30.0
    breaker: Breaker = field(default_factory=lambda: Breaker(failures=3))
    #: The header that carries the command's idempotency key.
    idempotency_header: str = "Idempotency-Key"
    keep_alive: bool = False
    transport: Any = None


@dataclass(frozen=True)
class Call:
    """How one command becomes a request, and the response its outcome.

    `path` names fields of the command in braces. Those that are not in the path are the JSON body, or the query of GET,
    HEAD and DELETE. A status of `refusals` becomes that refusal, any other below 300 the command's reply; both are read
    from the response's JSON. `reply`, a function of the command and the response's content (None where it is no JSON),
    gives the reply instead.
    """

    command: type
    method: str
    path: str
    refusals: Mapping[int, type] = field(default_factory=dict)
    reply: Callable[[Any, Any], Any] | None = None


def ambassador(
    name: str,
    topic: CommandTopic,
    backend: Backend,
    calls: Sequence[Call],
    *,
    takes_over: str = "",
    **options: Unpack[PolicyOptions],
) -> App:
    """A service of that name that serves the topic by calling the backend. Raises ContractError for a wrong call.

    The options are `postline.events.Policy`'s. A service of your own replaces it by `takes_over=name`.
    """
    retry = options.get("retry") or Retry()
    if problems := backend.breaker.problems(retry):
        raise SettingsError(f"Ambassador {name!r}: {' '.join(problems)}")
    options["retry"] = replace(retry, never=(*retry.never, BackendFault))

    @asynccontextmanager
    async def lifespan(running: App) -> AsyncIterator[_Caller]:
        import httpx

        async with httpx.AsyncClient(
            base_url=backend.url,
            timeout=backend.timeout_seconds,
            transport=backend.transport,
            trust_env=False,
            limits=httpx.Limits(
                max_connections=backend.concurrency,
                max_keepalive_connections=backend.concurrency if backend.keep_alive else 0,
            ),
            headers={} if backend.keep_alive else {"Connection": "close"},
        ) as client:
            yield _Caller(backend, client, running.clock)

    owned = topic.owner == name
    app = App(name, owns=[topic] if owned else [], publishes_to=[] if owned else [topic], lifespan=lifespan)
    served = app.serve(topic, takes_over=takes_over, **options)
    breaker = replace(backend.breaker, errors=(BackendUnavailable,))  # one for all calls
    for call in calls:
        _register(served, topic, call, breaker)
    return app


def _register(served: Serving, topic: CommandTopic, call: Call, breaker: Breaker) -> None:
    spec = topic.spec_of(call.command)
    problems = [f"{cls.__qualname__} is no refusal of it" for cls in call.refusals.values() if cls not in spec.refusals]
    known = set(getattr(call.command, "__annotations__", {}))
    problems += [f"it has no field {name!r}" for name in _FIELD.findall(call.path) if known and name not in known]
    if call.reply is None and len(spec.replies) > 1:
        problems.append("it has several replies, so that reply= must choose")
    if problems:
        raise ContractError(
            f"The call for {spec.name!r} ({call.method} {call.path}): {'; '.join(problems)}.", remedy="Mend the call."
        )
    read = {cls: Kind(cls).read for cls in (*spec.replies, *call.refusals.values())}
    default = spec.replies[0] if spec.replies else None

    async def handle(command: Any, ctx: Context[_Caller]) -> Any:
        status, content = await ctx.resources.answer(call, command, ctx)
        if status in call.refusals:
            raise Refused(_read(read[call.refusals[status]], content, call, status))
        if call.reply is not None:
            return call.reply(command, _json(content))
        return None if default is None else _read(read[default], content, call, status)

    handle.__qualname__ = f"{call.method} {call.path}"
    served.on(call.command, breaker=breaker)(handle)


def _read(read: Callable[[bytes], Any], content: bytes, call: Call, status: int) -> Any:
    try:
        return read(content)
    except DecodeError as error:
        raise BackendFault(
            f"{call.method} {call.path} answered {status} with no reply: {error.message[:_SAID_CHARACTERS_MAX]}",
            remedy="Give `reply=` a function that reads it, or mend the backend; then redrive.",
        ) from error


def _encoded_name(cls: type, name: str) -> str:
    """What a field is called where values of the class are written."""
    if not issubclass(cls, msgspec.Struct):
        return name
    return next((each.encode_name for each in msgspec.structs.fields(cls) if each.name == name), name)


def _segment(call: Call, name: str, value: Any) -> str:
    """A field's text as one step of the path. Raises BackendFault for what would lead elsewhere."""
    text = "" if value is None else str(value)
    if text in ("", ".", ".."):
        raise BackendFault(
            f"{call.method} {call.path} can't be asked with {name}={value!r}, which is no step of a path.",
            remedy="Have the contract refuse such a value.",
        )
    return quote(text, safe="")


def _json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class _Caller:
    """Makes requests of one process to the backend."""

    def __init__(self, backend: Backend, client: httpx.AsyncClient, clock: Clock) -> None:
        self._backend, self._client, self._clock = backend, client, clock
        self._places = asyncio.Semaphore(backend.concurrency)

    async def answer(self, call: Call, command: Any, ctx: Context[_Caller]) -> tuple[int, bytes]:
        """Status and content of the answer. Raises BackendUnavailable, BackendFault."""
        async with self._places:
            self._require_valid(ctx)
            return await self._attempt(call, command, ctx)

    def _require_valid(self, ctx: Context[_Caller]) -> None:
        expiry = ctx.envelope.headers.get(EXPIRY)
        if expiry is not None and (at := time_of(expiry)) is not None and self._clock.now_ms() >= at:
            raise RetryLater(0, "the command has expired")  # before the next attempt it is answered so

    async def _attempt(self, call: Call, command: Any, ctx: Context[_Caller]) -> tuple[int, bytes]:
        import httpx

        request = self._request(call, command, ctx)
        try:
            # httpx's own limit is of each step, and a backend that sends a byte now and then would never reach it.
            async with asyncio.timeout(self._backend.timeout_seconds):
                response = await self._client.send(request, follow_redirects=False)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._unavailable(call, type(error).__name__) from error
        if response.status_code in _PASSING and response.status_code not in call.refusals:
            raise self._unavailable(call, str(response.status_code))
        if response.status_code < 300 or response.status_code in call.refusals:
            return response.status_code, response.content
        raise BackendFault(
            f"{call.method} {call.path} answered {response.status_code}: {response.text[:_SAID_CHARACTERS_MAX]}",
            remedy="Map the status to a refusal if it is one; else mend the request or the backend, and redrive.",
        )

    def _unavailable(self, call: Call, why: str) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self._client.base_url.host} does not answer ({call.method} {call.path}: {why}).",
            remedy="Look at the backend.",
        )

    def _request(self, call: Call, command: Any, ctx: Context[_Caller]) -> httpx.Request:
        fields = msgspec.to_builtins(command, str_keys=True)
        named = {_encoded_name(call.command, name) for name in _FIELD.findall(call.path)}
        path = _FIELD.sub(lambda found: _segment(call, found[1], getattr(command, found[1], None)), call.path)
        rest = {name: value for name, value in fields.items() if name not in named}
        headers = {name: value() if callable(value) else value for name, value in self._backend.headers.items()}
        headers[self._backend.idempotency_header] = ctx.idempotency_key
        headers |= {
            name: told
            for name in TRACE
            if (told := ctx.envelope.headers.get(name, "")).isascii() and told.isprintable() and told
        }
        in_query = call.method.upper() in ("GET", "HEAD", "DELETE")
        given = (
            {"params": {name: value for name, value in rest.items() if value is not None}}
            if in_query
            else {"json": rest}
        )
        return self._client.build_request(call.method, path, headers=headers, **given)  # type: ignore[arg-type]
