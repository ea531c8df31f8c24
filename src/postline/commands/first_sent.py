"""The note of what a request was first sent as, by which a repetition is told from another command under its id."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID, timestamp
from postline.contracts.commands import ticket_key, ticket_partition
from postline.errors import DecodeError, RequestIdReused
from postline.log.needs import TopicSpec
from postline.log.port import Append
from postline.message import JSON_CONTENT_TYPE, Envelope
from postline.runtime.outlet import Route

__all__ = ["FIRST_SENT", "FirstSent", "first_sent_record", "read_first_sent", "request_of_note"]

#: The type of the note; it stands on the topic of tickets, under a key that no other record has.
FIRST_SENT = "postline.FirstSent"
_SUFFIX = b"#first/"
_DIGEST_BYTES = 16


class FirstSent(msgspec.Struct, frozen=True, kw_only=True):
    """What a request id was first used for. Key and value are told by digests: they may be nobody else's matter."""

    #: The command's wire name, and the id of the schema that it was written under; 0 without one.
    command: str
    schema_id: int = 0
    key: bytes = b""
    #: b"" where the value has nothing that is the same in every process, so that it is not compared.
    value: bytes = b""
    #: "" on a topic without priorities.
    priority: str = ""
    sent_ms: int
    #: Of what was asked for somebody behind this client, a digest of all of it, which is compared instead; else b"".
    fingerprint: bytes = b""
    #: Under which ids events are stored, in their order.
    ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, command: Any, append: Append, route: Route, fingerprint: bytes = b"") -> FirstSent:
        """What is noted of a command that is to be sent; its content is told by the fingerprint if there is one."""
        return cls(
            command=route.type_name,
            schema_id=route.schema_id,
            key=_digest(b"-" if append.key is None else b"+" + append.key),
            value=b"" if fingerprint else _digest_of(command),
            priority=route.priority,
            sent_ms=append.envelope.time_ms,
            fingerprint=fingerprint,
        )

    def require_same(self, again: FirstSent, request: tuple[str, str], former_names: tuple[str, ...]) -> None:
        """Raise RequestIdReused unless this was the same command; `request` are the client's id and the request's.

        Values that two versions of the contract wrote are not compared: a repetition may come from a newer client.
        """
        if self.fingerprint and self.fingerprint == again.fingerprint:
            return
        if self.command not in (again.command, *former_names):
            differs = ""
        elif self.fingerprint and again.fingerprint:
            differs = " with another body"
        elif self.key != again.key:
            differs = " with another key"
        elif self.schema_id == again.schema_id and self.value and again.value and self.value != again.value:
            differs = " with another content"
        else:
            return
        client_id, request_id = request
        raise RequestIdReused(
            f"Request id {request_id!r} of client {client_id!r} was first used for a {self.command!r}, at "
            f"{timestamp(self.sent_ms)}, and is used again for a {again.command!r}{differs}: this one was not sent.",
            remedy=f"Give each command an id of its own; app.ticket({request_id!r}) has the outcome of the first.",
            request_id=request_id,
        )


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(FirstSent).decode


def first_sent_record(tickets: TopicSpec, client_id: str, request_id: str, first: FirstSent, note_id: str) -> Append:
    """The record of the note about a command of a request, which is to be sent after it.

    Its key is its own, so that compaction never keeps a later note in place of the first.
    """
    key = ticket_key(client_id, request_id)
    headers = {CLIENT_ID: client_id, REQUEST_ID: request_id}
    envelope = Envelope(
        id=note_id,
        source=client_id,
        type=FIRST_SENT,
        time_ms=first.sent_ms,
        content_type=JSON_CONTENT_TYPE,
        headers=headers,
    )
    partition = ticket_partition(key, tickets.partitions)
    return Append(tickets.name, partition, key + _SUFFIX + note_id.encode(), _encode(first), envelope)


def request_of_note(key: bytes) -> bytes:
    """The ticket's key of the request that a note is about."""
    return key.rpartition(_SUFFIX)[0]


def read_first_sent(value: bytes) -> FirstSent:
    """The note that a record holds. Raises DecodeError."""
    try:
        return _decode(value)
    except msgspec.MsgspecError as error:
        raise DecodeError(
            f"What a request was first sent as can't be read: {error}.",
            remedy="A newer version may have written it: use that one.",
        ) from error


def _digest_of(command: Any) -> bytes:
    """A digest of a command's content, whatever order its sets and dicts have here."""
    try:
        content = msgspec.to_builtins(command, str_keys=True, order="deterministic", enc_hook=_plain)
    except TypeError:  # a set of what has no order
        return b""
    return _digest(_encode(content))


def _plain(value: Any) -> Any:
    """A pydantic model as its fields; anything else that only pydantic can write as text."""
    return dict(value) if hasattr(type(value), "__pydantic_fields__") else str(value)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()
