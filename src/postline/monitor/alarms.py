"""Whether dead letters are an alarm, by the limits that the owners of their partitions tell."""

from __future__ import annotations

from collections.abc import Sequence

from postline.log.port import Log
from postline.monitor.entries import entries_of
from postline.runtime.entries import DEAD, DeadEntry, decode_entry
from postline.runtime.progress import Standing

__all__ = ["alarm_of"]


async def alarm_of(log: Log, name: str, standings: Sequence[Standing], now_ms: int) -> str:
    """Why the dead letters of a subscription, whose partitions stand like this, are an alarm; "" if they are none."""
    most = max((each.alarm_count for each in standings), default=-1)
    age_ms = max((each.alarm_age_ms for each in standings), default=0)
    count = sum(each.dead_letters for each in standings)
    if 0 <= most < count:
        return f"{count} dead letters, more than {most}"
    for number, each in enumerate(standings):
        # What is told is a lower bound: the oldest may have been redriven since.
        if age_ms and each.dead_letters and now_ms - each.oldest_failed_ms >= age_ms:
            async for _, data in entries_of(log, name, number, DEAD):
                if now_ms - decode_entry(data, DeadEntry).failed_ms >= age_ms:
                    return f"a dead letter is older than {age_ms / 1000:g} s"
    return ""
