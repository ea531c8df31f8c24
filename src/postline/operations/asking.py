"""Requests to the owners of a subscription's partitions: how they are stored, and whether they were obeyed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from postline.clock import Clock
from postline.ids import IdSource
from postline.log.port import Log
from postline.message import Envelope
from postline.monitor import RecordId
from postline.runtime.control import CONTROL_POSITION, ControlOp, control_position, control_record
from postline.runtime.entries import CONTROL
from postline.runtime.plan import CONTROL_SUFFIX

__all__ = ["Asking", "Request"]

_POLL_SECONDS = 0.1


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Something asked of the owners of a subscription's partitions; it is durable."""

    subscription: str
    #: Partition to the offset of the last control record for it.
    asked: dict[int, int]
    #: Whether a worker was there when it was asked.
    live: bool
    #: The records that are to be discarded.
    discards: tuple[RecordId, ...] = ()


class Asking:
    """Stores requests, and looks what became of them."""

    def __init__(self, log: Log, clock: Clock, randomness: random.Random, *, source: str = "postline.operator") -> None:
        self._log = log
        self._clock = clock
        self._source = source
        self._ids = IdSource(clock.now_ms, randomness)

    async def obeyed(self, request: Request, wait_seconds: float, *, poll_seconds: float = _POLL_SECONDS) -> bool:
        """Whether the owners have done, and committed, what was asked; waits for it so long."""
        end = self._clock.monotonic() + wait_seconds
        while not await self._done(request):
            left = end - self._clock.monotonic()
            if left <= 0:
                return False
            await self._log.wait_for_appends(request.subscription + CONTROL_SUFFIX, min(left, poll_seconds))
        return True

    async def _done(self, request: Request) -> bool:
        topic = request.subscription + CONTROL_SUFFIX
        for partition, offset in request.asked.items():
            stored = dict(await self._log.peek_state(request.subscription, partition, CONTROL))
            if (control_position(stored.get(CONTROL_POSITION), topic) or 0) <= offset:
                return False
        return True

    async def ask_all(self, subscription: str, op: ControlOp) -> Request:
        """Ask the owner of each partition. Raises UnknownSubscription."""
        partitions = await self._log.partitions(subscription)
        return await self.ask(subscription, [(RecordId(each.partition, 0), op) for each in partitions])

    async def ask(self, subscription: str, ops: Sequence[tuple[RecordId, ControlOp]]) -> Request:
        """Append the requests in one step, in this order within a partition. Raises UnknownSubscription."""
        live = bool(await self._log.members(subscription))
        topic = subscription + CONTROL_SUFFIX
        appends = [control_record(topic, place.partition, op, self._envelope()) for place, op in ops]
        offsets = await self._log.append(appends) if appends else []
        asked: dict[int, int] = {}
        for append, offset in zip(appends, offsets, strict=True):
            asked[append.partition] = max(offset, asked.get(append.partition, 0))
        return Request(subscription=subscription, asked=asked, live=live)

    def _envelope(self) -> Envelope:
        return Envelope(id=self._ids.next_id(), source=self._source, time_ms=self._clock.now_ms())
