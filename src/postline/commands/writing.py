"""How an outcome becomes records: the reply to the client, and the ticket that stays."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from postline.contracts import Partitioner
from postline.contracts.cloudevents import CALLBACK, CLIENT_ID, OUTCOME, REQUEST_ID, TRACE
from postline.contracts.commands import CommandTopic, ticket_key, ticket_partition
from postline.contracts.replies import BUILT_IN, ReplyOutcome, built_in_name
from postline.errors import MessageTooLarge
from postline.ids import derived_id
from postline.log.needs import TopicSpec
from postline.log.port import Append
from postline.message import JSON_CONTENT_TYPE, Envelope
from postline.runtime.outlet import Outlet

__all__ = ["GONE_SUFFIX", "PROGRESS", "ReplyWriter", "Written", "decode_written", "encode_written"]

#: The type of a note that tells how far a command is; it stands on the topic of tickets beside the outcome.
PROGRESS = "postline.Progress"
#: Behind the key of a ticket, that of what stands in for an outcome that is not kept any more.
GONE_SUFFIX = b"#gone"


class Written(NamedTuple):
    """A reply as bytes, with how it ended."""

    type_name: str
    value: bytes
    flags: int
    content_type: str
    outcome: ReplyOutcome


#: The bytes of it, as state keeps them, and back.
encode_written = msgspec.msgpack.Encoder().encode
decode_written = msgspec.msgpack.Decoder(Written).decode


class ReplyWriter:
    """Writes the outcomes of one command topic. Event loop only, and the threads of its handlers."""

    def __init__(self, topic: CommandTopic, outlet: Outlet, replies: TopicSpec, tickets: TopicSpec) -> None:
        self.topic = topic
        self._outlet = outlet
        self._replies, self._tickets = replies.name, tickets.name
        self._reply_place = Partitioner(replies.partitions).partition_of
        self._ticket_partitions = tickets.partitions
        #: How long outcomes are kept; None for ever.
        self.tickets_kept_ms = tickets.retention_ms

    def written(self, reply: Any, outcome: ReplyOutcome) -> Written:
        """A reply's bytes. Raises EncodeError and MessageTooLarge."""
        if (name := built_in_name(type(reply))) is not None:
            return Written(name, BUILT_IN[name].encode(reply), 0, JSON_CONTENT_TYPE, outcome)
        route = self._outlet.route(reply)
        value = route.encode(reply)
        if len(value) > route.bytes_max:
            raise MessageTooLarge(
                f"A {route.type_name} of {len(value)} bytes is over the limit of {route.bytes_max} of {route.topic!r}.",
                remedy="Reply with a reference to it, or raise message_bytes_max on the topic.",
            )
        return Written(route.type_name, value, route.flags, route.content_type, outcome)

    def records(self, cause: Envelope, written: Written, now_ms: int, *, ticket_only: bool = False) -> list[Append]:
        """The reply and the ticket; none for a command that does not say who asked."""
        client, request = cause.headers.get(CLIENT_ID, ""), cause.headers.get(REQUEST_ID, "")
        if not client or not request:
            return []
        envelope = self.envelope(cause, written, now_ms)
        key = ticket_key(client, request)
        ticket = Append(
            self._tickets, ticket_partition(key, self._ticket_partitions), key, written.value, envelope, written.flags
        )
        if ticket_only:
            return [ticket]
        to = client.encode("utf-8", "surrogatepass")
        return [Append(self._replies, self._reply_place(to), to, written.value, envelope, written.flags), ticket]

    def gone(self, cause: Envelope, written: Written, now_ms: int) -> list[Append]:
        """What tells that an outcome is not kept any more; the ticket's key is one of its own, as for `progress`."""
        found = self.records(cause, written, now_ms)
        for ticket in found[1:]:
            assert ticket.key is not None, "tickets have keys"
            ticket.key += GONE_SUFFIX
        return found

    def envelope(self, cause: Envelope, written: Written, now_ms: int) -> Envelope:
        """What is said about the reply to a command."""
        told = cause.headers
        headers = {CLIENT_ID: told[CLIENT_ID], REQUEST_ID: told[REQUEST_ID], OUTCOME: written.outcome.value}
        for name in (*TRACE, CALLBACK):
            if name in told:
                headers[name] = told[name]
        return Envelope(
            id=derived_id("reply", cause.source, cause.id, written.type_name),
            source=self._outlet.service,
            type=written.type_name,
            time_ms=now_ms,
            content_type=written.content_type,
            correlation_id=cause.correlation_id or cause.id,
            causation_id=cause.id,
            headers=headers,
        )

    def progress(self, cause: Envelope, note: str, now_ms: int) -> Append:
        """The record that tells how far a command is."""
        client, request = cause.headers.get(CLIENT_ID, ""), cause.headers.get(REQUEST_ID, "")
        key = ticket_key(client, request)
        envelope = Envelope(
            id=self._outlet.fresh_id(),
            source=self._outlet.service,
            type=PROGRESS,
            time_ms=now_ms,
            correlation_id=cause.correlation_id or cause.id,
            causation_id=cause.id,
            headers={CLIENT_ID: client, REQUEST_ID: request},
        )
        # A key of its own: a late note of a dead owner must never hide an outcome from compaction.
        return Append(
            self._tickets, ticket_partition(key, self._ticket_partitions), key + b"#progress", note.encode(), envelope
        )
