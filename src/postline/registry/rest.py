"""The registry over HTTP, with the REST interface that clients of Confluent's registry use.

Source: Confluent Schema Registry's API reference, as far as its clients and serializers ask for it. Documents that the
type model can't say, as JSON Schemas that refer to others, are kept all the same; only those that it can are judged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeAlias

import msgspec

from postline.contracts.compatibility import Break, Level, judge
from postline.contracts.formats import format_of_type
from postline.errors import ContractError, LogUnavailable, PostlineError, SettingsError
from postline.registry.model import Document, IncompatibleSchema, Reference, Version, meaning_of
from postline.registry.store import LogRegistry

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as missing:
    raise SettingsError("The registry's HTTP needs starlette.", remedy="pip install 'postline[http]'") from missing

__all__ = ["asgi"]

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_DEFAULT_TYPE = "AVRO"
_TYPES = ("JSON", "AVRO", "PROTOBUF")

_Answer: TypeAlias = Callable[["_Rest", Request], Awaitable[Any]]


class _Refused(Exception):
    """An answer that is an error, by the interface's own codes."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def status(self) -> int:
        """HTTP's own code: the first three digits."""
        return self.code if self.code < 1_000 else self.code // 100


class _Posted(msgspec.Struct):
    """A schema as clients post it."""

    schema: str
    schemaType: str = _DEFAULT_TYPE  # noqa: N815 - the interface's name
    references: list[Reference] | None = None
    ruleSet: Any = None  # noqa: N815 - the interface's name


def asgi(registry: LogRegistry) -> Starlette:
    """An ASGI application that serves the registry; whoever runs it keeps the log open."""
    rest = _Rest(registry)
    return Starlette(routes=[Route(path, rest.answer(work), methods=[method]) for method, path, work in _ROUTES])


class _Rest:
    """Answers of one registry."""

    def __init__(self, registry: LogRegistry) -> None:
        self.registry = registry

    def answer(self, work: _Answer) -> Callable[[Request], Awaitable[Response]]:
        """What Starlette calls: the answer as JSON, and errors as the interface has them."""

        @wraps(work)
        async def respond(request: Request) -> Response:
            try:
                return _json(await work(self, request))
            except _Refused as refused:
                return _error(refused.status, refused.code, refused.message)
            except IncompatibleSchema as error:
                said = f"Schema being registered is incompatible with an earlier schema: {error.message}"
                return _error(409, 409, said)
            except LogUnavailable as error:
                return _error(503, 50301, error.message)
            except PostlineError as error:
                return _error(500, 50001, error.message)

        return respond

    async def versions(self, subject: str, *, deleted: bool = False) -> list[Version]:
        """The versions of a subject that there is."""
        if found := await self.registry.versions(subject, deleted=deleted):
            return found
        raise _Refused(40401, f"Subject '{subject}' not found.")

    async def version(self, request: Request) -> Version:
        """The version that a path names by its number or as the latest."""
        subject, wanted = request.path_params["subject"], request.path_params["version"]
        found = await self.versions(subject, deleted=_flag(request, "deleted"))
        if wanted in ("latest", "-1"):
            return found[-1]
        if not wanted.isdigit() or not 0 < int(wanted) < 1 << 31:
            raise _Refused(42202, f"The specified version '{wanted}' is not a valid version id.")
        if (version := next((each for each in found if each.number == int(wanted)), None)) is None:
            raise _Refused(40402, f"Version {wanted} not found.")
        return version

    async def document(self, request: Request) -> tuple[int, Document]:
        """The document of the id in a path."""
        number = int(request.path_params["id"])
        if (found := await self.registry.document(number)) is None:
            raise _Refused(40403, f"Schema {number} not found")
        return number, found


# -- subjects and versions ----------------------------------------------------------------------------


async def _subjects(rest: _Rest, request: Request) -> list[str]:
    prefix = request.query_params.get("subjectPrefix", "")
    found = await rest.registry.subjects(deleted=_flag(request, "deleted"))
    return [subject for subject in found if subject.startswith(prefix)]


async def _numbers(rest: _Rest, request: Request) -> list[int]:
    found = await rest.versions(request.path_params["subject"], deleted=_flag(request, "deleted"))
    return [each.number for each in found]


async def _register(rest: _Rest, request: Request) -> dict[str, Any]:
    subject, document = request.path_params["subject"], await _posted(request)
    number = await rest.registry.register(subject, document)
    version = next(each for each in await rest.registry.versions(subject) if each.id == number)
    return {"id": number, "version": version.number, **_described(document)}


async def _look_up(rest: _Rest, request: Request) -> dict[str, Any]:
    subject, document = request.path_params["subject"], await _posted(request)
    found = await rest.versions(subject, deleted=_flag(request, "deleted"))
    if (version := next((each for each in found if each.document == document), None)) is None:
        raise _Refused(40403, "Schema not found")
    return _of_version(version)


