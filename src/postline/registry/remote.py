"""`RemoteRegistry`: another registry, which speaks the REST interface of Confluent's.

Ids and documents never change, so that what was seen once is not asked for again: a registry that is down keeps nobody
from going on with schemas that were met before.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec

from postline.clock import Clock
from postline.contracts.compatibility import Level
from postline.contracts.frame import guid_behind
from postline.contracts.schema import Schema
from postline.errors import ContractError, LogUnavailable, SettingsError
from postline.message import UNREADABLE
from postline.registry.model import Document, Reference, Version
from postline.registry.referencing import readable

try:
    import httpx
except ImportError as missing:
    raise SettingsError("A registry over HTTP needs httpx.", remedy="pip install 'postline[http]'") from missing

__all__ = ["RemoteRegistry"]

AnswerT = TypeVar("AnswerT")

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_TIMEOUT_SECONDS = 10.0
_TRIES = 3
_AGAIN_SECONDS = 0.2
_NOT_FOUND = 404
_CONFLICT = 409
#: Answers of a registry that is starting, or of what stands before it.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class _Refusal(msgspec.Struct):
    """An error, by the interface's own codes: HTTP's, or those and two digits."""

    error_code: int


class _Shown(msgspec.Struct):
    """A schema as the registry shows it."""

    schema: str
    schemaType: str = "AVRO"  # noqa: N815 - the interface's name
    references: list[Reference] | None = None
    id: int = 0
    version: int = 0


class _Registered(msgspec.Struct):
    id: int


class _Config(msgspec.Struct):
    compatibilityLevel: Level  # noqa: N815 - the interface's name


class RemoteRegistry:
    """Schemas in a registry at an `http(s)://` URL. Event loop only.

    The URL may carry a user and a password, `https://user:password@host`, or a token alone, `https://:token@host`.
    `transport` is for tests. Raises LogUnavailable where it does not answer, ContractError where it refuses.
    """

    def __init__(self, url: str, clock: Clock, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        #: Without what is secret.
        self.address = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._clock = clock
        self._client = httpx.AsyncClient(
            base_url=self.address,
            auth=_auth(unquote(parts.username or ""), unquote(parts.password or "")),
            timeout=_TIMEOUT_SECONDS,
            headers={"accept": _MEDIA_TYPE, "content-type": _MEDIA_TYPE},
            transport=transport,
            trust_env=False,
        )
        #: By id or GUID, which never change. No id is looked up for a GUID: a registry may have several of them, one
        #: in each context.
        self._documents: dict[int, Document] = {}
        self._schemas: dict[int, Schema | None] = {}

    async def close(self) -> None:
        """Let go of its connections."""
        await self._client.aclose()

    async def register(self, subject: str, document: Document, *, agreed: frozenset[int] = frozenset()) -> int:
        """See `Registry`; the registry judges by its own rules, and knows of no agreed breaks."""
        del agreed
        answer = await self._ask("POST", f"/subjects/{_escaped(subject)}/versions", _body(document))
        number = self._decoded(answer, _Registered).id
        self._documents[number] = document
        return number

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """See `Registry`; those whose documents can't be read are left out.

        A refusal, or what is no registry's answer, is LogUnavailable here: somebody's login page, or a right taken away
        for a while. Records whose ids are not known yet wait for it, and with them nobody else.
        """
        for number in ids:
            if number not in self._schemas:
                try:
                    await self._learn(number)
                except ContractError as error:
                    raise LogUnavailable(error.message, remedy=f"It is asked again. {error.remedy}") from error
        return {number: found for number in ids if (found := self._schemas.get(number)) is not None}

    async def _learn(self, number: int) -> None:
        if (document := await self._document(number)) is not None:
            self._schemas[number] = readable(document, await self._referenced(document))

    async def versions(self, subject: str) -> list[Version]:
        """See `Registry`."""
        numbers = await self._ask("GET", f"/subjects/{_escaped(subject)}/versions", missing=b"[]")
        found = [await self._version(subject, number) for number in self._decoded(numbers, list[int])]
        return [version for version in found if version is not None]  # those that were not deleted meanwhile

    async def subjects(self) -> list[str]:
        """See `Registry`."""
        return self._decoded(await self._ask("GET", "/subjects"), list[str])

    async def level(self, subject: str) -> Level:
        """See `Registry`."""
        answer = await self._ask("GET", f"/config/{_escaped(subject)}", missing=b"")
        answer = answer or await self._ask("GET", "/config")
        return self._decoded(answer, _Config).compatibilityLevel

    async def set_level(self, subject: str, level: Level) -> None:
        """See `Registry`."""
        body = msgspec.json.encode({"compatibility": level.value})
        await self._ask("PUT", f"/config/{_escaped(subject)}" if subject else "/config", body)

    async def _document(self, number: int) -> Document | None:
        if number not in self._documents and (answer := await self._ask("GET", _path(number), missing=b"")):
            self._documents[number] = _document(self._decoded(answer, _Shown))
        return self._documents.get(number)

    async def _version(self, subject: str, number: int, *, deleted: bool = False) -> Version | None:
        path = f"/subjects/{_escaped(subject)}/versions/{number}{'?deleted=true' if deleted else ''}"
        if not (answer := await self._ask("GET", path, missing=b"")):
            return None
        shown = self._decoded(answer, _Shown)
        self._documents[shown.id] = document = _document(shown)
        return Version(subject, number, shown.id, document)

    async def _referenced(self, document: Document) -> dict[str, Document]:
        found: dict[str, Document] = {}
        waiting = list(document.references)
        while waiting:
            reference = waiting.pop()
            if reference.name in found:
                continue
            if (other := await self._version(reference.subject, reference.version, deleted=True)) is not None:
                found[reference.name] = other.document
                waiting += other.document.references
        return found

    def _decoded(self, answer: bytes, kind: type[AnswerT]) -> AnswerT:
        try:
            return msgspec.json.decode(answer, type=kind)
        except UNREADABLE as error:
            raise ContractError(
                f"What answers at {self.address} is no schema registry: {error}.",
                remedy="See that registry= or POSTLINE_REGISTRY names one, with the path that it is under.",
            ) from error

    async def _ask(self, method: str, path: str, body: bytes | None = None, missing: bytes | None = None) -> bytes:
        """The answer's body; `missing` stands for one that there is none. Asks again where that may help."""
        said = ""
        for attempt in range(_TRIES):
            if attempt:
                await self._clock.sleep(_AGAIN_SECONDS * 2**attempt)
            try:
                response = await self._client.request(method, path, content=body)
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {error}"
                continue
            if response.is_success:
                return response.content
            said = _said(response)
            if missing is not None and _is_missing(response):
                return missing
            if response.status_code not in _PASSING:
                raise ContractError(
                    f"The registry {self.address} refused {method} {path}: {said}.",
                    remedy=_remedy(response.status_code),
                )
        raise LogUnavailable(
            f"The registry {self.address} does not answer ({said}).",
            remedy="It is asked again; see that it runs, and that registry= or POSTLINE_REGISTRY names it.",
        )


