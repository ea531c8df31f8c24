"""A client's requests: sending, waiting for replies, and finding outcomes again after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple

from postline.clock import Clock
from postline.commands.finding import Tickets
from postline.commands.inbox import Inbox
from postline.commands.reading import ReplyReader
from postline.commands.tickets import Outcome, Ticket, TicketStatus
from postline.contracts.commands import COMMANDS, CommandTopic
from postline.errors import RequestTimeout
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


class Requests:
    """What one app sends to one command topic, and hears of it. Event loop only.

    Any number of requests may be under way; one reader hears all their replies.
    """

    def __init__(
        self,
        topic: CommandTopic,
        specs: tuple[TopicSpec, TopicSpec, TopicSpec],
        around: tuple[Outlet, Log, Clock, SchemaSource],
    ) -> None:
        outlet, log, clock, schemas = around
        commands, replies, tickets = specs
        self._topic, self._outlet, self._log, self._clock, self._commands = topic, outlet, log, clock, commands
        reader = ReplyReader(topic, schemas)
        self._inbox = Inbox(outlet.service, log, clock, reader, replies)
        self._tickets = Tickets(log, reader, tickets)
        #: The control topic that reaches the owners of the commands' partitions.
        self._control = commands.name.removesuffix(COMMANDS) + CONTROL_SUFFIX

    async def send(
        self,
        command: Any,
        request_id: str | None,
        timeout: timedelta | float | None,
        leaving: Leaving | None = None,
    ) -> Ticket:
        """Store a command, or have it leave later; its ticket. Durable when this returns. Raises as `App.send`."""
        leaves_ms = self._clock.now_ms() if leaving is None else leaving.at_ms
        expires_ms = None if timeout is None else leaves_ms + milliseconds_of(timeout)
        append = self._outlet.sent(command, request_id or self._outlet.fresh_id(), expires_ms)
        # Replies are listened to first: one that comes at once must not be missed.
        await self._inbox.open()
        ticket = Ticket(append.envelope.id, self, self._inbox.expect(append.envelope.id))
        if leaving is None:
            await self._log.append((append,))
        else:
            await leaving.put_off(append)
        if request_id is not None:
            await self._recall(ticket)
        return ticket

    async def _recall(self, ticket: Ticket) -> None:
        """It may be the repetition of a request that was answered before, perhaps to a process that is gone."""
        outcome, _ = await self._tickets.find(self._outlet.service, ticket.request_id)
        if outcome is not None:
            self._inbox.take(outcome)

    def ticket(self, request_id: str) -> Ticket:
        """The ticket of a request that this client sent before."""
        return Ticket(request_id, self)

    async def wait(self, ticket: Ticket, timeout: float | None) -> Outcome:
        """The outcome, once there is one. Raises RequestTimeout after `timeout` seconds."""
        if ticket.expected is None:
            await self._inbox.open()
            ticket.expected = self._inbox.expect(ticket.request_id)
            await self._recall(ticket)
        if timeout is None or ticket.expected.done():
            return await asyncio.shield(ticket.expected)
        return await self._within(timeout, ticket, ticket.expected)

    async def _within(self, timeout: float, ticket: Ticket, expected: asyncio.Future[Outcome]) -> Outcome:
        waiter = asyncio.get_running_loop().create_future()

        def go_on(_: object = None) -> None:
            if not waiter.done():
                waiter.set_result(None)

        expected.add_done_callback(go_on)
        timer = self._clock.call_later(timeout, go_on)
        try:
            await waiter
        finally:
            timer.cancel()
            expected.remove_done_callback(go_on)
        if expected.done():
            return expected.result()
        raise RequestTimeout(
            f"Request {ticket.request_id} to {self._topic.name} has no outcome after {timeout:g} s.",
            remedy="The ticket stays open: `await app.ticket(Command, request_id).outcome()` finds what becomes of it.",
            request_id=ticket.request_id,
        )

    async def look(self, ticket: Ticket) -> TicketStatus:
        """How the request stands. Raises LogUnavailable."""
        outcome, note = await self._tickets.find(self._outlet.service, ticket.request_id)
        return TicketStatus(ticket.request_id, "open" if outcome is None else outcome.state, outcome, note)

    async def cancel(self, ticket: Ticket) -> None:
        """Ask that the command not be begun; durable when this returns."""
        op = ControlOp(op="cancel", client=self._outlet.service, request=ticket.request_id)
        envelope = Envelope(id=self._outlet.fresh_id(), source=self._outlet.service, time_ms=self._clock.now_ms())
        # Only its key tells which partition the command lies in, so all owners are asked.
        places = range(self._commands.partitions)
        await self._log.append([control_record(self._control, each, op, envelope) for each in places])

    async def close(self) -> None:
        """Listen to no more replies. Idempotent."""
        await self._inbox.close()
