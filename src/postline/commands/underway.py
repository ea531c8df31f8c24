"""Unique calls of one owned partition: one of equal ones is under way, the others wait for its outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b

from postline.commands.owed import Owed, decode_owed, encode_owed
from postline.commands.writing import ReplyWriter, Written, decode_written, encode_written
from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID, UNIQUE_ID
from postline.contracts.replies import AlreadyUnderWay, Fault, ReplyOutcome
from postline.log.port import Append, PartitionCommit, Record
from postline.logs.events import event
from postline.message import Envelope
from postline.runtime.entries import (
    HELD,
    JOINED,
    UNIQUE,
    UniqueEntry,
    decode_entry,
    encode_entry,
    offset_key,
    offset_of,
    pages_of,
)
from postline.runtime.partition import OwnedPartition
from postline.runtime.unit import PendingUnit

__all__ = ["Underway"]

_log = logging.getLogger("postline.runtime")

#: Calls that wait for the outcome of one equal to them, and all that wait so in a partition; more are refused.
JOINED_MAX, ALL_JOINED_MAX = 1_000, 10_000
_MARK_BYTES = 16


class Underway:
    """Which of equal calls is under way, and who waits for its outcome. Event loop only.

    A call claims its mark when it is admitted, in the order of the log, and lets go of it in the commit that ends it.
    Equal calls that were sent until then, fetched or not, get its outcome: they are told from later ones by where the
    partition ended when that commit was made (`seal`).
    """

    def __init__(self, owned: OwnedPartition, writer: ReplyWriter) -> None:
        self._owned, self._writer = owned, writer
        self._claims: dict[bytes, UniqueEntry] = {}
        #: By mark and offset.
        self._joined: dict[bytes, dict[int, Owed]] = {}
        self._all_joined = 0
        #: Ended, and not in any commit yet; in the commit that is being made, and what had been admitted by then.
        self._ended: list[tuple[bytes, UniqueEntry]] = []
        self._sealing: list[tuple[bytes, UniqueEntry]] = []
        self._admitted_to = 0
        #: Ended for good, and up to where equal calls are still to be admitted.
        self._closing: dict[bytes, int] = {}

    async def load(self, is_owed: Callable[[str, str], bool]) -> None:
        """Take up what the last owner left; `is_owed` tells of a client's request that was promised a later reply."""
        owned = self._owned
        async for page in pages_of(owned, UNIQUE):
            self._claims |= {key: decode_entry(data, UniqueEntry) for key, data in page}
        async for page in pages_of(owned, JOINED):
            for key, data in page:
                self._joined.setdefault(key[:_MARK_BYTES], {})[offset_of(key[_MARK_BYTES:])] = decode_owed(data)
        self._all_joined = sum(map(len, self._joined.values()))
        for mark, claim in list(self._claims.items()):
            if claim.outcome:
                self._closing[mark] = claim.horizon
                continue
            ended = owned.window.settled(claim.offset) and not is_owed(claim.client, claim.request)
            if ended and await owned.read_entry(HELD, offset_key(claim.offset)) is None:
                self._lose(mark, claim)  # a version without this ended it, or retention took it

    # -- admission --------------------------------------------------------------------------------

    def admit(self, record: Record, envelope: Envelope, *, again: bool = False) -> bool:
        """Whether a call may run; else it is answered, or waits for the outcome of one that is equal to it."""
        if (mark := _mark(envelope)) is None:
            return True
        offset, claim = record[0], self._claims.get(mark)
        if claim is None or (mark in self._closing and offset >= self._closing[mark]) or (claim.outcome and again):
            told = envelope.headers
            self._claim(mark, UniqueEntry(offset, told.get(CLIENT_ID, ""), told.get(REQUEST_ID, "")))
            return True
        if claim.offset == offset:
            return True
        if claim.outcome:
            self._answer(Owed(envelope, again), decode_written(claim.outcome))
        elif len(self._joined.get(mark, ())) >= JOINED_MAX or self._all_joined >= ALL_JOINED_MAX:
            refusal = AlreadyUnderWay(claim.client, claim.request)
            self._answer(Owed(envelope, again), self._writer.written(refusal, ReplyOutcome.REFUSAL))
        else:
            self._join(mark, offset, Owed(envelope, again), claim)
        return False

    def _claim(self, mark: bytes, claim: UniqueEntry) -> None:
        self._claims[mark] = claim
        self._closing.pop(mark, None)
        self._owned.unit.put(UNIQUE, mark, encode_entry(claim))

    def _join(self, mark: bytes, offset: int, owed: Owed, claim: UniqueEntry) -> None:
        waiting = self._joined.setdefault(mark, {})
        if offset not in waiting:
            self._all_joined += 1
        waiting[offset] = owed
        unit = self._owned.unit
        unit.put(JOINED, mark + offset_key(offset), encode_owed(owed))
        note = f"waits for the outcome of the equal call {claim.request}"
        if owed.cause.headers.get(REQUEST_ID):
            unit.appends.append(self._writer.progress(owed.cause, note, self._owned.now_ms()))

    def admitted(self) -> None:
        """More has been admitted: what ended before all of that was sent is forgotten."""
        if self._closing:
            fetched_to = self._owned.window.fetched_to
            for mark in [mark for mark, horizon in self._closing.items() if horizon <= fetched_to]:
                self._forget(mark)
                self._owned.unit.delete(UNIQUE, mark)

    def _forget(self, mark: bytes) -> None:
        self._claims.pop(mark, None)
        self._closing.pop(mark, None)

    # -- ends -------------------------------------------------------------------------------------

    def end(self, envelope: Envelope, written: Written) -> None:
        """A call has its outcome; if it was the one under way, those that wait for it have it too."""
        if (mark := _mark(envelope)) is None or (claim := self._claims.get(mark)) is None:
            return
        told = envelope.headers
        ours = (claim.client, claim.request) == (told.get(CLIENT_ID, ""), told.get(REQUEST_ID, ""))
        if ours and not claim.outcome:
            self._end(mark, claim, written)

    def _end(self, mark: bytes, claim: UniqueEntry, written: Written) -> None:
        for offset, owed in self._leave(mark).items():
            self._owned.unit.delete(JOINED, mark + offset_key(offset))
            self._answer(owed, written)
        claim.outcome = encode_written(written)
        # What becomes of the entry is known once it is known how far the partition reaches.
        self._owned.unit.changes.pop((UNIQUE, mark), None)
        self._owned.unit.moved = True
        self._ended.append((mark, claim))

    def _leave(self, mark: bytes) -> dict[int, Owed]:
        waiting = self._joined.pop(mark, {})
        self._all_joined -= len(waiting)
        return waiting

    def _answer(self, owed: Owed, written: Written) -> None:
        now_ms = self._owned.now_ms()
        self._owned.unit.appends += self._writer.records(owed.cause, written, now_ms, ticket_only=owed.again)

    def is_awaited(self, envelope: Envelope) -> bool:
        """Whether calls of others wait for the outcome of this one."""
        return (mark := _mark(envelope)) is not None and bool(self._joined.get(mark))

    def waits(self, offset: int) -> bool:
        """Whether the call at an offset waits for the outcome of an equal one."""
        return any(offset in waiting for waiting in self._joined.values())

    def withdraw(self, client: str, request: str, written: Written) -> bool:
        """Answer one that waits for another, which its client cancelled; False if it does not wait so."""
        for mark, waiting in self._joined.items():
            for offset, owed in waiting.items():
                told = owed.cause.headers
                if (told.get(CLIENT_ID), told.get(REQUEST_ID)) == (client, request):
                    del waiting[offset]
                    self._all_joined -= 1
                    self._owned.unit.delete(JOINED, mark + offset_key(offset))
                    self._answer(owed, written)
                    return True
        return False

    def lose(self, is_lost: Callable[[UniqueEntry], bool]) -> None:
        """Some calls will never be handled: whoever waits for one of them is told."""
        for mark, claim in list(self._claims.items()):
            if not claim.outcome and is_lost(claim):
                self._lose(mark, claim)

    def _lose(self, mark: bytes, claim: UniqueEntry) -> None:
        _log.error(
            "subscription %s: call %s of %s is gone, and so equal ones that waited for it fail",
            *(self._owned.subscription, claim.request, claim.client),
            extra=event(
                "call.lost",
                subscription=self._owned.subscription,
                partition=self._owned.partition,
                request=claim.request,
                client=claim.client,
            ),
        )
        fault = Fault("Lost", f"the equal call {claim.request} that was under way is gone")
        self._end(mark, claim, self._writer.written(fault, ReplyOutcome.FAULT))

    def reset(self, unit: PendingUnit, target: int) -> list[Append]:
        """Forget all in a reset's commit; gives the faults of those that waited and will not be read again."""
        unit.clear(UNIQUE)
        unit.clear(JOINED)
        fault = Fault("Discarded", "an operator moved the service's position past it")
        written = self._writer.written(fault, ReplyOutcome.FAULT)
        return [
            append
            for waiting in self._joined.values()
            for offset, owed in waiting.items()
            if offset < target
            for append in self._writer.records(owed.cause, written, self._owned.now_ms(), ticket_only=owed.again)
        ]

    # -- commits ----------------------------------------------------------------------------------

    def take(self) -> None:
        """A commit takes all that ended by now."""
        self._sealing += self._ended
        self._ended = []
        self._admitted_to = self._owned.window.fetched_to

    async def seal(self, part: PartitionCommit) -> None:
        """Put into a commit, before it is made, up to where equal calls still get the outcomes in it.

        That is where the partition ends now: whoever sent one below could not know of these outcomes yet. Raises
        LogError, with nothing done.
        """
        if not self._sealing:
            return
        owned = self._owned
        end = (await owned.around.log.bounds(owned.topic))[owned.partition].end
        for mark, claim in self._sealing:
            if self._claims.get(mark) is not claim:
                continue  # it was redriven meanwhile, and is under way again
            if end <= self._admitted_to:
                self._forget(mark)
                part.deletes.append((UNIQUE, mark))
                continue
            claim.horizon = self._closing[mark] = end
            part.puts.append((UNIQUE, mark, encode_entry(claim)))
        self._sealing = []


def _mark(envelope: Envelope) -> bytes | None:
    told = envelope.headers.get(UNIQUE_ID)
    return None if told is None else blake2b(told.encode("utf-8", "surrogatepass"), digest_size=_MARK_BYTES).digest()
