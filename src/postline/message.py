"""The envelope around a message: who said it, when, and what it belongs to (DESIGN §7)."""

from __future__ import annotations

import msgspec

__all__ = ["ENCODING_ERRORS", "JSON_CONTENT_TYPE", "UNREADABLE", "Envelope"]

JSON_CONTENT_TYPE = "application/json"

#: What msgspec raises for bytes that it can't read: of another form or type, no UTF-8, or nested too deep.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

#: How text of an envelope is encoded: what others wrote that is no UTF-8 stands in it as lone surrogates.
ENCODING_ERRORS = "surrogatepass"


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """CloudEvents 1.0 attributes of one message, plus Postline's extensions.

    Engines store it in their own way (packed in the file, as `ce_…` headers on Kafka) and
    give it back equal.
    """

    #: Unique within `source`; (source, id) is the message's identity. "" if the record is foreign.
    id: str = ""
    #: The service that published it.
    source: str = ""
    #: The stable wire name, e.g. "shop.OrderPlaced"; "" if the record is foreign.
    type: str = ""
    #: Wall-clock milliseconds at which the publisher made it.
    time_ms: int = 0
    content_type: str = JSON_CONTENT_TYPE
    #: The conversation, kept along the whole chain; "" means that this message began one.
    correlation_id: str = ""
    #: Id of the message whose handling caused this one; "" if none did.
    causation_id: str = ""
    #: Everything else: `traceparent`, `tracestate`, other CloudEvents extensions, users' headers.
    headers: dict[str, str] = {}

    @property
    def conversation(self) -> str:
        """The correlation id in force: the stored one, else the message's own id."""
        return self.correlation_id or self.id
