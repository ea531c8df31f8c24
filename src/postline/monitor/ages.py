"""How old the oldest record is that a subscription is not done with, for many partitions at once."""

from __future__ import annotations

from collections.abc import Sequence

from postline.log.port import Log
from postline.runtime.lagging import Behind, oldest_ms

__all__ = ["Ages"]

_KEPT_MAX = 50_000


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
        for each, at_ms in zip(missing, await oldest_ms(self._log, missing), strict=True):
            if at_ms is not None:
                self._known[_place(each)] = at_ms
        return [self._known.get(_place(each)) for each in wanted]


def _place(behind: Behind) -> tuple[str, int, int, int]:
    return behind.topic, behind.partition, behind.lag.first, behind.lag.ahead
