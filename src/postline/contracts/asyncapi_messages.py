"""Messages of AsyncAPI documents: headers, key, payload and examples of one type.

Source: AsyncAPI 3.0.0 "Message Object" and "Schema Object" (a superset of JSON Schema draft 07), Kafka bindings 0.5.0.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from postline.contracts.cloudevents import CLIENT_ID, CONTENT_TYPE, OUTCOME, OWN_ID, REQUEST_ID, REQUIRED, SCHEMA_ID
from postline.contracts.cloudevents_json import STRUCTURED
from postline.contracts.commands import ReplyTopic
from postline.contracts.examples import examples_of
from postline.contracts.jsonschema import MODEL
from postline.contracts.jsonschema import document as json_document
from postline.contracts.jsonschema_components import component, referring
from postline.contracts.reading import Reading
from postline.contracts.replies import ReplyOutcome
from postline.contracts.schema import Enumeration, Record, Reference, Scalar, Schema, Type
from postline.contracts.topics import ForeignTopic, Topic
from postline.errors import ContractError

__all__ = ["message"]

_EXAMPLES = 2
_FORMATS = {
    "avro": "application/vnd.apache.avro+json;version=1.9.0",
    "protobuf": "application/vnd.google.protobuf;version=3",
}
_HEADERS = {
    "ce_specversion": "The CloudEvents version.",
    "ce_id": "The message's id; with its source it is one message, however often it is sent.",
    "ce_source": "The service that published it.",
    "ce_type": "The message type.",
    "ce_time": "When it was published, RFC 3339.",
    "content-type": "How the value is written.",
    "ce_correlationid": "What it is all about: the id of the first message of a chain.",
    "ce_causationid": "The id of the message that caused it.",
    OWN_ID: "Set where the publisher chose the id.",
    SCHEMA_ID: "The schema that its value was written under, by its id in the registry.",
    CLIENT_ID: "The client of the command, or of the command behind this message.",
    REQUEST_ID: "The request of that client.",
}


def message(topic: Topic | ForeignTopic, reading: Reading, key: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """What a document says of a type; `key` is the message's own in it, `schemas` takes what the payload refers to.

    Raises ContractError for what its format can't say.
    """
    own = topic if isinstance(topic, Topic) else None
    whole = own is not None and own.schemas.structured
    return {
        **_explained(reading.cls),
        "contentType": STRUCTURED if whole else reading.format.content_type,
        **(_envelope(own, reading) if own is not None else {}),
        "payload": _event(reading, key, schemas) if whole else _payload(reading, key, schemas),
        **_keyed(topic, reading),
        **({} if whole else _examples(reading)),
        **({"x-aliases": list(reading.aliases)} if reading.aliases else {}),
    }


def _explained(cls: Any) -> dict[str, str]:
    """The class's own docstring; those that dataclasses make up say nothing."""
    said = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    first, _, rest = said.partition("\n")
    if not first or first.startswith(f"{cls.__name__}("):
        return {}
    return {"summary": first, **({"description": said} if rest else {})}


def _envelope(topic: Topic, reading: Reading) -> dict[str, Any]:
    if topic.schemas.structured:
        told = {"type": "string", "const": STRUCTURED, "description": "The value is the whole event."}
        return {"headers": {"type": "object", "properties": {"content-type": told}, "required": ["content-type"]}}
    properties: dict[str, dict[str, Any]]
    properties = {name: {"type": "string", "description": said} for name, said in _HEADERS.items()}
    if topic.schemas.framed:
        del properties[SCHEMA_ID]
    fixed = {"ce_specversion": "1.0", "ce_type": reading.name, "content-type": reading.format.content_type}
    for name, value in fixed.items():
        properties[name]["const"] = value
    required = list(REQUIRED)
    if isinstance(topic, ReplyTopic):
        outcomes = [each.value for each in ReplyOutcome]
        properties[OUTCOME] = {"type": "string", "description": "How the command ended.", "enum": outcomes}
        required += [CLIENT_ID, REQUEST_ID, OUTCOME]
    headers = {"type": "object", "properties": properties, "required": required}
    return {"headers": headers, "correlationId": {"$ref": "#/components/correlationIds/chain"}}


