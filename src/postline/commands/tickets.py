"""Tickets: what a client holds of a command that it has sent, and how outcomes are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from postline.commands.expected import Expected
from postline.contracts.replies import OUTCOME_GONE, Cancelled, Fault, ReplyOutcome, TimedOut
from postline.errors import HandlerFault, OutcomeError, Refused, RequestTimeout
from postline.message import Envelope

__all__ = ["Desk", "Outcome", "Ticket", "TicketState", "TicketStatus"]

#: How a request stands. "open": it waits, is being handled, or was promised a later reply.
TicketState = Literal["open", "succeeded", "refused", "failed", "timed-out", "cancelled"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and the reply that says so."""

    request_id: str
    outcome: ReplyOutcome
    reply: Any
    envelope: Envelope

    @property
    def state(self) -> TicketState:
        """The ticket's state that this makes."""
        if isinstance(self.reply, Cancelled):
            return "cancelled"
        return _STATES[self.outcome]

    @property
    def is_gone(self) -> bool:
        """Whether it only tells that the outcome is not kept any more."""
        return isinstance(self.reply, Fault) and self.reply.error == OUTCOME_GONE

    def value(self) -> Any:
        """The reply of a success. Raises Refused, HandlerFault or RequestTimeout for the other outcomes."""
        if self.outcome is ReplyOutcome.SUCCESS:
            return self.reply
        raise self._error()

    def _error(self) -> OutcomeError:
        if self.outcome is ReplyOutcome.REFUSAL:
            return Refused(self.reply, request_id=self.request_id)
        if isinstance(self.reply, TimedOut):
            return RequestTimeout(
                self.reply.said or "The command expired.",
                remedy="Send it anew, under another id, with more time.",
                request_id=self.request_id,
            )
        fault = self.reply if isinstance(self.reply, Fault) else Fault("unknown", repr(self.reply))
        return HandlerFault(
            f"The service could not do it: {_sentence(f'{fault.error}: {fault.said}')}",
            remedy="Send it anew under another id, if it may be done twice; CommandTopic(tickets_kept=) says how long."
            if self.is_gone
            else "It lies among the service's dead letters; its operators can mend and redrive it.",
            request_id=self.request_id,
        )


def _sentence(said: str) -> str:
    """What an exception said, so that another sentence can follow."""
    said = said.rstrip()
    return said if said.endswith((".", "!", "?")) else f"{said}."


_STATES: dict[ReplyOutcome, TicketState] = {
    ReplyOutcome.SUCCESS: "succeeded",
    ReplyOutcome.REFUSAL: "refused",
    ReplyOutcome.FAULT: "failed",
    ReplyOutcome.TIMEOUT: "timed-out",
}


@dataclass(frozen=True)
class TicketStatus:
    """How a request stands now; `notes` is the last that its handler told of its progress."""

    request_id: str
    state: TicketState
    outcome: Outcome | None = None
    note: str = ""


class Desk(Protocol):
    """Whoever waits, looks and asks for a ticket's holder."""

    async def wait(self, ticket: Ticket, timeout: float | None) -> Outcome:
        """The outcome, once there is one. Raises RequestTimeout."""

    async def look(self, ticket: Ticket) -> TicketStatus:
        """How the request stands."""

    async def cancel(self, ticket: Ticket) -> None:
        """Ask that the command not be begun."""


class Ticket:
    """A request that was stored: await its outcome, ask how it stands, cancel it, or drop it.

    Nothing has to be done with it; `App.ticket` makes another one at any time, in any process of this client.
    """

    __slots__ = ("_desk", "expected", "request_id")

    def __init__(self, request_id: str, desk: Desk, expected: Expected[Outcome] | None = None) -> None:
        self.request_id = request_id
        self._desk = desk
        #: Resolved by the reply, as long as somebody holds the ticket; None for one that was found again.
        self.expected = expected

    async def outcome(self, timeout: float | None = None) -> Any:
        """The reply, as soon as there is one. May be asked often, and given up at any time.

        Raises Refused, HandlerFault and RequestTimeout; the latter also after `timeout` seconds, with the ticket open;
        LogUnavailable if the app stops meanwhile, which leaves it open, too.
        """
        return (await self._desk.wait(self, timeout)).value()

    async def ended(self, timeout: float | None = None) -> Outcome:
        """As `outcome`, with every outcome returned and none raised; RequestTimeout after `timeout` seconds."""
        return await self._desk.wait(self, timeout)

    async def status(self) -> TicketStatus:
        """How it stands, without waiting for anything but the log."""
        return await self._desk.look(self)

    async def cancel(self) -> None:
        """Ask that the command not be begun: durable when this returns. If it was too late, its own outcome comes.

        Else the outcome is `Cancelled`, a refusal.
        """
        await self._desk.cancel(self)

    def __repr__(self) -> str:
        return f"Ticket({self.request_id!r})"
