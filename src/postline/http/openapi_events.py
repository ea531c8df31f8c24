"""The OpenAPI 3.1 document of a receiver: an operation for each topic that takes events, made of its contracts.

Source: CloudEvents 1.0.2, HTTP protocol binding (binary, structured and batched mode) and JSON event format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from postline.contracts import Topic
from postline.contracts.cloudevents_json import BATCH, STRUCTURED
from postline.contracts.examples import examples_of
from postline.contracts.topics import MessageContract
from postline.errors import ContractError
from postline.http.openapi_parts import COMPONENTS, DESCRIPTION, described, key_parameter, refusals
from postline.http.openapi_schemas import explained, placed
from postline.message import JSON_CONTENT_TYPE

__all__ = ["events_document", "events_schema"]

_REFUSALS = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503)
_TEXT = {"type": "string", "minLength": 1}
_ATTRIBUTES: dict[str, Any] = {
    "specversion": {"const": "1.0"},
    "id": _TEXT,
    "source": {**_TEXT, "format": "uri-reference"},
    "time": {"type": ["string", "null"], "format": "date-time"},
    "subject": {"type": ["string", "null"], "minLength": 1},
    "datacontenttype": {"enum": [JSON_CONTENT_TYPE, None]},
}
_ID = {"id": "8e03978e-40d5-43e8-bc93-6894a57f9324", "source": "/tills/3"}


def events_document(
    title: str, path: str, topics: Iterable[Topic], *, kept: timedelta, challenge: str = ""
) -> dict[str, Any]:
    """What is taken at `path`: of each topic by itself where the path names one, else of all together.

    Keys are remembered for `kept`; `challenge` is how senders are asked who they are, if they are. Raises ContractError
    for a contract that can't be said.
    """
    taking = [topic for topic in topics if topic.takes_events and topic.contracts]
    schemas: dict[str, Any] = {}
    if "{topic}" in path:
        wanted = {path.replace("{topic}", each.name): (each.name, [each]) for each in taking}
    else:
        wanted = {path: ("events", taking)} if taking else {}
    paths = {at: {"post": _operation(*of, schemas, f"{kept}")} for at, of in wanted.items()}
    parts = {**schemas, "postline.Problem": COMPONENTS["schemas"]["postline.Problem"]}
    return described(title, {**paths, **DESCRIPTION}, {"schemas": parts}, challenge)


def events_schema(contracts: Iterable[MessageContract], schemas: dict[str, Any]) -> dict[str, Any]:
    """An event of one of these types in structured mode; the data's schemas are added to `schemas`."""
    return _any_of([_event(each, placed(each.reading.as_json(), schemas)) for each in contracts])


def _operation(name: str, topics: Sequence[Topic], schemas: dict[str, Any], kept: str) -> dict[str, Any]:
    contracts = [contract for topic in topics for contract in topic.contracts.values()]
    event = events_schema(contracts, schemas)
    data = [placed(contract.reading.as_json(), schemas) for contract in contracts]
    names = [name for contract in contracts for name in _names(contract)]
    said = explained(contracts[0].cls) if len(contracts) == 1 else {}
    return {
        "operationId": f"post-{name}",
        "tags": [topic.name for topic in topics],
        **said,
        "parameters": [*_headers(names), key_parameter("request", kept, required=False)],
        "requestBody": {
            "required": True,
            "content": {
                STRUCTURED: {"schema": event, **_example(contracts[0])},
                BATCH: {"schema": {"type": "array", "items": event}},
                JSON_CONTENT_TYPE: {"schema": _any_of(data)},
            },
        },
        "responses": {"202": {"description": "All of them are stored durably."}, **refusals(_REFUSALS)},
    }


def _event(contract: MessageContract, data: dict[str, Any]) -> dict[str, Any]:
    """An event of one type in structured mode. Of its attributes those are named that every event may have."""
    properties = {**_ATTRIBUTES, "type": {"enum": _names(contract)}, "data": data}
    return {"type": "object", "properties": properties, "required": ["specversion", "id", "source", "type", "data"]}


def _example(contract: MessageContract) -> dict[str, Any]:
    with suppress(ContractError):  # nothing can be made up that its limits take
        data = examples_of(contract.reading.as_json().schema, 1)[0]
        return {"example": {"specversion": "1.0", **_ID, "type": contract.name, "data": data}}
    return {}


def _headers(names: list[str]) -> list[dict[str, Any]]:
    """The attributes in binary mode. In the other ones they are in the body, and no header is looked at."""
    said = {
        "ce-specversion": "`1.0`",
        "ce-id": "the event's id, unique within its source",
        "ce-source": "who sends it, a URI reference",
        "ce-type": " or ".join(f"`{name}`" for name in names),
    }
    where = "Where the body is the event's data alone (binary mode)"
    return [
        {"name": name, "in": "header", "schema": {"type": "string"}, "description": f"{where}: {each}."}
        for name, each in said.items()
    ]


def _names(contract: MessageContract) -> list[str]:
    return [contract.name, *contract.reading.aliases]


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
