"""`Acceptances`: notes of what was accepted for whom, on a topic of their own, of requests that are no commands."""

from __future__ import annotations

from postline.commands.accepting import Accepted, accepted_record
from postline.commands.finding import Tickets
from postline.log.needs import TopicSpec
from postline.log.port import Append, Log

__all__ = ["Acceptances"]


class Acceptances:
    """The notes of one service, written beside what was accepted and found again by the request's id. Event loop only.

    As with tickets, the first look at a partition of the topic reads all that is kept of it, later ones what is new.
    """

    def __init__(self, log: Log, spec: TopicSpec, service: str) -> None:
        self._spec, self._service = spec, service
        self._tickets = Tickets(log, None, spec)

    async def find(self, request_id: str) -> Accepted | None:
        """The note of a request, if it was stored before this was called. Raises LogError, DecodeError."""
        return (await self._tickets.standing(self._service, request_id)).accepted

    def record(self, request_id: str, accepted: Accepted) -> Append:
        """The note as a record, to be stored in one step with what was accepted."""
        return accepted_record(self._spec, self._service, request_id, accepted)
