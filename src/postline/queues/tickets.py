"""Tickets of tasks: they give what the function returned."""

from __future__ import annotations

from typing import Generic, TypeVar

from postline.commands import Outcome, Ticket, TicketStatus
from postline.queues.definitions import Definition

__all__ = ["TaskTicket"]

R = TypeVar("R")


class TaskTicket(Generic[R]):
    """A task that was stored: await its result, ask how it stands, cancel it, or drop it.

    Nothing has to be done with it; `task.ticket(request_id)` makes another one, in any process of this service.
    """

    __slots__ = ("_definition", "_ticket")

    def __init__(self, ticket: Ticket, definition: Definition) -> None:
        self._ticket, self._definition = ticket, definition

    @property
    def request_id(self) -> str:
        """The id under which the outcome is found again."""
        return self._ticket.request_id

    async def outcome(self, timeout: float | None = None) -> R:
        """What the function returned, as soon as it has. May be asked often, and given up at any time.

        Raises HandlerFault once its attempts have failed, RequestTimeout if it expired, Refused if it was cancelled;
        RequestTimeout also after `timeout` seconds, with the ticket open.
        """
        value: R = self._definition.value_of(await self._ticket.outcome(timeout))
        return value

    async def result(self, timeout: float | None = None) -> R:
        """As `outcome`, in the word of task queues."""
        return await self.outcome(timeout)

    async def ended(self, timeout: float | None = None) -> Outcome:
        """Every outcome returned and none raised; see `Ticket.ended`. RequestTimeout after `timeout` seconds."""
        return await self._ticket.ended(timeout)

    async def status(self) -> TicketStatus:
        """How it stands, without waiting for anything but the log."""
        return await self._ticket.status()

    async def cancel(self) -> None:
        """Ask that it not be begun; see `Ticket.cancel`."""
        await self._ticket.cancel()

    def __repr__(self) -> str:
        return f"TaskTicket({self.request_id!r})"