def _auth(user: str, password: str) -> httpx.Auth | None:
    if user:
        return httpx.BasicAuth(user, password)
    return _Token(password) if password else None


class _Token(httpx.Auth):
    """Sends a token with each request."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See httpx."""
        request.headers["authorization"] = self._header
        yield request


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "Give the URL a user and a password that may do it, https://user:password@host, or a token, https://:token@host."
    if status == _CONFLICT:
        return "Make the change so that nobody breaks, or change the subject's rule there."
    return "Mend what it says."


def _said(response: httpx.Response) -> str:
    try:
        return str(msgspec.json.decode(response.content, type=dict[str, Any])["message"])
    except (*UNREADABLE, KeyError):
        return f"HTTP {response.status_code}"


def _is_missing(response: httpx.Response) -> bool:
    """Whether the registry itself says that there is none: what stands before it may know nothing of what is there."""
    if response.status_code != _NOT_FOUND:
        return False
    try:
        code = msgspec.json.decode(response.content, type=_Refusal).error_code
    except UNREADABLE:
        return False
    return str(code).startswith(str(_NOT_FOUND))


def _path(number: int) -> str:
    guid = guid_behind(number)
    return f"/schemas/ids/{number}" if guid is None else f"/schemas/guids/{guid}"


def _escaped(subject: str) -> str:
    return quote(subject, safe="")


def _document(shown: _Shown) -> Document:
    return Document(shown.schemaType, shown.schema, tuple(shown.references or ()))  # type: ignore[arg-type]


def _body(document: Document) -> bytes:
    references = [msgspec.to_builtins(each) for each in document.references]
    return msgspec.json.encode({"schema": document.text, "schemaType": document.schema_type, "references": references})
