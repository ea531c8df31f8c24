"""AsyncAPI 3 documents of services: what travels on their topics, who sends and who receives it.

Source: AsyncAPI 3.0.0, Kafka bindings 0.5.0. One document may describe a whole system: each operation names its
service in `x-service`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from postline.contracts.cloudevents import SCHEMA_ID
from postline.contracts.examples import examples_of
from postline.contracts.jsonschema import MODEL
from postline.contracts.jsonschema import document as json_document
from postline.contracts.reading import Reading
from postline.contracts.topics import ForeignTopic, Topic
from postline.errors import ContractError

__all__ = ["Receiving", "Service", "document", "problems"]

_VERSION = "3.0.0"
_BINDING = {"bindingVersion": "0.5.0"}
_EXAMPLES = 2
_HEADERS = {
    "ce_specversion": "The CloudEvents version, 1.0.",
    "ce_id": "The message's id; with its source it is one message, however often it is sent.",
    "ce_source": "The service that published it.",
    "ce_type": "The message type.",
    "ce_time": "When it was published, RFC 3339.",
    "content-type": "How the value is written.",
    "ce_correlationid": "What it is all about: the id of the first message of a chain.",
    "ce_causationid": "The id of the message that caused it.",
    SCHEMA_ID: "The schema that its value was written under, by its id in the registry.",
}
_FORMATS = {
    "avro": "application/vnd.apache.avro+json;version=1.9.0",
    "protobuf": "application/vnd.google.protobuf;version=3",
}


class Receiving(NamedTuple):
    """A subscription: its name, its topic, and the message types that it handles."""

    subscription: str
    topic: Topic | ForeignTopic
    types: Sequence[str]


class Service(NamedTuple):
    """One service as a document describes it."""

    name: str
    sends: Sequence[Topic]
    receives: Sequence[Receiving]


def document(services: Sequence[Service], *, title: str = "", version: str = "1.0.0", url: str = "") -> dict[str, Any]:
    """The document of one service, or of several as one system. Secrets in the URL stay out of it.

    Of a topic that nobody here owns it says what its readers know. Raises ContractError.
    """
    made = _Document(services)
    info = {"title": title or ", ".join(service.name for service in services), "version": version}
    return {
        "asyncapi": _VERSION,
        "info": info,
        "defaultContentType": "application/json",
        **({"servers": {"log": _server(url)}} if url else {}),
        "channels": made.channels,
        "operations": made.operations,
        "components": {
            "messages": made.messages,
            **({"schemas": made.schemas} if made.schemas else {}),
            "correlationIds": {"chain": {"location": "$message.header#/ce_correlationid"}},
        },
    }


class _Document:
    """The parts of a document, each topic and type once: as its owner has it, if the owner is among the services."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.channels: dict[str, Any] = {}
        self.messages: dict[str, Any] = {}
        self.schemas: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        owned = {topic.name: topic for service in services for topic in service.sends}
        for service in services:
            for topic in service.sends:
                self._channel(topic, topic.contracts)
                self._operation(service, "send", topic, topic.contracts, {})
            for each in service.receives:
                known = owned.get(each.topic.name, each.topic)
                self._channel(known, each.types)
                group = {"groupId": {"type": "string", "enum": [each.subscription]}}
                self._operation(service, "receive", each.topic, each.types, group, each.subscription)

    # -- channels -----------------------------------------------------------------------------

    def _channel(self, topic: Topic | ForeignTopic, types: Any) -> None:
        channel = self.channels.setdefault(
            _key(topic.name), {"address": topic.name, "messages": {}, **_facts_of(topic)}
        )
        for name in types:
            key = self._message(topic, name)
            channel["messages"][key] = {"$ref": f"#/components/messages/{key}"}
        if isinstance(topic, Topic) and topic.compaction is not None:
            key = _key(f"{topic.name}.tombstone")
            self.messages[key] = {"name": key, "title": "The key is gone", "payload": {"type": "null"}, **_keyed(topic)}
            channel["messages"][key] = {"$ref": f"#/components/messages/{key}"}

    def _operation(
        self, service: Service, action: str, topic: Any, types: Any, binding: dict[str, Any], name: str = ""
    ) -> None:
        channel = f"#/channels/{_key(topic.name)}"
        self.operations[_key(f"{service.name}.{action}.{name or topic.name}")] = {
            "action": action,
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{_key(each)}"} for each in types],
            **({"bindings": {"kafka": {**binding, **_BINDING}}} if binding else {}),
            "x-service": service.name,
        }

    # -- messages -----------------------------------------------------------------------------

    def _message(self, topic: Topic | ForeignTopic, name: str) -> str:
        key = _key(name)
        if key not in self.messages:
            reading = topic.reading_of(name)
            self.messages[key] = {
                "name": name,
                "contentType": reading.format.content_type,
                "headers": _headers(),
                "correlationId": {"$ref": "#/components/correlationIds/chain"},
                "payload": self._payload(reading),
                **_keyed(topic),
                **_examples(reading),
                **({"x-aliases": list(reading.aliases)} if reading.aliases else {}),
            }
        return key

    def _payload(self, reading: Reading) -> dict[str, Any]:
        if (said := _FORMATS.get(reading.format.name)) is not None:
            text = reading.format.document(reading.schema)
            schema = msgspec.json.decode(text) if reading.format.name == "avro" else text
            if isinstance(schema, dict):
                schema.pop(MODEL, None)
            return {"schemaFormat": said, "schema": schema}
        content = json_document(reading.schema)
        names = {
            name: _key(reading.name if name == reading.name else f"{reading.name}.{name}")
            for name in content.get("$defs", {})
        }
        for name, part in content.pop("$defs", {}).items():
            self.schemas[names[name]] = _renamed(part, names)
        del content["$schema"], content[MODEL]
        found = _renamed(content, names)
        assert isinstance(found, dict)
        return found


