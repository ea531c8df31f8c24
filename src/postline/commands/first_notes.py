"""`FirstNotes`: of all who use an id, in whichever process, one is the first, and all of them learn which."""

from __future__ import annotations

from postline.commands.finding import Tickets
from postline.commands.first_sent import FirstSent, first_sent_record
from postline.log.needs import TopicSpec
from postline.log.port import Log

__all__ = ["FirstNotes"]


class FirstNotes:
    """Notes on one topic what one service's ids are first used for. Event loop only.

    Whoever wants to use an id stores a note, and reads back: the first in the log counts, whoever stored it. That
    takes one commit, shared with all that are stored at that moment, and a reading of what is new.
    """

    def __init__(self, log: Log, spec: TopicSpec, tickets: Tickets, service: str) -> None:
        self._log, self._spec, self._tickets, self._service = log, spec, tickets, service

    async def first(self, request_id: str, sent: FirstSent, note_id: str) -> FirstSent:
        """What an id was first used for: `sent` itself if nobody used it before. Raises LogError, DecodeError.

        `note_id` is another one at each call.
        """
        note = first_sent_record(self._spec, self._service, request_id, sent, note_id)
        (offset,) = await self._log.append((note,))
        return await self._tickets.first_of(self._service, request_id, (offset, sent)) or sent