def _event(reading: Reading, key: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """The payload that is a CloudEvent in structured mode, with the message as its data."""
    properties: dict[str, Any] = {
        "datacontenttype" if name == CONTENT_TYPE else name.removeprefix("ce_"): {"type": "string", "description": said}
        for name, said in _HEADERS.items()
    }
    fixed = {"specversion": "1.0", "type": reading.name, "datacontenttype": reading.format.content_type}
    for name, value in fixed.items():
        properties[name]["const"] = value
    as_json = reading.format.name == "json"
    data = _payload(reading, key, schemas) if as_json else {"type": "string", "contentEncoding": "base64"}
    properties["data" if as_json else "data_base64"] = data
    return {"type": "object", "properties": properties, "required": [name.removeprefix("ce_") for name in REQUIRED]}


# -- keys ---------------------------------------------------------------------------------------------


def _keyed(topic: Topic | ForeignTopic, reading: Reading) -> dict[str, Any]:
    binding: dict[str, Any] = {}
    if topic.keyed:
        binding["key"] = _key_schema(topic, reading.schema)
    if isinstance(topic, Topic) and not topic.schemas.structured:
        framed = {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent"}
        binding |= framed if topic.schemas.framed else {"schemaIdLocation": "header"}
        binding["schemaLookupStrategy"] = "TopicRecordNameStrategy"
    return {"bindings": {"kafka": {**binding, "bindingVersion": "0.5.0"}}} if binding else {}


def _key_schema(topic: Topic | ForeignTopic, schema: Schema) -> dict[str, Any]:
    """A key is text on the wire, whatever its type; what sort of text a field's type says."""
    path = topic.key if isinstance(topic, Topic) and isinstance(topic.key, str) else ""
    found: Type | Record | Enumeration | None = schema.record
    for name in path.split(".") if path else ():
        fields = {field.name: field.type for field in found.fields} if isinstance(found, Record) else {}
        part = fields.get(name)
        found = schema.definitions[part.name] if isinstance(part, Reference) else part
    said = {"type": "string", **({"description": f"The message's {path}."} if path else {})}
    match found if path else None:
        case Scalar(kind="uuid"):
            return {**said, "format": "uuid"}
        case Scalar(kind="integer"):
            return {**said, "pattern": "^-?[0-9]+$"}
        case Enumeration(symbols=symbols):
            return {**said, "enum": [str(each) for each in symbols]}
    return said


# -- payloads -----------------------------------------------------------------------------------------


def _payload(reading: Reading, key: str, schemas: dict[str, Any]) -> dict[str, Any]:
    if (media_type := _FORMATS.get(reading.format.name)) is not None:
        text = reading.format.document(reading.schema)
        return {"schemaFormat": media_type, "schema": _without_model(text) if reading.format.name == "avro" else text}
    content = json_document(reading.schema)
    names: dict[str, str] = {}
    for name in content.get("$defs", {}):
        names[name] = _free_name(key if name == reading.name else f"{key}.{name}", {*schemas, *names.values()})
    for name, part in content.pop("$defs", {}).items():
        schemas[names[name]] = referring(part, names, _draft_07)
    del content["$schema"], content[MODEL]
    return referring(content, names, _draft_07)


def _without_model(text: str) -> Any:
    content = msgspec.json.decode(text)
    return {name: each for name, each in content.items() if name != MODEL} if isinstance(content, dict) else content


def _free_name(name: str, taken: set[str]) -> str:
    clean = component(name)
    return next(each for each in (clean, *(f"{clean}-{n}" for n in range(2, len(taken) + 3))) if each not in taken)


def _draft_07(made: dict[str, Any]) -> dict[str, Any]:
    """A schema of ours in the older words that AsyncAPI knows."""
    made = {"items" if word == "prefixItems" else word: value for word, value in made.items()}
    # Draft 07 knows nothing that stands beside a reference.
    return {"allOf": [{"$ref": made.pop("$ref")}], **made} if "$ref" in made and len(made) > 1 else made


def _examples(reading: Reading) -> dict[str, Any]:
    """Examples as JSON has them; none of binary formats, whose values look different."""
    if reading.format.name != "json":
        return {}
    try:
        return {"examples": [{"payload": each} for each in examples_of(reading.schema, _EXAMPLES)]}
    except ContractError:  # nothing can be made up that its limits take
        return {}
