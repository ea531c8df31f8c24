"""What operators ask of dead letters: redrive, discard and edit, one or as many as are chosen."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import msgspec

from postline.errors import UnknownRecord, UsageError
from postline.log.port import SCHEMA_ID_SHIFT
from postline.monitor import Letter, Picked, RecordId
from postline.operations.asking import Asking, Request
from postline.operations.editing import Edited
from postline.runtime.control import ControlOp
from postline.runtime.entries import (
    DEAD,
    EDITS,
    HELD,
    DeadEntry,
    EditEntry,
    HeldEntry,
    decode_entry,
    offset_key,
    offset_of,
)

__all__ = ["DeadLetterActs", "Disposed", "Pace"]

#: Most that one request names.
_ASKED_RECORDS = 1_000
#: Requests that may be waiting for their owners.
_UNDER_WAY = 4
_POLL_SECONDS = 0.01
#: With a rate, how often something is asked for.
_TICKS_PER_SECOND = 10
_PAGE = 1_000


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast many dead letters are redriven or discarded, and how many of them."""

    #: A second; None for as fast as the owners take them.
    rate: float | None = None
    limit: int | None = None
    #: How long to wait for the owners to obey one request before it is left to them.
    wait_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.rate is not None and not self.rate > 0:
            raise UsageError(f"A rate of {self.rate:g} records a second is none.", remedy="Give more than 0.")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"A limit of {self.limit} records is none.", remedy="Give 1 or more.")


class Disposed(msgspec.Struct, frozen=True, kw_only=True):
    """How far the disposal of many dead letters has come; what is asked for is durable."""

    subscription: str
    #: Names the redrive: with it, the same command goes on where it ended.
    run: str
    asked: int
    #: "done", "asked" (no worker runs: the next one does it) or "unanswered" (workers don't get to it).
    status: str
    #: Of a redrive: those that wait or run, and those that are dead letters again; the others have ended.
    held: int = 0
    failed_again: int = 0


