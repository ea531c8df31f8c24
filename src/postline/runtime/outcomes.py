"""How a record can end for a subscription, and the counts that must balance (DESIGN §6)."""

from __future__ import annotations

import enum

__all__ = ["Outcome", "empty_counts"]


class Outcome(enum.IntEnum):
    """How a record stands for a subscription; the numbers are stored, so they never change."""

    PENDING = 0
    DONE = 1
    FILTERED = 2
    DUPLICATE = 3
    SUPERSEDED = 4
    EXPIRED = 5
    DEAD_LETTERED = 6
    DISCARDED = 7
    LOST = 8
    HELD = 9

    @property
    def label(self) -> str:
        """The outcome's name in the glossary's spelling."""
        return "lost to retention" if self is Outcome.LOST else self.name.lower().replace("_", "-")


def empty_counts() -> list[int]:
    """Counts by outcome number, all zero."""
    return [0] * len(Outcome)
