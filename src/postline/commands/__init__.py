"""Commands and replies: serving them, sending them, and finding their outcomes again (decision 0011)."""

from __future__ import annotations

from postline.commands.acceptances import Acceptances
from postline.commands.accepting import Accepted, Standing
from postline.commands.answering import ServiceAnswering, Times
from postline.commands.claims import Claims
from postline.commands.first_sent import FirstSent
from postline.commands.requests import Leaving, Requests
from postline.commands.serving import ReplySubscription, ServeOptions, Serving, serving
from postline.commands.tickets import Outcome, Ticket, TicketStatus
from postline.commands.tokens import ReplyToken
from postline.commands.writing import ReplyWriter

__all__ = [
    "Acceptances",
    "Accepted",
    "Claims",
    "FirstSent",
    "Leaving",
    "Outcome",
    "ReplySubscription",
    "ReplyToken",
    "ReplyWriter",
    "Requests",
    "ServeOptions",
    "ServiceAnswering",
    "Serving",
    "Standing",
    "Ticket",
    "TicketStatus",
    "Times",
    "serving",
]
