"""Notes by token beside a partition's timers: their time, that they shall never be set, how cancelling them ended."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from postline.log.port import Assignment, Membership
from postline.runtime.entries import TIMER_NOTES, pages_of
from postline.runtime.surroundings import Surroundings
from postline.runtime.unit import PendingUnit
from postline.runtime.upcoming import digest_of

__all__ = ["Revoked", "outcome_key"]

_PLACE, _OUTCOME, _REVOKED = b"p", b"o", b"r"
#: Of so many cancellations the partition remembers how they ended.
_OUTCOMES_MAX = 256
#: And for so long after their time: what they cancel may be held, or not fetched yet.
_KEPT_MS = 30 * 86_400_000
#: So many are remembered before they are set; the first are forgotten then.
_REVOKED_MAX = 10_000


class _Owner(Protocol):
    around: Surroundings
    assignment: Assignment
    membership: Membership
    unit: PendingUnit

    async def read_entry(self, namespace: str, key: bytes) -> bytes | None:
        """A state entry as this owner last wrote it, committed or not."""


def outcome_key(token: str) -> bytes:
    """Where the outcome of cancelling is kept: b"1" if it will not leave, b"0" if it had gone."""
    return _OUTCOME + digest_of(token)


class Revoked:
    """Cancellations that came before what they cancel, and other notes by token. Event loop only."""

    def __init__(self, owned: _Owner) -> None:
        self._owned = owned
        #: By digest, when what was cancelled would be due; the oldest first.
        self._early: dict[bytes, int] = {}
        self._outcomes: deque[bytes] = deque()

    async def load(self) -> None:
        """Take up what the last owner left."""
        for key, data in await self._scan(_REVOKED):
            self._early[key[1:]] = int.from_bytes(data, "big")
        self._outcomes.extend(key for key, _ in await self._scan(_OUTCOME))
        self._forget_overdue()

    async def _scan(self, kind: bytes) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        async for page in pages_of(self._owned, TIMER_NOTES, kind):
            found += [each for each in page if each[0].startswith(kind)]
            if not page[-1][0].startswith(kind):
                break
        return found

    def _forget_overdue(self) -> None:
        now = self._owned.around.clock.now_ms()
        overdue = [digest for digest, due_ms in self._early.items() if due_ms + _KEPT_MS <= now]
        for digest in overdue or list(self._early)[: len(self._early) - _REVOKED_MAX + 1]:
            self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        del self._early[digest]
        self._owned.unit.delete(TIMER_NOTES, _REVOKED + digest)

    def add(self, token: str, due_ms: int) -> None:
        """Have the timer that will be set under this token not set."""
        if len(self._early) >= _REVOKED_MAX:
            self._forget_overdue()
        digest = digest_of(token)
        self._early[digest] = due_ms
        self._owned.unit.put(TIMER_NOTES, _REVOKED + digest, due_ms.to_bytes(8, "big"))

    def take(self, token: str) -> bool:
        """Whether the timer was cancelled before it was set; asked once."""
        if not self._early or (digest := digest_of(token)) not in self._early:
            return False
        self._drop(digest)
        return True

    def note(self, token: str, due_ms: int, order: int) -> None:
        """Have the timer found by its token alone."""
        place = due_ms.to_bytes(8, "big") + order.to_bytes(8, "big")
        self._owned.unit.put(TIMER_NOTES, _PLACE + digest_of(token), place)

    async def place_of(self, token: str) -> tuple[int, int] | None:
        """When the timer is due, and its order, if that was noted."""
        data = await self._owned.read_entry(TIMER_NOTES, _PLACE + digest_of(token))
        return None if data is None else (int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big"))

    def forget(self, token: str) -> None:
        """The timer is gone, and where it was."""
        self._owned.unit.delete(TIMER_NOTES, _PLACE + digest_of(token))

    async def told(self, token: str) -> bool:
        """Whether somebody was told already that it will not leave."""
        return await self._owned.read_entry(TIMER_NOTES, outcome_key(token)) == b"1"

    def tell(self, token: str, done: bool) -> None:
        """Keep how cancelling ended, for whoever asked."""
        key = outcome_key(token)
        if key not in self._outcomes:
            self._outcomes.append(key)
            if len(self._outcomes) > _OUTCOMES_MAX:
                self._owned.unit.delete(TIMER_NOTES, self._outcomes.popleft())
        self._owned.unit.put(TIMER_NOTES, key, b"1" if done else b"0")
