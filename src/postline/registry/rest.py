"""The registry over HTTP, with the REST interface that clients of Confluent's registry use.

Source: Confluent Schema Registry's API reference, as far as its clients and serializers ask for it. Documents that the
type model can't say, as JSON Schemas that refer to documents elsewhere, are kept all the same; only those that it can
are judged, which the verbose answer on compatibility says.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, unquote
from uuid import UUID

import msgspec

from postline.contracts.compatibility import Break, Level
from postline.errors import ContractError, LogUnavailable, PostlineError, SettingsError
from postline.message import UNREADABLE
from postline.registry.model import Document, IncompatibleSchema, Version, guid_of
from postline.registry.referencing import why_unread
from postline.registry.rest_documents import TYPES, as_posted, checked, described, posted, same_as
from postline.registry.store import LogRegistry

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as missing:
    raise SettingsError("The registry's HTTP needs starlette.", remedy="pip install 'postline[http]'") from missing

__all__ = ["asgi"]

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_LATEST = ("latest", "-1")
_VERSION_MAX = (1 << 31) - 1

_Answer: TypeAlias = Callable[["_Rest", Request], Awaitable[Any]]
_Item = TypeVar("_Item")


class _Refused(Exception):
    """An answer that is an error, by the interface's own codes."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @property
    def status(self) -> int:
        """HTTP's own code: the first three digits."""
        return self.code if self.code < 1_000 else self.code // 100


def asgi(registry: LogRegistry) -> Starlette:
    """An ASGI application that serves the registry; whoever runs it keeps the log open."""
    rest = _Rest(registry)
    return Starlette(
        routes=[Route(path, rest.answer(work), methods=[method]) for method, path, work in _ROUTES],
        middleware=[Middleware(_Escaped)],
        exception_handlers={HTTPException: _no_route},
    )


