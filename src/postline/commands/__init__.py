"""Commands and replies: serving them, sending them, and finding their outcomes again (decision 0011)."""

from __future__ import annotations

from postline.commands.answering import ServiceAnswering
from postline.commands.claims import Claims
from postline.commands.requests import Leaving, Requests
from postline.commands.serving import ReplySubscription, Serving
from postline.commands.tickets import Outcome, Ticket, TicketStatus
from postline.commands.tokens import ReplyToken
from postline.commands.writing import ReplyWriter

__all__ = [
    "Claims",
    "Leaving",
    "Outcome",
    "ReplySubscription",
    "ReplyToken",
    "ReplyWriter",
    "Requests",
    "ServiceAnswering",
    "Serving",
    "Ticket",
    "TicketStatus",
]
