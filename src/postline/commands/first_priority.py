"""The note of which priority a request was first sent with, by which a repetition goes where the first one lies."""

from __future__ import annotations

from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID
from postline.contracts.commands import ticket_key, ticket_partition
from postline.log.needs import TopicSpec
from postline.log.port import Append
from postline.message import Envelope

__all__ = ["PRIORITY", "priority_note", "request_of_note"]

#: The type of the note; it stands on the topic of tickets, under a key that no other record has.
PRIORITY = "postline.Priority"
_SUFFIX = b"#priority/"


def priority_note(tickets: TopicSpec, command: Append, priority: str, note_id: str) -> Append:
    """The record of the note about a command that is to be sent.

    Its key is its own, so that compaction never keeps a later note in place of the first.
    """
    told = command.envelope
    key = ticket_key(told.source, told.id)
    headers = {CLIENT_ID: told.source, REQUEST_ID: told.id}
    envelope = Envelope(id=note_id, source=told.source, type=PRIORITY, time_ms=told.time_ms, headers=headers)
    partition = ticket_partition(key, tickets.partitions)
    return Append(tickets.name, partition, key + _SUFFIX + note_id.encode(), priority.encode(), envelope)


def request_of_note(key: bytes) -> bytes:
    """The ticket's key of the request that a note is about."""
    return key.rpartition(_SUFFIX)[0]