class _Escaped:
    """Leaves what is escaped in paths escaped: names of subjects may have a slash."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if raw := scope.get("raw_path"):
            scope = {**scope, "path": raw.decode("ascii", "replace")}
        elif "path" in scope:
            scope = {**scope, "path": quote(scope["path"])}
        await self._app(scope, receive, send)


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = f"There is no {request.method} {request.url.path:.200} here."
    return _error(status, status, said)


class _Rest:
    """Answers of one registry."""

    def __init__(self, registry: LogRegistry) -> None:
        self.registry = registry

    def answer(self, work: _Answer) -> Callable[[Request], Awaitable[Response]]:
        """What Starlette calls: the answer as JSON, and errors as the interface has them."""

        @wraps(work)
        async def respond(request: Request) -> Response:
            try:
                _require_json(request)
                found = await work(self, request)
                return found if isinstance(found, Response) else _json(found)
            except _Refused as refused:
                return _error(refused.status, refused.code, refused.message)
            except IncompatibleSchema as error:
                said = f"Schema being registered is incompatible with an earlier schema: {error.message}"
                return _error(409, 409, said)
            except LogUnavailable as error:
                return _error(503, 50301, error.message)
            except ContractError as error:
                return _error(422, 42201, f"Invalid schema: {error.message} {error.remedy}".strip())
            except PostlineError as error:
                return _error(500, 50001, error.message)

        return respond

    async def versions(self, subject: str, *, deleted: bool = False) -> list[Version]:
        """The versions of a subject that there is."""
        if found := await self.registry.versions(subject, deleted=deleted):
            return found
        raise _Refused(40401, f"Subject '{subject}' not found.")

    async def version(self, request: Request, *, deleted: bool = False) -> Version:
        """The version that a path names by its number or as the latest."""
        wanted = request.path_params["version"]
        if wanted not in _LATEST and not (re.fullmatch("[0-9]{1,10}", wanted) and 0 < int(wanted) <= _VERSION_MAX):
            raise _Refused(42202, f"The specified version '{wanted}' is not a valid version id.")
        found = await self.versions(_subject(request), deleted=deleted)
        if wanted in _LATEST:
            return found[-1]
        if (version := next((each for each in found if each.number == int(wanted)), None)) is None:
            raise _Refused(40402, f"Version {wanted} not found.")
        return version

    async def document(self, request: Request) -> tuple[int, Document]:
        """The document of the id in a path."""
        number = int(request.path_params["id"])
        if (found := await self.registry.document(number)) is None:
            raise _Refused(40403, f"Schema {number} not found")
        return number, found

    async def posted(self, request: Request) -> tuple[Document, Mapping[str, Document]]:
        """The document in a request and those that it refers to, which are there."""
        document = posted(await request.body())
        for each in document.references:
            versions = await self.registry.versions(each.subject, deleted=True)
            if all(version.number != each.version for version in versions):
                raise _Refused(
                    42201, f"Invalid schema: it refers to {each.subject} {each.version}, which is not there."
                )
        referenced = await self.registry.referenced(document)
        checked(document, referenced)
        return document, referenced

    async def shown(self, request: Request, document: Document) -> dict[str, Any]:
        """A document, in the form that is asked for."""
        form = request.query_params.get("format", "")
        referenced = await self.registry.referenced(document) if document.references else {}
        return {"guid": str(guid_of(document)), **described(document, form, referenced)}

    async def shown_version(self, request: Request, version: Version) -> dict[str, Any]:
        """A version, in the form that is asked for."""
        about = {"subject": version.subject, "version": version.number, "id": version.id}
        return about | await self.shown(request, version.document)


# -- subjects and versions ----------------------------------------------------------------------------


async def _root(rest: _Rest, request: Request) -> dict[str, str]:
    return {}


async def _subjects(rest: _Rest, request: Request) -> list[str]:
    prefix = request.query_params.get("subjectPrefix", "")
    found = await rest.registry.subjects(deleted=_flag(request, "deleted"))
    return _page(request, [subject for subject in found if subject.startswith(prefix)])


async def _numbers(rest: _Rest, request: Request) -> list[int]:
    found = await rest.versions(_subject(request), deleted=_flag(request, "deleted"))
    return _page(request, [each.number for each in found])


async def _register(rest: _Rest, request: Request) -> dict[str, Any]:
    subject = _subject(request)
    document, referenced = await rest.posted(request)
    version = same_as(document, await rest.registry.versions(subject), referenced)
    if version is None:
        number = await rest.registry.register(subject, document)
        version = next(each for each in await rest.registry.versions(subject, deleted=True) if each.id == number)
    # As it was posted: clients keep the answer for what they will ask for later.
    return {"id": version.id, "version": version.number, "guid": str(guid_of(version.document)), **as_posted(document)}


async def _look_up(rest: _Rest, request: Request) -> dict[str, Any]:
    document, referenced = await rest.posted(request)
    found = await rest.versions(_subject(request), deleted=_flag(request, "deleted"))
    if (version := same_as(document, found, referenced)) is None:
        raise _Refused(40403, "Schema not found")
    return await rest.shown_version(request, version)


async def _show(rest: _Rest, request: Request) -> dict[str, Any]:
    return await rest.shown_version(request, await rest.version(request, deleted=_flag(request, "deleted")))


async def _schema_of_version(rest: _Rest, request: Request) -> Response:
    version = await rest.version(request, deleted=_flag(request, "deleted"))
    return _text(await rest.shown_version(request, version))


async def _delete_version(rest: _Rest, request: Request) -> int:
    permanent = _flag(request, "permanent")
    version = await rest.version(request, deleted=permanent)
    await _hide(rest, [version], permanent=permanent)
    return version.number


async def _delete_subject(rest: _Rest, request: Request) -> list[int]:
    permanent = _flag(request, "permanent")
    found = await rest.versions(_subject(request), deleted=permanent)
    await _hide(rest, found, permanent=permanent)
    return [each.number for each in found]


async def _hide(rest: _Rest, versions: list[Version], *, permanent: bool) -> None:
    there = await rest.registry.everything()
    for each in versions:
        if permanent and each in there:
            raise _Refused(40407, f"Subject '{each.subject}' Version {each.number} was not deleted first.")
        if any(_refers(other.document, each) for other in there):
            raise _Refused(42206, f"One or more references exist to the schema {each.subject} {each.number}.")
    for each in versions:
        await rest.registry.delete(each, permanent=permanent)


async def _referring(rest: _Rest, request: Request) -> list[int]:
    named = await rest.version(request, deleted=True)
    return sorted({each.id for each in await rest.registry.everything() if _refers(each.document, named)})


def _refers(document: Document, named: Version) -> bool:
    return any((each.subject, each.version) == (named.subject, named.number) for each in document.references)


# -- schemas ------------------------------------------------------------------------------------------


async def _schemas(rest: _Rest, request: Request) -> list[dict[str, Any]]:
    prefix, latest = request.query_params.get("subjectPrefix", ""), _flag(request, "latestOnly")
    found = await rest.registry.everything(deleted=_flag(request, "deleted"))
    newest = {each.subject: each for each in found}
    chosen = [
        each for each in found if each.subject.startswith(prefix) and (not latest or newest[each.subject] is each)
    ]
    return [await rest.shown_version(request, each) for each in _page(request, chosen)]


async def _schema(rest: _Rest, request: Request) -> dict[str, Any]:
    _, document = await rest.document(request)
    return await rest.shown(request, document)


async def _schema_by_guid(rest: _Rest, request: Request) -> dict[str, Any]:
    wanted = request.path_params["guid"]
    try:
        found = await rest.registry.with_guid(UUID(wanted))
    except ValueError:  # it is no GUID
        found = None
    if found is None:
        raise _Refused(40403, f"Schema {wanted:.40} not found")
    return {"id": found[0]} | await rest.shown(request, found[1])


async def _schema_text(rest: _Rest, request: Request) -> Response:
    return _text(await _schema(rest, request))


async def _places(rest: _Rest, request: Request) -> list[Version]:
    number, _ = await rest.document(request)
    found = await rest.registry.everything(deleted=_flag(request, "deleted"))
    wanted = request.query_params.get("subject", "")
    return [each for each in found if each.id == number and wanted in ("", each.subject)]


async def _versions_of_schema(rest: _Rest, request: Request) -> list[dict[str, Any]]:
    return [{"subject": each.subject, "version": each.number} for each in _page(request, await _places(rest, request))]


async def _subjects_of_schema(rest: _Rest, request: Request) -> list[str]:
    return _page(request, sorted({each.subject for each in await _places(rest, request)}))


async def _types(rest: _Rest, request: Request) -> list[str]:
    return list(TYPES)


# -- compatibility and rules --------------------------------------------------------------------------


async def _check_one(rest: _Rest, request: Request) -> dict[str, Any]:
    return await _checked(rest, request, [await rest.version(request)])


async def _check_all(rest: _Rest, request: Request) -> dict[str, Any]:
    return await _checked(rest, request, await rest.registry.versions(_subject(request)))


async def _checked(rest: _Rest, request: Request, versions: list[Version]) -> dict[str, Any]:
    document, referenced = await rest.posted(request)
    found = await rest.registry.findings(_subject(request), document, versions)
    answer: dict[str, Any] = {"is_compatible": not found}
    if _flag(request, "verbose"):
        said = [f"{each.broken}: {_worded(found_break)}" for each in found for found_break in each.breaks]
        if why := why_unread(document, referenced):
            said.append(f"Its content was not judged. {why}")
        answer["messages"] = said
    return answer


def _worded(found: Break) -> str:
    return f"{found.path or 'the message'}: {found.said}. {found.remedy}"


async def _config(rest: _Rest, request: Request) -> dict[str, Any]:
    subject = _subject(request)
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
    await rest.registry.set_level(_subject(request), level)
    return {"compatibility": level.value}


async def _clear_config(rest: _Rest, request: Request) -> dict[str, Any]:
    subject = _subject(request)
    if (level := await rest.registry.own_level(subject)) is None:
        raise _Refused(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
    await rest.registry.set_level(subject, None)
    return {"compatibilityLevel": level.value}


async def _mode(rest: _Rest, request: Request) -> dict[str, str]:
    return {"mode": "READWRITE"}


async def _contexts(rest: _Rest, request: Request) -> list[str]:
    return ["."]


# -- in and out ---------------------------------------------------------------------------------------


def _require_json(request: Request) -> None:
    """Refuse bodies that say they are another thing, as those are that a web page may have any browser send."""
    if request.method in ("POST", "PUT") and "json" not in request.headers.get("content-type", ""):
        raise _Refused(415, f"HTTP 415 Unsupported Media Type: send {_MEDIA_TYPE}.")


async def _content(request: Request) -> Any:
    try:
        return msgspec.json.decode(await request.body())
    except UNREADABLE as error:
        raise _Refused(42201, f"The body is no JSON: {error}") from error


def _subject(request: Request) -> str:
    """The subject that a path names; "" where it names none."""
    return unquote(request.path_params.get("subject", ""))


def _page(request: Request, found: list[_Item]) -> list[_Item]:
    """The part that is asked for; a limit below zero is none."""
    start, limit = _number(request, "offset", 0), _number(request, "limit", -1)
    found = found[max(start, 0) :]
    return found if limit < 0 else found[:limit]


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if re.fullmatch("-?[0-9]{1,10}", text) else default


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"


def _text(shown: dict[str, Any]) -> Response:
    """The document alone."""
    return Response(shown["schema"], media_type="text/plain" if shown.get("schemaType") == "PROTOBUF" else _MEDIA_TYPE)


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type=_MEDIA_TYPE)


def _error(status: int, code: int, message: str) -> Response:
    return _json({"error_code": code, "message": message}, status)


_SUBJECT = "/subjects/{subject}"
_VERSION = _SUBJECT + "/versions/{version}"
_ROUTES: tuple[tuple[str, str, _Answer], ...] = (
    ("GET", "/", _root),
    ("GET", "/subjects", _subjects),
    ("POST", _SUBJECT, _look_up),
    ("DELETE", _SUBJECT, _delete_subject),
    ("GET", _SUBJECT + "/versions", _numbers),
    ("POST", _SUBJECT + "/versions", _register),
    ("GET", _VERSION, _show),
    ("DELETE", _VERSION, _delete_version),
    ("GET", _VERSION + "/schema", _schema_of_version),
    ("GET", _VERSION + "/referencedby", _referring),
    ("GET", "/schemas", _schemas),
    ("GET", "/schemas/types", _types),
    ("GET", "/schemas/guids/{guid}", _schema_by_guid),
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
