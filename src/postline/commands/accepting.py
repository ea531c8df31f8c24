"""What was accepted for whom: a note beside a command, in the same append, by which its request is known again."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from postline.commands.tickets import Outcome
from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID
from postline.contracts.commands import ticket_key, ticket_partition
from postline.errors import DecodeError
from postline.ids import derived_id
from postline.log.needs import TopicSpec
from postline.log.port import Append
from postline.message import JSON_CONTENT_TYPE, Envelope

__all__ = ["ACCEPTED", "ACCEPTED_SUFFIX", "Accepted", "Standing", "accepted_record", "read_accepted"]

#: The type of the note; it stands on the topic of tickets under a key of its own, beside the outcome.
ACCEPTED = "postline.Accepted"
ACCEPTED_SUFFIX = b"#accepted"


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it was accepted for somebody behind this client."""

    #: The command's wire name.
    command: str
    #: Who asked, as whoever accepted it calls them.
    principal: str
    #: A digest of what was asked, by which a changed repetition is told; b"" of what nobody repeats.
    fingerprint: bytes = b""
    accepted_ms: int = 0
    #: Where the reply shall be posted; "" for nowhere.
    callback_url: str = ""


class Standing(NamedTuple):
    """All that the log says of a request; nothing at all of one that it does not know."""

    accepted: Accepted | None
    outcome: Outcome | None
    note: str
    #: Grows with everything that is said of the request; -1 if nothing is.
    version: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Accepted).decode


def accepted_record(tickets: TopicSpec, client_id: str, request_id: str, accepted: Accepted) -> Append:
    """The record of the note."""
    key = ticket_key(client_id, request_id)
    envelope = Envelope(
        id=derived_id("accepted", client_id, request_id),
        source=client_id,
        type=ACCEPTED,
        time_ms=accepted.accepted_ms,
        content_type=JSON_CONTENT_TYPE,
        headers={CLIENT_ID: client_id, REQUEST_ID: request_id},
    )
    partition = ticket_partition(key, tickets.partitions)
    return Append(tickets.name, partition, key + ACCEPTED_SUFFIX, _encode(accepted), envelope)


def read_accepted(value: bytes) -> Accepted:
    """The note that a record holds. Raises DecodeError."""
    try:
        return _decode(value)
    except msgspec.MsgspecError as error:
        raise DecodeError(
            f"What was accepted can't be read: {error}.", remedy="A newer version may have written it: use that one."
        ) from error
