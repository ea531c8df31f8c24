"""The OpenAPI 3.1 document of notifications: streams, webhooks and what is posted to them, made of topics' contracts.

Source: OpenAPI Specification 3.1.1 (`webhooks`: what is sent to the client), Standard Webhooks 1.0.0 (the headers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from postline.contracts import Topic
from postline.contracts.cloudevents_json import STRUCTURED
from postline.http.openapi_events import events_schema
from postline.http.openapi_parts import COMPONENTS, DESCRIPTION, described, key_parameter, refusals

__all__ = ["following_document"]

_JSON = "application/json"
_TEXT: dict[str, Any] = {"type": "string"}
_RULE = {"type": "object", "description": 'What has to hold of the data, as `{"field": "total", "gt": 100}`.'}
_SECRET = {"type": "string", "description": "Signs what is posted, as Standard Webhooks has it: `whsec_` and base64."}
_WEBHOOK = {"$ref": "#/components/schemas/postline.Webhook"}
_ASKING, _KNOWN = (400, 401, 403, 404, 429, 500, 503), (401, 403, 404, 429, 500, 503)


def following_document(
    title: str, streams: Sequence[Topic], webhooks: Sequence[Topic], *, challenge: str = ""
) -> dict[str, Any]:
    """What can be followed as streams, and by webhooks; `challenge` is how clients are asked who they are, if they are.

    Raises ContractError for a contract that can't be said.
    """
    schemas: dict[str, Any] = {}
    paths = _streams(streams, schemas) if streams else {}
    posted = {topic.name: {"post": _posted(topic, schemas)} for topic in webhooks}
    if webhooks:
        paths |= _webhooks([topic.name for topic in webhooks])
        schemas["postline.Webhook"] = _webhook([topic.name for topic in webhooks])
    schemas["postline.Problem"] = COMPONENTS["schemas"]["postline.Problem"]
    made = described(title, {**paths, **DESCRIPTION}, {"schemas": schemas}, challenge)
    return {**made, "webhooks": posted} if posted else made


def _streams(topics: Sequence[Topic], schemas: dict[str, Any]) -> dict[str, Any]:
    events = {f"{topic.name}.event": events_schema(topic.contracts.values(), schemas) for topic in topics}
    schemas |= events
    data = ", ".join(f"`{name}`" for name in events)
    query = {
        "from": ({"enum": ["latest", "earliest"], "default": "latest"}, "Where a stream without a place begins."),
        "types": (_TEXT, "Wire names of the types that are wanted, with commas between them; all if left out."),
        "filter": (_TEXT, 'What has to hold of the data, as JSON: `{"field": "total", "gt": 100}`.'),
        "last-event-id": (_TEXT, "As the header, for a client that can't give it."),
    }
    asked = [{"name": each, "in": "query", "schema": of, "description": said} for each, (of, said) in query.items()]
    place = {"name": "Last-Event-ID", "in": "header", "schema": _TEXT, "description": "The id that came last."}
    told = "Server-sent events without end: each message as a CloudEvent in JSON"
    operation = {
        "operationId": "followTopic",
        "summary": "A topic's messages, from now on or from where the client was.",
        "parameters": [*asked, place],
        "responses": {
            "200": {"description": f"{told} (schemas {data}).", "content": {"text/event-stream": {}}},
            **refusals(_ASKING),
        },
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"enum": [topic.name for topic in topics]}}
    return {"/topics/{name}/events": {"parameters": [name], "get": operation}}


def _webhook(topics: list[str]) -> dict[str, Any]:
    properties = {
        "id": _TEXT,
        "url": {"type": "string", "format": "uri"},
        "topic": {"enum": topics},
        "status": {"enum": ["enabled", "disabled"]},
        "reason": {"type": "string", "description": "Why it is disabled."},
        "types": {"type": "array", "items": _TEXT},
        "filter": _RULE,
        "pending": {"type": "integer", "description": "Messages that wait to be posted."},
        "dead_letters": {"type": "integer", "description": "Messages that were given up."},
    }
    return {"type": "object", "properties": properties, "required": ["id", "url", "topic", "status"]}


def _webhooks(topics: list[str]) -> dict[str, Any]:
    asked = {
        "type": "object",
        "properties": {
            "url": {"type": "string", "format": "uri"},
            "topic": {"enum": topics},
            "types": {"type": "array", "items": _TEXT},
            "filter": {**_RULE, "type": ["object", "null"]},
            "secret": _SECRET,
        },
        "required": ["url", "topic"],
        "additionalProperties": False,
    }
    secret = {"type": "object", "properties": {"secret": _SECRET}, "required": ["secret"]}
    listed = {
        "type": "object",
        "properties": {"webhooks": {"type": "array", "items": _WEBHOOK}},
        "required": ["webhooks"],
    }
    location = {"schema": {"type": "string", "format": "uri-reference"}, "required": True}
    post = {
        "operationId": "makeWebhook",
        "summary": "Have a topic's messages posted to a URL, from now on.",
        "parameters": [key_parameter("webhook", "", required=False)],
        "requestBody": {"required": True, "content": {_JSON: {"schema": asked}}},
        "responses": {
            "201": {**_told("It is stored.", {"allOf": [_WEBHOOK, secret]}), "headers": {"Location": location}},
            **refusals((400, 401, 403, 408, 410, 413, 415, 422, 429, 500, 501, 503)),
        },
    }
    one = {"parameters": [{"name": "id", "in": "path", "required": True, "schema": _TEXT}]}
    rotated = {"type": "object", "properties": {"id": _TEXT, "secret": _SECRET}, "required": ["id", "secret"]}
    gone = {"204": {"description": "It is deleted, with what waited for it."}}
    return {
        "/webhooks": {"post": post, "get": _operation("listWebhooks", "The caller's webhooks.", listed)},
        "/webhooks/{id}": {
            **one,
            "get": _operation("getWebhook", "A webhook, and how far it is.", _WEBHOOK),
            "delete": {"operationId": "deleteWebhook", "summary": "End it.", "responses": {**gone, **refusals(_KNOWN)}},
        },
        "/webhooks/{id}/enable": {
            **one,
            "post": _operation("enableWebhook", "Go on with one that was disabled.", _WEBHOOK),
        },
        "/webhooks/{id}/secret": {
            **one,
            "post": _operation("rotateSecret", "A new secret; the last one signs, too, until the next.", rotated),
        },
    }


def _operation(name: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "responses": {"200": _told(summary, schema), **refusals(_KNOWN)}}


def _told(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _posted(topic: Topic, schemas: dict[str, Any]) -> dict[str, Any]:
    """What a webhook of the topic is sent."""
    said = {
        "webhook-id": "The same for each attempt with one message.",
        "webhook-timestamp": "When the attempt was signed, in seconds since 1970.",
        "webhook-signature": "`v1,` and the signature; several while a secret is being replaced.",
    }
    headers = [
        {"name": name, "in": "header", "required": True, "schema": _TEXT, "description": each}
        for name, each in said.items()
    ]
    event = events_schema(topic.contracts.values(), schemas)
    return {
        "operationId": f"posted-{topic.name}",
        "summary": "A message of the topic, signed as Standard Webhooks has it.",
        "description": "Fields that the contract calls sensitive are masked unless the service reveals them.",
        "tags": [topic.name],
        "parameters": headers,
        "requestBody": {"required": True, "content": {STRUCTURED: {"schema": event}}},
        "responses": {
            "2XX": {"description": "It was taken."},
            "410": {"description": "No more is wanted: the webhook is disabled."},
            "default": {"description": "It is posted again, for about three days; `Retry-After` is heeded."},
        },
    }
