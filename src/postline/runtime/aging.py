"""Dead letters that grow old: what is over its age ends as discarded, and what is too many or too old is said aloud."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from postline.clock import Clock, Timer
from postline.errors import LogError
from postline.log.port import Assignment, Membership
from postline.logs.events import event
from postline.runtime.answering import Answers
from postline.runtime.entries import DEAD, DeadEntry, decode_entry, offset_of, pages_of
from postline.runtime.holding import Holding
from postline.runtime.plan import Plan
from postline.runtime.surroundings import Surroundings

__all__ = ["Aging"]

_log = logging.getLogger("postline.runtime")

#: A wall clock may be set meanwhile, so nobody waits longer than this for a time on it.
_LOOK_SECONDS_MAX = 3_600.0
_AGAIN_SECONDS = 1.0


class AgingOwner(Protocol):
    """Whose dead letters they are: an owned partition, as far as it must be known."""

    around: Surroundings
    plan: Plan
    assignment: Assignment
    membership: Membership
    partition: int
    holding: Holding
    answers: Answers | None
    draining: bool

    async def read_entries(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """State entries as this owner last wrote them, committed or not."""


class Aging:
    """Watches one assignment's dead letters. Event loop only."""

    def __init__(self, owned: AgingOwner) -> None:
        self._owned = owned
        self._limits = owned.plan.dead_letter_policy.limits
        self._clock: Clock = owned.around.clock
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake: Callable[[], None] | None = None
        self._fail: Callable[[BaseException], None] | None = None
        self._tells = self._limits.alarm_count >= 0 or bool(self._limits.alarm_age_ms)
        #: Its oldest letter is over the alarm's age.
        self._is_old = False
        self._looks_again, self._saw_all = False, True

    def begin(self, wake: Callable[[], None], fail: Callable[[BaseException], None]) -> None:
        """Watch from now on; `wake` has commits looked for, `fail` hears what can't be gone on with."""
        self._wake, self._fail = wake, fail
        if self._tells or self._limits.max_age_ms:
            self._owned.holding.counts.dead_letters_changed = self._changed
            self._changed()

    @property
    def busy(self) -> bool:
        """Whether it looks at this moment."""
        return self._task is not None

    def stop(self) -> None:
        """The partition goes to another owner: watch no more."""
        self._owned.holding.counts.dead_letters_changed = None
        self._owned.around.alarms.forget(self._owned.partition)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()

    def _changed(self) -> None:
        counts = self._owned.holding.counts
        if self._tells:
            self._owned.around.alarms.tell(self._owned.partition, counts.dead_letters, is_old=self._is_old)
        if self._is_old and not self._looks_again:
            self._looks_again = True  # the oldest may be the one that went
            self._ring_in(_AGAIN_SECONDS)
        elif self._timer is None and self._task is None:
            self._arm()

    def _arm(self, at_least_seconds: float = 0.0) -> None:
        """Look when the oldest letter comes of an age; a lower bound of its time makes that early, never late."""
        oldest_ms, limits = self._owned.holding.counts.oldest_failed_ms, self._limits
        ages = [limits.max_age_ms, 0 if self._is_old else limits.alarm_age_ms]
        if oldest_ms is not None and (given := [age for age in ages if age]) and not self._owned.draining:
            self._ring_in(max((oldest_ms + min(given) - self._clock.now_ms()) / 1000, at_least_seconds))

    def _ring_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(min(seconds, _LOOK_SECONDS_MAX), self._ring)

    def _ring(self) -> None:
        self._timer, self._looks_again = None, False
        if self._task is None and not self._owned.draining:
            look = self._look()
            self._task = asyncio.get_running_loop().create_task(look, name=f"{self._owned.plan.name} dead letters")
            self._task.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            if self._timer is None:
                self._arm(0.0 if self._saw_all else _AGAIN_SECONDS)
        elif isinstance(error, LogError) and error.retryable:
            self._ring_in(_AGAIN_SECONDS)
        else:
            assert self._fail is not None
            self._fail(error)

    def _age(self, failed_ms: int) -> int:
        return self._clock.now_ms() - failed_ms

    async def _look(self) -> None:
        """Give up what is over its age, and find out how old the oldest of the others is."""
        owned, limits = self._owned, self._limits
        kept: list[int] = []
        async for page in pages_of(owned, DEAD):
            if owned.draining:
                return
            found = {key: decode_entry(data, DeadEntry).failed_ms for key, data in page}
            overdue = [key for key, failed_ms in found.items() if self._is_over(limits.max_age_ms, failed_ms)]
            kept += [failed_ms for failed_ms in found.values() if not self._is_over(limits.max_age_ms, failed_ms)]
            if overdue:
                async with owned.holding.disposing:
                    await self._give_up(overdue)
        counts, oldest_ms = owned.holding.counts, min(kept, default=None)
        self._saw_all = len(kept) == counts.dead_letters  # else one is not committed yet
        if self._saw_all:
            counts.oldest_failed_ms = oldest_ms
        if self._tells:
            self._is_old = oldest_ms is not None and self._is_over(limits.alarm_age_ms, oldest_ms)
            owned.around.alarms.tell(owned.partition, counts.dead_letters, is_old=self._is_old)

    def _is_over(self, age_ms: int, failed_ms: int) -> bool:
        return bool(age_ms) and self._age(failed_ms) >= age_ms

    async def _give_up(self, keys: Sequence[bytes]) -> None:
        owned, number = self._owned, 0
        stored = await owned.read_entries(DEAD, keys)
        for key in keys:
            if key not in stored or owned.draining:
                continue
            dead, offset = decode_entry(stored[key], DeadEntry), offset_of(key)
            if not self._is_over(self._limits.max_age_ms, dead.failed_ms):
                continue  # it was redriven, and has failed again
            owned.holding.discard(offset, dead)
            number += 1
            if owned.answers is not None:
                owned.answers.forget(offset)
        if number:
            _log.warning(
                "subscription %s discards %d dead letters of partition %d, which are older than their max_age of %g s",
                *(owned.plan.name, number, owned.partition, self._limits.max_age_ms / 1000),
                extra=event(
                    "dead_letters.aged_out",
                    subscription=owned.plan.name,
                    topic=owned.plan.topic,
                    partition=owned.partition,
                    records=number,
                ),
            )
            assert self._wake is not None
            self._wake()
