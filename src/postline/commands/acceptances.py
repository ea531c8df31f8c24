"""`Acceptances`: notes of what was accepted for whom, on a topic of their own, of requests that are no commands."""

from __future__ import annotations

from postline.commands.accepting import Accepted, accepted_record
from postline.commands.finding import Tickets
from postline.commands.first_notes import FirstNotes
from postline.commands.first_sent import FirstSent
from postline.ids import random_bytes
from postline.log.needs import TopicSpec
from postline.log.port import Append, Log

__all__ = ["Acceptances"]


class Acceptances:
    """The notes of one service: which request was the first under its id, and beside what was accepted, of that.

    As with tickets, the first look at a partition of the topic reads all that is kept of it, later ones what is new.
    Event loop only.
    """

    def __init__(self, log: Log, spec: TopicSpec, service: str) -> None:
        self._spec, self._service = spec, service
        self._tickets = Tickets(log, None, spec)
        self._firsts = FirstNotes(log, spec, self._tickets, service)

    async def find(self, request_id: str) -> Accepted | None:
        """The note of a request, if it was stored before this was called. Raises LogError, DecodeError."""
        return (await self._tickets.standing(self._service, request_id)).accepted

    async def first(self, request_id: str, sent: FirstSent) -> FirstSent:
        """What the first request of this id is stored as, whichever process has it: `sent`, if it is this one.

        Raises RequestIdReused if that one had another fingerprint, LogError and DecodeError.
        """
        first = await self._firsts.first(request_id, sent, random_bytes(16).hex())
        first.require_same(sent, (self._service, request_id), ())
        return first

    def record(self, request_id: str, accepted: Accepted) -> Append:
        """The note as a record, to be stored in one step with what was accepted."""
        return accepted_record(self._spec, self._service, request_id, accepted)
