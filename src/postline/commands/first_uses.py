"""Each request id means one command: the first one that its client noted, wherever the next one is sent from."""

from __future__ import annotations

from typing import Any, NamedTuple

from postline.commands.finding import Tickets
from postline.commands.first_notes import FirstNotes
from postline.commands.first_sent import FirstSent
from postline.commands.tickets import Outcome
from postline.contracts.commands import CommandTopic
from postline.contracts.priorities import NORMAL, priority_in
from postline.log.needs import TopicSpec
from postline.log.port import Append, Log
from postline.runtime.outlet import Outlet

__all__ = ["FirstUses", "Use"]


class Use(NamedTuple):
    """An id that may have been used before, and the command that it is to be used for now."""

    request_id: str
    sent: FirstSent
    #: The priority that its sender asks for; "" on a topic without any.
    priority: str


class FirstUses:
    """Knows and notes what this client's ids were first used for, on one command topic. Event loop only.

    A note is stored before its command, so that a command whose id another one has is told before it is stored.
    """

    def __init__(self, topic: CommandTopic, kept: TopicSpec, around: tuple[Outlet, Log, Tickets]) -> None:
        self._topic = topic
        self._outlet, log, self._tickets = around
        self._notes = FirstNotes(log, kept, self._tickets, self._outlet.service)

    def use(self, command: Any, append: Append, priority: str | None, fingerprint: bytes = b"") -> Use:
        """A command as it is to be sent, whose record this is. Raises UsageError for a priority that it can't have.

        `fingerprint` tells it from others as whoever asked for it sees it; without one its content does.
        """
        request_id = append.envelope.id
        asked = route = self._outlet.command_route(command, priority)
        if (said := priority_in(request_id)) in self._topic.commands.siblings:  # an id that was made for that one
            route = self._outlet.command_route(command, said)
        return Use(request_id, FirstSent.of(command, append, route, fingerprint), asked.priority)

    async def before(self, use: Use) -> tuple[FirstSent | None, Outcome | None]:
        """What the id was first used for, and the outcome of that; each None if nothing is known.

        Raises RequestIdReused if it was another command, and LogUnavailable.
        """
        first, outcome = await self._tickets.before(self._outlet.service, use.request_id)
        return self._same(first, use), outcome

    async def note(self, use: Use) -> FirstSent:
        """Note the use of an id; what it was first used for, `use.sent` itself if this was the first.

        Raises RequestIdReused if somebody noted another command meanwhile, and LogError.
        """
        first = await self._notes.first(use.request_id, use.sent, self._outlet.fresh_id())
        self._same(first, use)
        return first

    def other_priority(self, first: FirstSent, use: Use) -> str | None:
        """The priority that the command has to be sent with, since its first one was; None for the one asked for."""
        priority = first.priority or NORMAL
        return None if not self._topic.commands.siblings or priority == use.priority else priority

    def _same(self, first: FirstSent | None, use: Use) -> FirstSent | None:
        if first is not None and first is not use.sent:
            former = self._topic.commands.reading_of(use.sent.command).aliases
            first.require_same(use.sent, (self._outlet.service, use.request_id), former)
        return first
