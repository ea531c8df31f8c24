"""The next timers of one partition in memory, in the order of their time; what comes later lies in state alone."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from hashlib import blake2b

from postline.clock import Clock
from postline.runtime.entries import TimerEntry

__all__ = ["PAGE_ENTRIES", "Upcoming", "digest_of", "timer_key"]

#: Entries read from state at a time.
PAGE_ENTRIES = 1_000
#: Most of them in memory; beyond, the latest are forgotten.
_ENTRIES_MAX = 2 * PAGE_ENTRIES
#: So few are left that more are read.
_ENTRIES_LOW = PAGE_ENTRIES // 4
#: Timers of the clock may ring this much early.
_EARLY_SECONDS = 0.0005
_DIGEST_BYTES = 16


def digest_of(token: str) -> bytes:
    """Sixteen bytes that stand for a token in keys."""
    return blake2b(token.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def timer_key(due_ms: int, order: int, token: str) -> bytes:
    """The key of a timer's entry: keys sort by due time, and those of one time by `order`."""
    return due_ms.to_bytes(8, "big") + order.to_bytes(8, "big") + digest_of(token)[:8]


class Upcoming:
    """Knows every entry of the partition with a key up to `horizon`, committed or not. Event loop only.

    An entry fires when its due time has come by the wall clock. One that was told to wait for a time does not wait
    longer than that, be the wall clock set back meanwhile.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.entries: dict[bytes, TimerEntry] = {}
        #: The last key up to which everything is known; None if that is all there is.
        self.horizon: bytes | None = b""
        #: Steady time at which an entry may have waited long enough, whatever the wall clock says.
        self._patience: dict[bytes, float] = {}
        self._order: list[tuple[float, bytes]] = []
        self._fires: dict[bytes, float] = {}

    def covers(self, key: bytes) -> bool:
        """Whether an entry of this key, if there is one, is in memory."""
        return self.horizon is None or key <= self.horizon

    @property
    def wants_more(self) -> bool:
        """Whether more should be read from state."""
        return self.horizon is not None and len(self.entries) < _ENTRIES_LOW

    def add(self, key: bytes, entry: TimerEntry) -> None:
        """Know an entry, which `covers` says belongs here; an earlier one of the key is forgotten."""
        self._add(key, entry)
        self._forget_latest()

    def _add(self, key: bytes, entry: TimerEntry) -> None:
        self.entries[key] = entry
        if entry.delay_ms:
            self._patience[key] = self._clock.monotonic() + entry.delay_ms / 1000
        self._place(key, entry)

    def put_back(self, key: bytes, entry: TimerEntry) -> None:
        """Know one again that `take_due` gave: it stays due."""
        self.entries[key] = entry
        self._patience[key] = self._clock.monotonic()
        self._place(key, entry)

    def discard(self, key: bytes) -> None:
        """Forget an entry; nothing happens if it isn't known."""
        if self.entries.pop(key, None) is not None:
            self._patience.pop(key, None)
            del self._fires[key]

    def extend(self, page: Sequence[tuple[bytes, TimerEntry]], horizon: bytes | None) -> None:
        """Know what was read from behind the horizon, up to the new one."""
        self.horizon = horizon
        for key, entry in page:
            self._add(key, entry)
        self._forget_latest()

    def _place(self, key: bytes, entry: TimerEntry) -> None:
        steady = self._clock.monotonic()
        fires = steady + (entry.due_ms - self._clock.now_ms()) / 1000
        fires = min(fires, self._patience.get(key, fires))
        self._fires[key] = fires
        heapq.heappush(self._order, (fires, key))

    def _forget_latest(self) -> None:
        if len(self.entries) <= _ENTRIES_MAX:
            return
        keys = sorted(self.entries)
        for key in keys[PAGE_ENTRIES:]:
            self.discard(key)
        self.horizon = keys[PAGE_ENTRIES - 1]

    def wall_clock_changed(self) -> None:
        """Work out anew when everything fires."""
        self._order.clear()
        for key, entry in self.entries.items():
            self._place(key, entry)

    def next_seconds(self) -> float | None:
        """How long until the next one fires, 0 or less if it is due; None if nothing is in memory."""
        while self._order and self._fires.get(self._order[0][1]) != self._order[0][0]:
            heapq.heappop(self._order)  # cancelled, or set anew
        if not self._order:
            return None
        left = self._order[0][0] - self._clock.monotonic()
        return 0.0 if left <= _EARLY_SECONDS else left

    def take_due(self, limit: int) -> list[tuple[bytes, TimerEntry]]:
        """At most so many of those that are due, the earliest first; they are forgotten here."""
        due: list[tuple[bytes, TimerEntry]] = []
        while len(due) < limit and (left := self.next_seconds()) is not None and left <= 0:
            _, key = heapq.heappop(self._order)
            due.append((key, self.entries[key]))
            self.discard(key)
        return due