async def _show(rest: _Rest, request: Request) -> dict[str, Any]:
    return _of_version(await rest.version(request))


async def _schema_of_version(rest: _Rest, request: Request) -> Any:
    return msgspec.Raw((await rest.version(request)).document.text.encode())


async def _delete_version(rest: _Rest, request: Request) -> int:
    permanent = _flag(request, "permanent")
    subject, wanted = request.path_params["subject"], request.path_params["version"]
    found = await rest.versions(subject, deleted=permanent)
    version = next((each for each in found if wanted == "latest" or str(each.number) == wanted), None)
    if version is None:
        raise _Refused(40402, f"Version {wanted} not found.")
    await _hide(rest, [found[-1] if wanted == "latest" else version], permanent=permanent)
    return version.number


async def _delete_subject(rest: _Rest, request: Request) -> list[int]:
    permanent = _flag(request, "permanent")
    found = await rest.versions(request.path_params["subject"], deleted=permanent)
    await _hide(rest, found, permanent=permanent)
    return [each.number for each in found]


async def _hide(rest: _Rest, versions: list[Version], *, permanent: bool) -> None:
    if permanent:
        there = {each.number for each in await rest.registry.versions(versions[0].subject)}
        if alive := [each.number for each in versions if each.number in there]:
            subject = versions[0].subject
            raise _Refused(
                40407, f"Subject '{subject}' Version {alive[0]} was not deleted first; delete it before for good."
            )
    for each in versions:
        await rest.registry.delete(each, permanent=permanent)


async def _referring(rest: _Rest, request: Request) -> list[int]:
    named = await rest.version(request)
    return [each.id for each in await _all(rest) if _refers(each.document, named)]


def _refers(document: Document, named: Version) -> bool:
    return any((each.subject, each.version) == (named.subject, named.number) for each in document.references)


async def _all(rest: _Rest) -> list[Version]:
    found = []
    for subject in await rest.registry.subjects():
        found += await rest.registry.versions(subject)
    return found


# -- schemas by id ------------------------------------------------------------------------------------


async def _schema(rest: _Rest, request: Request) -> dict[str, Any]:
    _, document = await rest.document(request)
    if request.query_params.get("format") == "serialized" and document.schema_type == "PROTOBUF":
        from postline.contracts.protobuf import serialized

        document = msgspec.structs.replace(document, text=serialized(document.text))
    return _described(document)


async def _schema_text(rest: _Rest, request: Request) -> Any:
    return msgspec.Raw((await rest.document(request))[1].text.encode())


async def _versions_of_schema(rest: _Rest, request: Request) -> list[dict[str, Any]]:
    number, _ = await rest.document(request)
    return [{"subject": each.subject, "version": each.number} for each in await _all(rest) if each.id == number]


async def _subjects_of_schema(rest: _Rest, request: Request) -> list[str]:
    number, _ = await rest.document(request)
    return sorted({each.subject for each in await _all(rest) if each.id == number})


async def _types(rest: _Rest, request: Request) -> list[str]:
    return list(_TYPES)


# -- compatibility and rules --------------------------------------------------------------------------


async def _check_one(rest: _Rest, request: Request) -> dict[str, Any]:
    document = await _posted(request)
    return await _checked(rest, request, document, [await rest.version(request)])


async def _check_all(rest: _Rest, request: Request) -> dict[str, Any]:
    subject, document = request.path_params["subject"], await _posted(request)
    return await _checked(rest, request, document, await rest.registry.versions(subject))


async def _checked(rest: _Rest, request: Request, document: Document, versions: list[Version]) -> dict[str, Any]:
    level = await rest.registry.level(request.path_params["subject"])
    whole = format_of_type(document.schema_type).whole
    try:
        meanings = {each.number: meaning_of(each.document) for each in versions}
        found = judge(meaning_of(document), meanings, level, whole=whole)
    except ContractError:  # what can't be read is not judged
        found = []
    answer: dict[str, Any] = {"is_compatible": not found}
    if _flag(request, "verbose"):
        answer["messages"] = [f"{each.broken}: {_worded(found_break)}" for each in found for found_break in each.breaks]
    return answer


def _worded(found: Break) -> str:
    return f"{found.path or 'the message'}: {found.said}. {found.remedy}"