class DeadLetterActs(Asking):
    """Asks owners what is to become of dead letters."""

    async def redrive(self, subscription: str, records: Sequence[RecordId]) -> Request:
        """Run dead letters again under their own offsets, in order, before what waits behind them.

        Raises UnknownSubscription, and UsageError if one of them is no dead letter; then none is asked for.
        """
        letters = await self._require(subscription, records, (DEAD,), "dead letter")
        ops = []
        for partition, found in letters.items():
            for first in range(0, len(found), _ASKED_RECORDS):
                some = dict(islice(found.items(), first, first + _ASKED_RECORDS))
                op = ControlOp(op="redrive", offsets=tuple(some), seen=tuple(some.values()))
                ops.append((RecordId(partition, 0), op))
        return await self.ask(subscription, ops)

    async def discard(self, subscription: str, records: Sequence[RecordId], reason: str) -> Request:
        """Give dead letters, or held records, up for good; what waits behind them flows.

        Raises UnknownSubscription, and UsageError if one of them is neither, or for no reason; then none is asked for.
        """
        _require_reason(reason, "discard")
        await self._require(subscription, records, (DEAD, HELD), "dead letter or held record")
        ops = [(each, ControlOp(op="discard", offset=each.offset, reason=reason)) for each in records]
        return msgspec.structs.replace(await self.ask(subscription, ops), discards=tuple(records))

    async def edit(self, subscription: str, letter: Letter, edited: Edited, *, redrives: bool) -> Request:
        """Have another value handled in place of a dead letter's own, and run it at once if it `redrives`.

        `edited` is checked (`Editing`). The owner reads it once more with its handler, and refuses what that can't
        read: `stands` tells. Raises UsageError without a reason.
        """
        _require_reason(edited.reason, "edit")
        op = ControlOp(
            op="edit",
            offset=letter.offset,
            seen=(letter.entry.redrives,),
            run=self.new_run() if redrives else "",
            by=edited.by,
            reason=edited.reason,
            value=edited.value,
            flags=edited.schema_id << SCHEMA_ID_SHIFT,
        )
        return await self.ask(subscription, [(letter.id, op)])

    async def stands(self, subscription: str, letter: Letter, edited: Edited) -> bool:
        """Whether an edit that was obeyed was kept; False if it was refused."""
        data = await self._entry(subscription, letter.id, EDITS)
        if data is not None:
            return decode_entry(data, EditEntry).value == edited.value
        dead = await self._entry(subscription, letter.id, DEAD)
        # No longer the same dead letter: it was redriven with the edit, and has ended or failed again.
        return dead is None or decode_entry(dead, DeadEntry).redrives != letter.entry.redrives

    def new_run(self) -> str:
        """A name for a redrive."""
        return self._ids.next_id()[-8:]

    # -- many ---------------------------------------------------------------------------------------

    async def redrive_many(
        self,
        subscription: str,
        letters: AsyncIterator[Picked],
        run: str,
        pace: Pace,
        told: Callable[[int], None] = lambda asked: None,
    ) -> Disposed:
        """Redrive letters (`DeadLetters.picked`), page by page, at a pace; `told` hears how many were asked for so far.

        Stopped at any moment, what was asked for is durable, once, and the rest are dead letters still: called again
        with the same `run`, and letters that are `not_of_run`, it goes on. Raises UnknownSubscription.
        """

        def op(some: Picked) -> ControlOp:
            return ControlOp(op="redrive", offsets=tuple(some.offsets), seen=tuple(some.redrives), run=run)

        asked, status = await self._dispose(subscription, letters, op, pace, told)
        held, failed_again = await self._of_run(subscription, run) if asked else (0, 0)
        return Disposed(
            subscription=subscription, run=run, asked=asked, status=status, held=held, failed_again=failed_again
        )

    async def discard_many(
        self,
        subscription: str,
        letters: AsyncIterator[Picked],
        reason: str,
        pace: Pace,
        told: Callable[[int], None] = lambda asked: None,
    ) -> Disposed:
        """Discard letters as `redrive_many` redrives them. Raises UnknownSubscription, UsageError without a reason."""
        _require_reason(reason, "discard")

        def op(some: Picked) -> ControlOp:
            return ControlOp(op="discard", offsets=tuple(some.offsets), seen=tuple(some.redrives), reason=reason)

        asked, status = await self._dispose(subscription, letters, op, pace, told)
        return Disposed(subscription=subscription, run="", asked=asked, status=status)

    async def _dispose(
        self,
        subscription: str,
        letters: AsyncIterator[Picked],
        op: Callable[[Picked], ControlOp],
        pace: Pace,
        told: Callable[[int], None],
    ) -> tuple[int, str]:
        asked, began, under_way = 0, self._clock.monotonic(), deque[Request]()
        live = True
        async for batches in _batches(letters, pace):
            if pace.rate is not None:
                await self._clock.sleep(max(0.0, began + asked / pace.rate - self._clock.monotonic()))
            ops = [(RecordId(batch.partition, 0), op(batch)) for batch in batches]
            request = await self.ask(subscription, ops)
            under_way.append(request)
            asked, live = asked + sum([len(batch.offsets) for batch in batches]), request.live
            told(asked)
            if live and len(under_way) >= _UNDER_WAY and not await self._until_obeyed(under_way, pace):
                return asked, "unanswered"
        if not asked:
            return 0, "nothing"
        if not live:
            return asked, "asked"
        while under_way:
            if not await self._until_obeyed(under_way, pace):
                return asked, "unanswered"
        return asked, "done"

    async def _until_obeyed(self, under_way: deque[Request], pace: Pace) -> bool:
        return await self.obeyed(under_way.popleft(), pace.wait_seconds, poll_seconds=_POLL_SECONDS)

    async def _of_run(self, subscription: str, run: str) -> tuple[int, int]:
        """How many of a redrive are held, and are dead letters again."""
        held = failed = 0
        for info in await self._log.partitions(subscription):
            after = b""
            while page := await self._log.peek_state(subscription, info.partition, HELD, after=after, limit=_PAGE):
                held += sum([decode_entry(data, HeldEntry).run == run for _, data in page])
                after = page[-1][0]
            after = b""
            while page := await self._log.peek_state(subscription, info.partition, DEAD, after=after, limit=_PAGE):
                failed += sum([decode_entry(data, DeadEntry).run == run for _, data in page])
                after = page[-1][0]
        return held, failed

    # -- what there is ------------------------------------------------------------------------------

    async def missed(self, request: Request) -> list[RecordId]:
        """Of an obeyed discard, the records that are still there: they were being handled at that moment."""
        return [
            each
            for each in request.discards
            if await self._entry(request.subscription, each, DEAD)
            or await self._entry(request.subscription, each, HELD)
        ]

    async def _require(
        self, subscription: str, records: Sequence[RecordId], namespaces: Sequence[str], what: str
    ) -> dict[int, dict[int, int]]:
        """By partition and offset, how often each was redriven. Raises UsageError if one is not there."""
        partitions = {each.partition for each in await self._log.partitions(subscription)}
        found: dict[int, dict[int, int]] = {}
        missing = []
        for partition, group in groupby(sorted(set(records)), key=lambda each: each.partition):
            offsets = [each.offset for each in group]
            there = await self._there(subscription, partition, offsets, namespaces) if partition in partitions else {}
            found[partition] = there
            missing += [str(RecordId(partition, offset)) for offset in offsets if offset not in there]
        if missing:
            raise UnknownRecord(
                f"Subscription {subscription!r} has no {what} {', '.join(missing)}.",
                remedy="`postline dlq list` and `subscriptions show` tell what there is; it may have ended meanwhile.",
            )
        return found

    async def _there(
        self, subscription: str, partition: int, offsets: Sequence[int], namespaces: Sequence[str]
    ) -> dict[int, int]:
        found: dict[int, int] = {}
        for namespace in namespaces:
            for offset in offsets:
                data = await self._entry(subscription, RecordId(partition, offset), namespace)
                if data is not None:
                    found[offset] = decode_entry(data, DeadEntry).redrives if namespace == DEAD else 0
        return found

    async def _entry(self, subscription: str, record: RecordId, namespace: str) -> bytes | None:
        before = offset_key(record.offset - 1) if record.offset else b""
        found = await self._log.peek_state(subscription, record.partition, namespace, after=before, limit=1)
        return found[0][1] if found and offset_of(found[0][0]) == record.offset else None


async def _batches(letters: AsyncIterator[Picked], pace: Pace) -> AsyncIterator[list[Picked]]:
    """What is asked for in one step: as many of one partition each as one request names, up to the limit."""
    left = pace.limit
    async for picked in letters:
        batches = _cut(picked, len(picked.offsets) if left is None else left, pace.rate)
        if pace.rate is None:
            yield batches
        else:
            for batch in batches:
                yield [batch]
        if left is not None and (left := left - min(left, len(picked.offsets))) == 0:
            return


def _cut(picked: Picked, number: int, rate: float | None) -> list[Picked]:
    most = _ASKED_RECORDS if rate is None else min(_ASKED_RECORDS, max(1, int(rate / _TICKS_PER_SECOND)))
    partition, offsets, redrives = picked.partition, picked.offsets[:number], picked.redrives[:number]
    return [
        Picked(partition, offsets[first : first + most], redrives[first : first + most])
        for first in range(0, len(offsets), most)
    ]


def _require_reason(reason: str, what: str) -> None:
    if not reason.strip():
        raise UsageError(f"{what.capitalize()} needs a reason.", remedy="Say why; it is kept in the control topic.")
