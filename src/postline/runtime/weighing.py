"""How many bytes subscriptions are behind, kept up from look to look: each record is weighed once."""

from __future__ import annotations

from collections import defaultdict, deque

from postline.log.port import Log

__all__ = ["Weights"]

#: Records are weighed, and forgotten once they are passed, in stretches of so many offsets.
_STRETCH = 1_000


class _Weight:
    """The stretches of one partition from a subscription's position on: first offset, next offset, bytes."""

    def __init__(self) -> None:
        self.stretches: deque[tuple[int, int, int]] = deque()
        self.to = 0

    def pass_to(self, first: int) -> None:
        """Forget what lies below; begin anew after a reset."""
        stretches = self.stretches
        if not stretches or first < stretches[0][0] or first >= self.to:
            stretches.clear()
            self.to = first
        while stretches and stretches[0][1] <= first:
            stretches.popleft()

    def add(self, to: int, size: int) -> None:
        """Records up to there have so many bytes."""
        begin = self.to
        if self.stretches and to - self.stretches[-1][0] <= _STRETCH:
            begin, _, before = self.stretches.pop()
            size += before
        self.stretches.append((begin, to, size))
        self.to = to

    def of(self, first: int) -> int:
        """The bytes from there on; of a stretch that is partly passed, its part."""
        whole = sum(size for begin, _, size in self.stretches if begin >= first)
        if self.stretches and self.stretches[0][0] < first:
            begin, end, size = self.stretches[0]
            whole += size * (end - first) // (end - begin)
        return whole


class Weights:
    """The bytes that subscriptions of one topic are behind, up to a limit: what is beyond need not be weighed."""

    def __init__(self, log: Log, topic: str, limit: int) -> None:
        self._log, self._topic, self._limit = log, topic, limit
        self._weights: dict[tuple[str, int], _Weight] = defaultdict(_Weight)

    async def of(self, subscription: str, partition: int, first: int, end: int) -> int:
        """The bytes of a partition's records from `first` to `end`, or of as many as reach the limit."""
        weight = self._weights[subscription, partition]
        weight.pass_to(first)
        while weight.to < end and weight.of(first) <= self._limit:
            to = min(end, weight.to + _STRETCH)
            weight.add(to, await self._log.size_between(self._topic, partition, weight.to, to))
        return weight.of(first)
