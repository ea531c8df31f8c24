"""Priorities of a topic: their names from the highest to the lowest, and the share that each is guaranteed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["NORMAL", "Priorities", "Priority", "marked_id", "priority_in", "sibling_name"]

#: The priority of what is published without one: it lies in the topic itself.
NORMAL = "normal"

_PARTS = 1_000_000
#: Between an id and the priority that it says of itself.
_MARK = "~"


@dataclass(frozen=True)
class Priority:
    """One priority of a topic: its name, its rank (0 is the highest), and its guaranteed share of what is handled."""

    name: str
    rank: int
    share: float


class Priorities:
    """Names from the highest to the lowest, each with its guaranteed minimum share (0 to 1) of the handled records.

    A share counts while records of that priority wait. What nobody is guaranteed, and what the others leave, goes to
    the highest that waits: with 0 everywhere the order is strict, and a lower one waits for as long as there is
    anything higher.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.shares = dict(shares)

    @property
    def all(self) -> tuple[Priority, ...]:
        """The priorities, from the highest to the lowest."""
        return tuple(Priority(name, rank, share) for rank, (name, share) in enumerate(self.shares.items()))

    def problems(self) -> list[str]:
        """What contradicts itself, in sentences; [] if they can be used."""
        found = []
        if len(self.shares) < 2 or NORMAL not in self.shares:
            found.append(f'priorities are two or more, one of them "{NORMAL}", which is the topic itself.')
        if bad := [name for name in self.shares if not (name.isascii() and name.isidentifier())]:
            found.append(f"priorities are named by words of letters, digits and underscores, not {bad[0]!r}.")
        if any(not 0 <= share <= 1 for share in self.shares.values()) or parts_of(sum(self.shares.values())) > _PARTS:
            found.append("shares of priorities lie between 0 and 1, and are not more than 1 together.")
        return found

    def __repr__(self) -> str:
        return f"Priorities({self.shares!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Priorities) and list(self.shares.items()) == list(other.shares.items())

    def __hash__(self) -> int:
        return hash(tuple(self.shares.items()))


def parts_of(share: float) -> int:
    """A share in millionths, so that sums of shares are exact."""
    return round(share * _PARTS)


def sibling_name(name: str, priority: str) -> str:
    """The name of a topic's, or a subscription's, sibling for a priority; its own for the normal one."""
    return name if priority == NORMAL else f"{name}.{priority}"


def marked_id(request_id: str, priority: str) -> str:
    """A request id that says of itself which priority it was made for."""
    return f"{request_id}{_MARK}{priority}"


def priority_in(request_id: str) -> str:
    """What an id says of its priority; "" if nothing."""
    return request_id.rpartition(_MARK)[2] if _MARK in request_id else ""
