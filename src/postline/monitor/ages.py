"""How old the oldest record is that a subscription is not done with, for many partitions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from postline.log.port import Log
from postline.runtime.lagging import PartitionLag, oldest_ms

__all__ = ["Ages", "Behind"]

#: On a cluster so many reads are under way at once.
_AT_ONCE = 8
_KEPT_MAX = 50_000


class Behind(NamedTuple):
    """A partition where a subscription has something to read."""

    topic: str
    partition: int
    lag: PartitionLag


class Ages:
    """Remembers times of records, which never change: only where positions moved anything is read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[tuple[str, int, int, int], int] = {}

    async def oldest_ms(self, wanted: Sequence[Behind]) -> list[int | None]:
        """When the oldest record of each was stored; None where only gaps are left. Raises LogUnavailable."""
        missing = [each for each in wanted if _place(each) not in self._known]
        if len(self._known) + len(missing) > _KEPT_MAX:
            self._known.clear()
            missing = list(wanted)
        left = iter(missing)
        await asyncio.gather(*(self._read(left) for _ in range(min(_AT_ONCE, len(missing)))))
        return [self._known.get(_place(each)) for each in wanted]

    async def _read(self, left: Iterator[Behind]) -> None:
        for each in left:
            found = await oldest_ms(self._log, each.topic, each.partition, each.lag)
            if found is not None:
                self._known[_place(each)] = found


def _place(behind: Behind) -> tuple[str, int, int, int]:
    return behind.topic, behind.partition, behind.lag.first, behind.lag.ahead
