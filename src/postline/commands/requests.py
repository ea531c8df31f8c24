"""A client's requests: sending, waiting for replies, and finding outcomes again after a restart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from postline.clock import Clock
from postline.commands.accepting import Accepted, Standing, accepted_record
from postline.commands.finding import Tickets
from postline.commands.first_sent import FirstSent
from postline.commands.first_uses import FirstUses, Use
from postline.commands.inbox import Inbox
from postline.commands.reading import ReplyReader
from postline.commands.tickets import Outcome, Ticket, TicketStatus
from postline.commands.watching import Watching
from postline.contracts.cloudevents import CALLBACK
from postline.contracts.commands import CommandTopic
from postline.errors import BackPressure, RequestTimeout, UnknownSubscription
from postline.log.needs import TopicSpec
from postline.log.port import Append, Log
from postline.message import Envelope
from postline.runtime.context import milliseconds_of
from postline.runtime.control import ControlOp, control_record
from postline.runtime.outlet import Outlet
from postline.runtime.plan import CONTROL_SUFFIX
from postline.runtime.versions import SchemaSource

__all__ = ["Leaving", "Requests"]


class Leaving(NamedTuple):
    """When a command leaves, and who keeps it until then."""

    at_ms: int
    put_off: Callable[[Append], Awaitable[object]]


#: Stores records, all or none.
Store = Callable[[Sequence[Append]], Awaitable[object]]


class Requests:
    """What one app sends to one command topic, and hears of it. Event loop only.

    Any number of requests may be under way; one reader hears all their replies.
    """

    def __init__(
        self,
        topic: CommandTopic,
        specs: tuple[Sequence[TopicSpec], TopicSpec, TopicSpec],
        around: tuple[Outlet, Log, Clock, SchemaSource],
    ) -> None:
        outlet, log, clock, schemas = around
        commands, replies, tickets = specs
        self._topic, self._outlet, self._log, self.clock, self._commands = topic, outlet, log, clock, commands
        self._kept = tickets
        reader = ReplyReader(topic, schemas)
        self._tickets = Tickets(log, reader, tickets)
        self._uses = FirstUses(topic, tickets, (outlet, log, self._tickets))
        self._inbox = Inbox(outlet.service, log, clock, reader, replies, self._find)
        self._watching = Watching(outlet.service, self._tickets, tickets.name, (log, clock))

    async def send(
        self,
        command: Any,
        request_id: str | None,
        timeout: timedelta | float | None,
        leaving: Leaving | None = None,
        priority: str | None = None,
    ) -> Ticket:
        """Store a command, or have it leave later; its ticket. Durable when this returns. Raises as `App.send`."""
        make = partial(self._made, command, request_id, (timeout, leaving))
        append, is_own = make(priority)
        # Replies are listened to first: one that comes at once must not be missed.
        if not self._inbox.listening:
            await self._inbox.open()
        ticket = Ticket(append.envelope.id, self, self._inbox.expect(append.envelope.id))
        if request_id is not None:
            use = self._uses.use(command, append, priority)
            first, outcome = await self._uses.before(use)
            if outcome is not None:
                self._inbox.take(outcome)
                return ticket
            first = first or await self._uses.note(use)
            is_own = first is not use.sent  # nobody sent the first one before, whose outcome there could be
            append = self._as_first(first, use, append, make)
        if leaving is None:
            await self._log.append((append,))
        else:
            await leaving.put_off(append)
        if is_own:
            await self._recall(ticket)
        return ticket

    def _as_first(
        self, first: FirstSent, use: Use, append: Append, make: Callable[[str], tuple[Append, bool]]
    ) -> Append:
        """The command as it is to be stored: with the priority that its request was first sent with."""
        priority = self._uses.other_priority(first, use)
        return append if priority is None else make(priority)[0]

    async def send_many(
        self,
        commands: Iterable[Any],
        timeout: timedelta | float | None,
        store: Store,
        together: int,
        priority: str | None = None,
    ) -> list[Ticket]:
        """Store commands, so many with one call of `store`; their tickets. Raises as `App.send_many`."""
        await self._inbox.open()
        tickets: list[Ticket] = []
        rest = iter(commands)
        while some := list(islice(rest, together)):
            for command in some:
                self._topic.spec_of(type(command))
            made = [self._made(command, None, (timeout, None), priority) for command in some]
            stored = [Ticket(each.envelope.id, self, self._inbox.expect(each.envelope.id)) for each, _ in made]
            try:
                await store([append for append, _ in made])
            except BackPressure as error:
                error.published = len(tickets)
                raise
            for ticket, (_, is_own) in zip(stored, made, strict=True):
                if is_own:
                    await self._recall(ticket)
            tickets += stored
        return tickets

    def _made(
        self,
        command: Any,
        request_id: str | None,
        when: tuple[timedelta | float | None, Leaving | None],
        priority: str | None,
    ) -> tuple[Append, bool]:
        """The record, and whether its id may have been used before."""
        timeout, leaving = when
        if request_id is None:
            request_id = self._outlet.own_id(command)
        leaves_ms = self.clock.now_ms() if leaving is None else leaving.at_ms
        expires_ms = None if timeout is None else leaves_ms + milliseconds_of(timeout)
        append = self._outlet.sent(command, request_id, expires_ms, leaves_ms, priority)
        return append, request_id is not None

    async def accept(self, command: Any, request_id: str, accepted: Accepted, priority: str | None = None) -> Accepted:
        """Store a command for somebody behind this client, and the note of it, in one step; the note as stored.

        Durable when this returns. The reply carries the note's `callback_url`. A request that has a fingerprint may
        come again: it is stored as it first came, be it to another process at this moment, and its note says when that
        was. Raises RequestIdReused, with nothing stored, if that one had another fingerprint, and as `App.send`.
        """
        make = partial(self._made, command, request_id, (None, None))
        append, _ = make(priority)
        if accepted.fingerprint:
            use = self._uses.use(command, append, priority, accepted.fingerprint)
            first = await self._uses.note(use)
            append = self._as_first(first, use, append, make)
            accepted = msgspec.structs.replace(accepted, accepted_ms=first.sent_ms)
        if accepted.callback_url:
            append.envelope.headers[CALLBACK] = accepted.callback_url
        await self._log.append((append, accepted_record(self._kept, self._outlet.service, request_id, accepted)))
        return accepted

    async def standing(self, request_id: str) -> Standing:
        """All that the log says of a request now. Raises LogUnavailable."""
        return await self._tickets.standing(self._outlet.service, request_id)

    async def changed(self, request_id: str, version: int, seconds: float) -> Standing:
        """How a request stands once there is more to tell than `version`, or after `seconds`. Raises LogUnavailable."""
        return await self._watching.changed(request_id, version, seconds)

    @property
    def kept_ms(self) -> int | None:
        """How long it is known what became of a request; None for as long as the log stands."""
        return self._kept.retention_ms

    def fresh_id(self) -> str:
        """A new request id, after all before it from this client in order of time."""
        return self._outlet.fresh_id()

    async def _recall(self, ticket: Ticket) -> None:
        """It may be the repetition of a request that was answered before, perhaps to a process that is gone."""
        if (outcome := await self._find(ticket.request_id)) is not None:
            self._inbox.take(outcome)

    async def _find(self, request_id: str) -> Outcome | None:
        outcome, _ = await self._tickets.find(self._outlet.service, request_id)
        return outcome

    def ticket(self, request_id: str) -> Ticket:
        """The ticket of a request that this client sent before."""
        return Ticket(request_id, self)

    async def wait(self, ticket: Ticket, timeout: float | None) -> Outcome:
        """The outcome, once there is one. Raises RequestTimeout after `timeout` seconds."""
        if ticket.expected is None:
            await self._inbox.open()
            ticket.expected = self._inbox.expect(ticket.request_id)
            await self._recall(ticket)
        outcome = await ticket.expected.wait(self.clock, timeout)
        if outcome is not None:
            return outcome
        raise RequestTimeout(
            f"Request {ticket.request_id} to {self._topic.name} has no outcome after {timeout:g} s.",
            remedy="The ticket stays open: `await app.ticket(request_id).outcome()` finds what becomes of it.",
            request_id=ticket.request_id,
        )

    async def look(self, ticket: Ticket) -> TicketStatus:
        """How the request stands. Raises LogUnavailable."""
        outcome, note = await self._tickets.find(self._outlet.service, ticket.request_id)
        return TicketStatus(ticket.request_id, "open" if outcome is None else outcome.state, outcome, note)

    async def cancel(self, ticket: Ticket) -> None:
        """Ask that the command not be begun; durable when this returns."""
        op = ControlOp(op="cancel", client=self._outlet.service, request=ticket.request_id)
        envelope = Envelope(id=self._outlet.fresh_id(), source=self._outlet.service, time_ms=self.clock.now_ms())
        # Its priority tells the topic, its key the partition, and perhaps a rule who serves it: all owners are asked.
        there = await self._log.subscriptions()
        partitions = {each.name: each.partitions for each in self._commands}
        owners = [(info.name, partitions[info.topic]) for info in there if info.topic in partitions]
        if not owners:
            raise UnknownSubscription(
                f"Nobody has served {self._topic.commands.name!r} yet, so nobody can be told of the cancelling.",
                remedy="Send commands with a timeout: one that expires is not run.",
            )
        await self._log.append(
            [
                control_record(name + CONTROL_SUFFIX, each, op, envelope)
                for name, number in owners
                for each in range(number)
            ]
        )

    async def close(self) -> None:
        """Listen to no more replies. Idempotent."""
        await self._watching.close()
        await self._inbox.close()