def _renamed(part: Any, names: dict[str, str]) -> Any:
    """A schema whose references point into the document's components."""
    if isinstance(part, dict):
        return {
            key: f"#/components/schemas/{names[value.removeprefix('#/$defs/')]}"
            if key == "$ref" and isinstance(value, str)
            else _renamed(value, names)
            for key, value in part.items()
        }
    return [_renamed(each, names) for each in part] if isinstance(part, list) else part


def _key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _facts_of(topic: Topic | ForeignTopic) -> dict[str, Any]:
    if not isinstance(topic, Topic):
        return {"bindings": {"kafka": {"topic": topic.name, **_BINDING}}}
    configuration: dict[str, Any] = {"cleanup.policy": ["compact" if topic.compaction else "delete"]}
    if topic.retention.age is not None:
        configuration["retention.ms"] = int(topic.retention.age.total_seconds() * 1000)
    if topic.retention.bytes_per_partition is not None:
        configuration["retention.bytes"] = topic.retention.bytes_per_partition
    if topic.compaction is not None:
        configuration["delete.retention.ms"] = int(topic.compaction.tombstone_retention.total_seconds() * 1000)
    configuration["max.message.bytes"] = topic.message_bytes_max
    kafka = {"topic": topic.name, "partitions": topic.partitions, "topicConfiguration": configuration, **_BINDING}
    return {
        "bindings": {"kafka": kafka},
        "x-owner": topic.owner,
        "x-evolution": topic.schemas.evolution,
        **({"x-key": topic.key_text} if topic.keyed else {}),
    }


def _keyed(topic: Topic | ForeignTopic) -> dict[str, Any]:
    return {"bindings": {"kafka": {"key": {"type": "string"}, **_BINDING}}} if topic.keyed else {}


def _headers() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": said} for name, said in _HEADERS.items()},
        "required": ["ce_id", "ce_source", "ce_type", "ce_specversion"],
    }


def _examples(reading: Reading) -> dict[str, Any]:
    if reading.format.name != "json":
        return {}
    try:
        return {"examples": [{"payload": each} for each in examples_of(reading.schema, _EXAMPLES)]}
    except ContractError:  # nothing can be made up that its pattern takes
        return {}


def _server(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or parts.path.lstrip("/") or "memory"
    return {"host": host, "protocol": parts.scheme}


def problems(document: dict[str, Any]) -> list[str]:
    """What is wrong with a document in ways that the official parser does not see, in sentences; [] if nothing is.

    References to nothing, reply channels with an address of their own, and Avro schemas that are none.
    """
    references = _references(document, "#")
    found = [f"{at}: {named} is not there." for at, named in references if _at(document, named) is None]
    for name, operation in document.get("operations", {}).items():
        reply = operation.get("reply", {})
        channel = _at(document, reply.get("channel", {}).get("$ref", "#/nothing"))
        if reply.get("address") and isinstance(channel, dict) and channel.get("address") is not None:
            found.append(f"Operation {name} takes its reply's address from the message, but its channel has one, too.")
    for name, message in document.get("components", {}).get("messages", {}).items():
        payload = message.get("payload", {})
        if "avro" in str(payload.get("schemaFormat", "")):
            found += [f"Message {name}: {said}" for said in _wrong_avro(payload.get("schema"))]
    return found


def _wrong_avro(schema: Any) -> list[str]:
    from postline.contracts.avro import parse

    try:
        parse(schema)
    except ContractError as error:
        return [error.message]
    return []


def _references(part: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref" and isinstance(value, str):
                yield at, value
            else:
                yield from _references(value, f"{at}/{key}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from _references(value, f"{at}/{number}")


def _at(document: Any, reference: str) -> Any:
    part = document
    for step in reference.removeprefix("#/").split("/"):
        if not isinstance(part, dict) or step not in part:
            return None
        part = part[step]
    return part
