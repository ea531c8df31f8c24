"""What every gateway's OpenAPI document has: problems, statuses, the paths of requests, and their headers."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from postline.http.idempotency import IDEMPOTENCY_KEY, KEY_PATTERN, NAME_PATTERN
from postline.http.problems import PROBLEM_TYPE

__all__ = [
    "COMPONENTS",
    "DESCRIPTION",
    "ID",
    "TRACKED",
    "described",
    "header_parameters",
    "key_parameter",
    "refusals",
    "status_schema",
]

_JSON = "application/json"
_STATES = ["pending", "running", "succeeded", "refused", "failed", "timed-out", "cancelled"]
_TEXT = {"type": "string"}
_PROBLEM_REF = {"$ref": "#/components/schemas/postline.Problem"}

#: How the request that an answer tells of is asked for.
ID = {"status": {"operationId": "getRequest", "parameters": {"id": "$response.body#/id"}}}

_PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": _TEXT,
    "description": "`wait=N`: answer with the outcome if it comes within N seconds; `respond-async`: don't wait.",
    "example": "wait=10",
}


def key_parameter(what: str, kept: str, *, required: bool) -> dict[str, Any]:
    """The `Idempotency-Key` of what is sent, as it is called; `kept` is for how long keys are remembered."""
    remembered = f"Keys are remembered for {kept.removesuffix(', 0:00:00')}." if kept else "Keys are remembered."
    return {
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "required": required,
        "schema": {"type": "string", "pattern": f"^({KEY_PATTERN})$"},
        "description": f"Names this {what} among the caller's: sent again under the same key it gives the first answer "
        f"and does nothing twice; another body under the same key is refused. {remembered}",
        "example": '"8e03978e-40d5-43e8-bc93-6894a57f9324"',
    }


def header_parameters(kept: str, priorities: list[str], *, required: bool) -> list[dict[str, Any]]:
    """The headers of a command."""
    priority = {
        "name": "Postline-Priority",
        "in": "header",
        "schema": {"enum": priorities},
        "description": "How urgent the command is, the highest first; `normal` if it is left out.",
    }
    return [key_parameter("command", kept, required=required), _PREFER, *([priority] if priorities else [])]


def described(title: str, paths: dict[str, Any], components: dict[str, Any], challenge: str) -> dict[str, Any]:
    """The whole document; `challenge` is how clients are asked who they are, "" if they are not."""
    made: dict[str, Any] = {"openapi": "3.1.1", "info": {"title": title, "version": "1.0.0"}, "paths": paths}
    if challenge:
        scheme = {"caller": {"type": "http", "scheme": challenge.split(maxsplit=1)[0].lower()}}
        components = {**components, "securitySchemes": scheme}
        made["security"] = [{"caller": []}]
    return {**made, "components": components}


def refusals(statuses: Iterable[int]) -> dict[str, Any]:
    """The answers that are problems."""
    content = {PROBLEM_TYPE: {"schema": _PROBLEM_REF}}
    return {str(each): {"description": HTTPStatus(each).phrase, "content": content} for each in statuses}


def status_schema(replies: dict[str, Any], refused: dict[str, Any]) -> dict[str, Any]:
    """The status of a request to one command: its replies and refusals by wire name."""
    problem: dict[str, Any] = _PROBLEM_REF
    if refused:
        told = {"refusal": _any_of(refused), "refusal_type": {"enum": list(refused)}}
        problem = {"allOf": [_PROBLEM_REF], "properties": told}
    told = {"result": _any_of(replies), "result_type": {"enum": list(replies)}, "problem": problem}
    return {"allOf": [{"$ref": "#/components/schemas/postline.Status"}], "properties": told}


def _any_of(schemas: dict[str, Any]) -> dict[str, Any]:
    one, *more = schemas.values()
    return {"anyOf": [one, *more]} if more else one


_LINKS = {
    "type": "object",
    "properties": {name: {"type": "string", "format": "uri-reference"} for name in ("self", "events", "cancel")},
    "required": ["self", "events", "cancel"],
}
_ID_SCHEMA = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}

COMPONENTS: dict[str, Any] = {
    "schemas": {
        "postline.Problem": {
            "type": "object",
            "description": "RFC 9457 problem details.",
            "properties": {
                "type": {"type": "string", "format": "uri-reference"},
                "title": _TEXT,
                "status": {"type": "integer"},
                "detail": _TEXT,
                "instance": {"type": "string", "format": "uri-reference"},
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "pointer": {"type": "string", "description": "A JSON pointer into the body."},
                            "detail": _TEXT,
                        },
                        "required": ["pointer", "detail"],
                    },
                },
            },
            "required": ["type", "title", "status"],
        },
        "postline.Status": {
            "type": "object",
            "properties": {
                "id": _ID_SCHEMA,
                "status": {"enum": _STATES},
                "command": {"type": "string", "description": "The command's wire name."},
                "note": {"type": "string", "description": "How far it is, in its handler's words."},
                "result": {"description": "The reply of a request that succeeded."},
                "result_type": {"type": "string", "description": "The reply's wire name."},
                "problem": _PROBLEM_REF,
                "links": _LINKS,
            },
            "required": ["id", "status", "links"],
        },
    },
    "headers": {
        "Location": {
            "description": "Where the status lies.",
            "schema": {"type": "string", "format": "uri-reference"},
            "required": True,
        },
        "Retry-After": {"description": "In so many seconds.", "schema": {"type": "integer"}},
    },
    "responses": {
        "Accepted": {
            "description": "Stored durably; what becomes of it is told at the Location.",
            "headers": {each: {"$ref": f"#/components/headers/{each}"} for each in ("Location", "Retry-After")},
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/postline.Status"}}},
            "links": ID,
        },
        "Status": {
            "description": "How the request stands. One that failed is told as such, with status 200.",
            "headers": {"ETag": {"schema": _TEXT}},
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/postline.Status"}}},
        },
    },
}

_STATUS = {"$ref": "#/components/responses/Status"}
_ID_PARAMETER = {"name": "id", "in": "path", "required": True, "schema": _ID_SCHEMA}
_REFUSALS = (401, 403, 404, 410, 429, 500, 502, 503)


def _header(name: str, said: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": _TEXT, "description": said}


#: The paths of requests.
TRACKED: dict[str, Any] = {
    "/requests/{id}": {
        "parameters": [_ID_PARAMETER],
        "get": {
            "operationId": "getRequest",
            "summary": "How a request stands.",
            "parameters": [_PREFER, _header("If-None-Match", "The ETag of the status that is known.")],
            "responses": {"200": _STATUS, "304": {"description": "It stands as before."}, **refusals(_REFUSALS)},
        },
        "delete": {
            "operationId": "cancelRequest",
            "summary": "Ask that the command not be begun.",
            "responses": {
                "200": _STATUS,
                "202": {**COMPONENTS["responses"]["Status"], "description": "Asked; it may be too late."},
                **refusals((*_REFUSALS, 409)),
            },
        },
    },
    "/requests/{id}/events": {
        "parameters": [_ID_PARAMETER],
        "get": {
            "operationId": "watchRequest",
            "summary": "The status as server-sent events, until the request has ended.",
            "parameters": [_header("Last-Event-ID", "The id of the last event that came.")],
            "responses": {
                "200": {
                    "description": "Events named `status`, whose data is a status.",
                    "content": {"text/event-stream": {}},
                },
                "204": {"description": "The last event that came was the end."},
                **refusals(_REFUSALS),
            },
        },
    },
}

#: The path of the document itself.
DESCRIPTION: dict[str, Any] = {
    "/openapi.json": {
        "get": {
            "operationId": "getDescription",
            "summary": "This document.",
            "responses": {
                "200": {"description": "OpenAPI 3.1.", "content": {_JSON: {"schema": {"type": "object"}}}},
                **refusals((401, 403, 429, 503)),
            },
        }
    },
}