async def _config(rest: _Rest, request: Request) -> dict[str, Any]:
    subject = request.path_params.get("subject", "")
    level = await rest.registry.own_level(subject)
    if subject and level is None and not _flag(request, "defaultToGlobal"):
        raise _Refused(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
    return {"compatibilityLevel": (level or await rest.registry.level(subject)).value}


async def _set_config(rest: _Rest, request: Request) -> dict[str, Any]:
    content = await _content(request)
    said = content.get("compatibility") if isinstance(content, dict) else None
    try:
        level = Level(said.upper() if isinstance(said, str) else "")
    except ValueError:
        raise _Refused(42203, f"Invalid compatibility level {said!r:.60}.") from None
    await rest.registry.set_level(request.path_params.get("subject", ""), level)
    return {"compatibility": level.value}


async def _clear_config(rest: _Rest, request: Request) -> dict[str, Any]:
    subject = request.path_params.get("subject", "")
    if (level := await rest.registry.own_level(subject)) is None:
        raise _Refused(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
    await rest.registry.set_level(subject, None)
    return {"compatibilityLevel": level.value}


async def _mode(rest: _Rest, request: Request) -> dict[str, str]:
    return {"mode": "READWRITE"}


async def _contexts(rest: _Rest, request: Request) -> list[str]:
    return ["."]


# -- in and out ---------------------------------------------------------------------------------------


async def _content(request: Request) -> Any:
    try:
        return msgspec.json.decode(await request.body())
    except msgspec.DecodeError as error:
        raise _Refused(42201, f"The body is no JSON: {error}") from error


async def _posted(request: Request) -> Document:
    """The document in a request. What its format's own rules refuse is refused here."""
    try:
        posted = msgspec.json.decode(await request.body(), type=_Posted)
    except msgspec.MsgspecError as error:
        raise _Refused(42201, f"Invalid schema: {error}") from error
    if posted.ruleSet:
        raise _Refused(42201, "This registry keeps no rules beside a schema; leave ruleSet out.")
    kind: Any = posted.schemaType
    if kind not in _TYPES:
        raise _Refused(42201, f"Invalid schema type {kind!r:.60}; there are {', '.join(_TYPES)}.")
    document = Document(kind, _normal(kind, posted.schema), tuple(posted.references or ()))
    if kind != "JSON" and not document.references:
        try:
            meaning_of(document)
        except ContractError as error:
            raise _Refused(42201, f"Invalid schema: {error.message}") from error
    return document


def _normal(kind: str, text: str) -> str:
    """The text without what does not count, so that one schema has one id."""
    if kind == "PROTOBUF":
        return text
    try:
        return msgspec.json.encode(msgspec.json.decode(text)).decode()
    except msgspec.DecodeError as error:
        if kind == "AVRO" and text.isidentifier():
            return f'"{text}"'  # a primitive's bare name, as some clients send it
        raise _Refused(42201, f"Invalid schema: it is no JSON: {error}") from error


def _described(document: Document) -> dict[str, Any]:
    kind = {} if document.schema_type == _DEFAULT_TYPE else {"schemaType": document.schema_type}
    references = {"references": document.references} if document.references else {}
    return {"schema": document.text, **kind, **references}


def _of_version(version: Version) -> dict[str, Any]:
    return {"subject": version.subject, "version": version.number, "id": version.id, **_described(version.document)}


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type=_MEDIA_TYPE)


def _error(status: int, code: int, message: str) -> Response:
    return _json({"error_code": code, "message": message}, status)


_SUBJECT = "/subjects/{subject}"
_VERSION = _SUBJECT + "/versions/{version}"
_ROUTES: tuple[tuple[str, str, _Answer], ...] = (
    ("GET", "/subjects", _subjects),
    ("POST", _SUBJECT, _look_up),
    ("DELETE", _SUBJECT, _delete_subject),
    ("GET", _SUBJECT + "/versions", _numbers),
    ("POST", _SUBJECT + "/versions", _register),
    ("GET", _VERSION, _show),
    ("DELETE", _VERSION, _delete_version),
    ("GET", _VERSION + "/schema", _schema_of_version),
    ("GET", _VERSION + "/referencedby", _referring),
    ("GET", "/schemas/types", _types),
    ("GET", "/schemas/ids/{id:int}", _schema),
    ("GET", "/schemas/ids/{id:int}/schema", _schema_text),
    ("GET", "/schemas/ids/{id:int}/versions", _versions_of_schema),
    ("GET", "/schemas/ids/{id:int}/subjects", _subjects_of_schema),
    ("POST", "/compatibility/subjects/{subject}/versions", _check_all),
    ("POST", "/compatibility/subjects/{subject}/versions/{version}", _check_one),
    ("GET", "/config", _config),
    ("PUT", "/config", _set_config),
    ("DELETE", "/config", _clear_config),
    ("GET", "/config/{subject}", _config),
    ("PUT", "/config/{subject}", _set_config),
    ("DELETE", "/config/{subject}", _clear_config),
    ("GET", "/mode", _mode),
    ("GET", "/mode/{subject}", _mode),
    ("GET", "/contexts", _contexts),
)
