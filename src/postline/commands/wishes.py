"""Wishes that a command not be begun, which came before it: kept by age, since it may never come."""

from __future__ import annotations

import logging

from postline.logs.events import event
from postline.runtime.entries import CANCELLED, pages_of
from postline.runtime.partition import OwnedPartition

__all__ = ["Wishes"]

_log = logging.getLogger("postline.runtime")

#: More are not kept in one partition: the oldest is forgotten, and that is said aloud.
WISHES_MAX = 100_000


class Wishes:
    """The marks of commands that were cancelled and have not come yet, in one partition. Event loop only."""

    def __init__(self, owned: OwnedPartition, kept_ms: int) -> None:
        self._owned, self._kept_ms = owned, kept_ms
        #: When each came, in wall-clock milliseconds; oldest first.
        self.came: dict[bytes, int] = {}

    def __contains__(self, mark: bytes | None) -> bool:
        return mark in self.came

    def __len__(self) -> int:
        return len(self.came)

    async def load(self) -> None:
        """Take up what the last owner left; what was kept without a time counts from now."""
        now_ms, found = self._owned.now_ms(), []
        async for page in pages_of(self._owned, CANCELLED):
            found += [(int.from_bytes(value, "big") or now_ms, mark) for mark, value in page]
        self.came = {mark: came_ms for came_ms, mark in sorted(found)}

    def keep(self, mark: bytes) -> None:
        """Keep a wish for as long as its command may come, and forget those whose command didn't."""
        now_ms = self._owned.now_ms()
        self.came.pop(mark, None)
        self.came[mark] = now_ms
        self._owned.unit.put(CANCELLED, mark, now_ms.to_bytes(8, "big"))
        while (oldest := next(iter(self.came), None)) is not None:
            over = self.came[oldest] + self._kept_ms <= now_ms
            if not over and len(self.came) <= WISHES_MAX:
                return
            if not over:
                _log.error(
                    "subscription %s partition %d knows %d cancelled requests whose command has not come, and forgets"
                    " the oldest: if that comes, it is run",
                    *(self._owned.subscription, self._owned.partition, WISHES_MAX),
                    extra=event(
                        "cancellations.forgotten",
                        subscription=self._owned.subscription,
                        partition=self._owned.partition,
                    ),
                )
            self.forget(oldest)

    def forget(self, mark: bytes) -> None:
        """The command came, or will not be waited for."""
        if self.came.pop(mark, None) is not None:
            self._owned.unit.delete(CANCELLED, mark)
