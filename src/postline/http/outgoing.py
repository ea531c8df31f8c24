"""Messages as they leave for others over HTTP: whole CloudEvents in JSON, with sensitive fields masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from postline.contracts import ForeignTopic, Topic
from postline.contracts.cloudevents import CALLBACK, to_headers
from postline.contracts.cloudevents_json import STRUCTURED, Parts, to_structured
from postline.contracts.masking import has_sensitive, masked
from postline.message import JSON_CONTENT_TYPE, Envelope

__all__ = ["STRUCTURED", "EventWriter"]

_Encode: TypeAlias = Callable[[Any], bytes]


class EventWriter:
    """Writes messages of a topic as this service's contract has them, whatever format and version they are stored in.

    The same message gives the same bytes. `reveal` shows sensitive fields.
    """

    def __init__(self, topic: Topic | ForeignTopic, kinds: Iterable[type], *, reveal: bool) -> None:
        self._encoders: dict[type, _Encode] = {kind: _encoder(topic, kind, reveal) for kind in kinds}

    def write(self, message: Any, envelope: Envelope, place: str) -> bytes:
        """A message as an event; `place` names it where its writer gave no id.

        Attributes travel, other headers don't: they are this log's own matter. Raises EncodeError.
        """
        told = {name: value for name, value in envelope.headers.items() if name.startswith("ce_") and name != CALLBACK}
        known = msgspec.structs.replace(
            envelope,
            id=envelope.id or place,
            source=envelope.source or place.partition("/")[0],
            content_type=JSON_CONTENT_TYPE,
            headers=told,
        )
        return to_structured(Parts(to_headers(known), self._encoders[type(message)](message)))[0]


def _encoder(topic: Topic | ForeignTopic, kind: type, reveal: bool) -> _Encode:
    reading = topic.reading_of(topic.type_name_of(kind)).as_json()
    encode, schema = reading.codec.encode, reading.schema
    if reveal or not has_sensitive(schema):
        return encode

    def hiding(message: Any) -> bytes:
        return msgspec.json.encode(masked(schema, msgspec.json.decode(encode(message))))

    return hiding
