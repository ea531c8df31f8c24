"""The OpenAPI 3.1 document of a gateway, made of the contracts of its commands.

Source: OpenAPI Specification 3.1.1, whose schemas are JSON Schema 2020-12, which contracts are written in.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from postline.contracts.examples import examples_of
from postline.contracts.jsonschema_components import component
from postline.contracts.replies import Done, built_in_name
from postline.errors import ContractError
from postline.http.exposed import Exposed, Exposure
from postline.http.openapi_parts import (
    COMPONENTS,
    DESCRIPTION,
    ID,
    TRACKED,
    described,
    header_parameters,
    refusals,
    status_schema,
)
from postline.http.openapi_schemas import explained, placed

__all__ = ["document"]

_JSON = "application/json"
_POST_REFUSALS = (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503)


def document(title: str, exposure: Exposure, *, key_required: bool, challenge: str = "") -> dict[str, Any]:
    """What the gateway takes and answers; `challenge` is how clients are asked who they are, if they are.

    Raises ContractError for a contract that can't be said.
    """
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for name, exposed in exposure.commands.items():
        if name == exposed.spec.name:
            paths[f"/commands/{name}"] = {"post": _operation(exposed, schemas, key_required=key_required)}
    components = {**COMPONENTS, "schemas": {**schemas, **COMPONENTS["schemas"]}}
    return described(title, {**paths, **TRACKED, **DESCRIPTION}, components, challenge)


def _operation(exposed: Exposed, schemas: dict[str, Any], *, key_required: bool) -> dict[str, Any]:
    spec, reading = exposed.spec, exposed.reading
    kept = exposed.topic.tickets.retention.age
    required = key_required and not spec.is_query
    body: dict[str, Any] = {"schema": placed(reading, schemas)}
    _say_that_keys_are_not_empty(exposed, schemas)
    with suppress(ContractError):  # nothing can be made up that its limits take
        body["example"] = examples_of(reading.schema, 1)[0]
    return {
        "operationId": spec.name,
        "tags": [exposed.topic.name],
        **explained(spec.cls),
        "parameters": header_parameters(
            f"{kept}" if kept else "", exposed.topic.priorities_of(spec), required=required
        ),
        "requestBody": {"required": True, "content": {_JSON: body}},
        "responses": {
            "200": _ended(exposed, schemas),
            "202": {"$ref": "#/components/responses/Accepted"},
            **refusals(_POST_REFUSALS),
        },
        "x-query": spec.is_query,
    }


def _say_that_keys_are_not_empty(exposed: Exposed, schemas: dict[str, Any]) -> None:
    field = exposed.topic.commands.key
    part = schemas.get(component(exposed.spec.name), {}).get("properties", {}).get(field)
    if part is not None and part.get("type") == "string":
        part.setdefault("minLength", 1)


def _ended(exposed: Exposed, schemas: dict[str, Any]) -> dict[str, Any]:
    """The answer to who waited, which tells every outcome."""
    replies = _replies(exposed, exposed.spec.replies or (Done,), schemas)
    refused = _replies(exposed, exposed.spec.refusals, schemas)
    schema = status_schema(replies, refused)
    return {"description": "What became of it.", "content": {_JSON: {"schema": schema}}, "links": ID}


def _replies(exposed: Exposed, classes: tuple[type, ...], schemas: dict[str, Any]) -> dict[str, Any]:
    replies = exposed.topic.replies
    found = {}
    for cls in classes:
        if (name := built_in_name(cls)) is not None:
            found[name] = {"type": "object"}
            continue
        name = replies.type_name_of(cls)
        found[name] = placed(replies.reading_of(name).as_json(), schemas)
    return found
