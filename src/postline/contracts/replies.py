"""What a command can end in besides the replies that its contract declares, and how outcomes are named."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from postline.contracts.kinds import Kind

__all__ = [
    "BUILT_IN",
    "OUTCOME_GONE",
    "AlreadyUnderWay",
    "Cancelled",
    "Done",
    "Fault",
    "ReplyOutcome",
    "TimedOut",
    "built_in_name",
]


class ReplyOutcome(enum.Enum):
    """How a command ended, as its reply says in `ce_outcome`: four that are never merged."""

    SUCCESS = "success"
    #: A business decision of the service: final, never retried.
    REFUSAL = "refusal"
    #: The service could not do it: its attempts failed, or nobody there handles such a command.
    FAULT = "fault"
    #: It expired before anybody began it, or its later reply never came.
    TIMEOUT = "timeout"


class Done(msgspec.Struct, frozen=True):
    """The success of a command that declares no reply."""


#: The error of a fault that answers the repetition of a request which was handled so long ago that nobody knows how.
OUTCOME_GONE = "OutcomeGone"


class Fault(msgspec.Struct, frozen=True):
    """The service could not do it; the command lies among its dead letters, if it was tried."""

    #: The exception's class, without its module.
    error: str
    #: What it said, in a line. Values of fields marked sensitive are masked by whoever raises.
    said: str = ""


class TimedOut(msgspec.Struct, frozen=True):
    """The command was not begun in time, or promised a later reply that never came."""

    #: What was not reached in time, in a sentence.
    said: str = ""


class Cancelled(msgspec.Struct, frozen=True):
    """The refusal of a command whose client cancelled it before it was begun."""


class AlreadyUnderWay(msgspec.Struct, frozen=True):
    """The refusal of a unique call that is equal to one under way, for whose outcome enough others wait."""

    #: Whose call is under way, and the request whose ticket it has.
    client_id: str
    request_id: str


#: By wire name. They belong to every command topic, so no contract declares them; always JSON.
BUILT_IN: dict[str, Kind] = {
    f"postline.{cls.__name__}": Kind(cls) for cls in (Done, Fault, TimedOut, Cancelled, AlreadyUnderWay)
}
_NAMES = {kind.cls: name for name, kind in BUILT_IN.items()}


def built_in_name(cls: Any) -> str | None:
    """The wire name of a reply that every command topic has; None for any other class."""
    return _NAMES.get(cls)
