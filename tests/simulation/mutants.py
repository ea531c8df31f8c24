"""The runtime made wrong on purpose, one fault at a time, to prove that the simulation finds it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from postline.log.port import Assignment, CommitUnit, PartitionCommit
from postline.runtime.commits import Committer
from postline.runtime.dedup import Marks
from postline.runtime.holding import Holding
from postline.runtime.lanes import Lane
from postline.runtime.partition import OwnedPartition
from postline.runtime.progress import Progress
from postline.runtime.standing import HeldCounts
from postline.runtime.timers import Timers
from postline.runtime.unit import PendingUnit
from postline.runtime.window import Window

__all__ = ["RUNTIME_MUTANTS", "mutated"]


def _effects_later(original: Callable[..., Any]) -> Callable[..., Any]:
    """Positions are committed at once, what handlers published and stored in a second step."""

    async def commit(committer: Committer, unit: CommitUnit) -> Sequence[Assignment]:
        bare = [PartitionCommit(part.assignment, part.position, part.progress) for part in unit]
        refused = await original(committer, bare)
        await original(committer, [part for part in unit if part.assignment not in refused])
        return refused

    return commit


def _forgets_held(original: object) -> Callable[..., Any]:
    async def load(holding: Holding) -> None:
        for name in ("held", "dead"):
            async for page in holding._entries(name):
                for offset, _ in page:
                    holding._owned.unit.delete(name, offset.to_bytes(8, "big"))

    return load


def _forgets_ahead(original: Callable[..., None]) -> Callable[..., None]:
    def init(window: Window, position: int, progress: Progress) -> None:
        progress.ahead = []
        original(window, position, progress)

    return init


def _forgets_types(original: Callable[..., Any]) -> Callable[..., Any]:
    async def load(owned: OwnedPartition) -> None:
        await original(owned)
        owned.types &= owned.plan.handlers.keys()

    return load


def _overtakes(original: object) -> property:
    return property(lambda lane: True)


def _no_duplicates(original: object) -> Callable[..., bool]:
    return lambda *given: False


def _miscounts_held(original: Callable[..., None]) -> Callable[..., None]:
    def drop(counts: HeldCounts, offset: int) -> None:
        if offset % 7:
            original(counts, offset)

    return drop


def _nothing(original: object) -> Callable[..., None]:
    return lambda *given, **named: None


def _lost_uncounted(original: Callable[..., int]) -> Callable[..., int]:
    def lose(window: Window, log_start: int) -> int:
        number = original(window, log_start)
        if number:
            window._chunks[-1].runs = ()
        return number

    return lose


def _forgets_timers(original: object) -> Callable[..., Any]:
    async def load(timers: Timers) -> None:
        timers.upcoming.horizon = None

    return load


#: By name: what is replaced, and by what. The names say what the runtime then does wrong.
RUNTIME_MUTANTS: dict[str, tuple[type, str, Callable[[Any], Any]]] = {
    "position_before_effects": (Committer, "_commit", _effects_later),
    "held_dropped_at_reassignment": (Holding, "load", _forgets_held),
    "done_ahead_forgotten": (Window, "__init__", _forgets_ahead),
    "retries_overtaken": (Lane, "free", _overtakes),
    "duplicates_unseen": (Marks, "is_duplicate", _no_duplicates),
    "outcome_of_held_uncounted": (Window, "change", _nothing),
    "held_miscounted": (HeldCounts, "drop", _miscounts_held),
    "state_kept_at_reset": (PendingUnit, "clear", _nothing),
    "types_forgotten_at_reassignment": (OwnedPartition, "load", _forgets_types),
    "lost_uncounted": (Window, "lose", _lost_uncounted),
    "timers_forgotten_at_reassignment": (Timers, "load", _forgets_timers),
    "fired_timers_kept": (Timers, "_settle", _nothing),
    "cancelled_timers_kept": (Timers, "cancel", _nothing),
}


@contextlib.contextmanager
def mutated(name: str) -> Iterator[None]:
    """Run the block with this mutant; with none if it is not one of the runtime's."""
    if name not in RUNTIME_MUTANTS:
        yield
        return
    owner, attribute, change = RUNTIME_MUTANTS[name]
    with mock.patch.object(owner, attribute, change(vars(owner)[attribute])):
        yield
