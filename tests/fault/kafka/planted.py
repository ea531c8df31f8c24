"""Engines that are broken on purpose, to show that a trial's verdict finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from postline.log.kafka.units import UnitWriter
from postline.log.port import Assignment, CommitUnit

__all__ = ["plant"]


def plant(fault: str) -> None:
    """Break the engine of this process in one of the ways below; the empty name leaves it whole."""
    if fault:
        _FAULTS[fault]()


def _positions_without_appends() -> None:
    plain = UnitWriter._outgoing

    def outgoing(self: UnitWriter, parts: Sequence[Any]) -> list[Any]:
        return [each for each in plain(self, parts) if each.topic == self.state_topic]

    UnitWriter._outgoing = outgoing  # type: ignore[method-assign]


def _no_fence() -> None:
    """Every unit is committed whole, whoever owns its partitions by now."""
    plain, known = UnitWriter._parts, dict[tuple[int, int], Any]()

    class _Unfenced:
        def __init__(self, ownership: Any) -> None:
            self._ownership = ownership
            for owned in ownership.owned.values():
                known[owned.assignment.partition, owned.assignment.epoch] = owned

        @staticmethod
        def stands(assignment: Assignment) -> bool:
            return (assignment.partition, assignment.epoch) in known

    def parts(self: UnitWriter, unit: CommitUnit, checkpoint: bool) -> list[Any]:
        fenced = self._ownership
        unfenced: Any = _Unfenced(fenced)
        unfenced.owned = {at: known.get((at, epoch)) for at, epoch in _epochs(unit)}
        self._ownership = unfenced
        try:
            return plain(self, unit, checkpoint)
        finally:
            self._ownership = fenced

    UnitWriter._parts = parts  # type: ignore[method-assign]
    UnitWriter._end_overtaken = lambda *_: None  # type: ignore[method-assign]
    UnitWriter._is_stored = lambda *_: False  # type: ignore[method-assign]


def _epochs(unit: CommitUnit) -> list[tuple[int, int]]:
    return [(part.assignment.partition, part.assignment.epoch) for part in unit]


_FAULTS: dict[str, Callable[[], None]] = {
    "positions without appends": _positions_without_appends,
    "no fence": _no_fence,
}
