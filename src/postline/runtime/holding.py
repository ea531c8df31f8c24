"""Held records of one owned partition: retries that wait, what waits behind them, and dead letters."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import islice

from postline.log.port import Record
from postline.logs.events import event
from postline.runtime.deadletters import Burial, Copies, dead_letter_copy, describe, envelope_or_blank, source_of
from postline.runtime.edits import Edits
from postline.runtime.entries import (
    DEAD,
    HELD,
    DeadEntry,
    HeldEntry,
    decode_entry,
    encode_entry,
    is_stretch,
    offset_key,
    offset_keys,
    offset_of,
    pages_of,
)
from postline.runtime.lanes import UNDECODED, Item, Lane, LaneOwner, Wait, lane_key_of
from postline.runtime.outcomes import Outcome
from postline.runtime.places import place_of
from postline.runtime.redriven import AtHand, Redriven, fitting, waiting
from postline.runtime.reordering import fit_dead, fit_held
from postline.runtime.standing import HeldCounts

__all__ = ["HELD_RECORDS", "Holding"]

_log = logging.getLogger("postline.runtime")

#: Parked records brought back into memory at a time.
_UNPARK_RECORDS = 100
#: Why a partition pauses that holds as much as it may.
HELD_RECORDS = "held records"


class Holding:
    """Parks records into state and brings them back in order (DESIGN §5, guarantee 5)."""

    def __init__(self, owned: LaneOwner) -> None:
        self._owned = owned
        self.counts = HeldCounts()
        #: Who reads dead letters to end them has it until that is done: an operator's request, or their age.
        self.disposing = asyncio.Lock()
        #: Parked lanes that no key names.
        self._solo: dict[int, Lane] = {}
        #: Lanes that came due while an operator's pause is in force.
        self._waiting_for_resume: list[Lane] = []
        self.operator_paused = False
        #: Of held records that were redriven: how often, and the last redrive's name.
        self._redriven: dict[int, tuple[int, str]] = {}
        self.edits = Edits(owned)
        self.hand = AtHand(owned, self.counts, self.edits)
        self._copies = Copies(owned.around.log, owned.plan.dead_letters, owned.assignment)

    # -- taking up what the last owner left ---------------------------------------------------

    async def load(self) -> None:
        """Rebuild the lanes that were held, as they stood at the last commit."""
        heads: dict[int, tuple[Lane, HeldEntry]] = {}
        await self.edits.load()
        async for page in self._entries(HELD):
            held = [(offset, decode_entry(data, HeldEntry)) for offset, data in page]
            await fit_held(self._owned, held)
            for offset, entry in held:
                lane = self._lane(entry.lane_key, offset)
                if not lane.parked:
                    heads[offset] = (lane, entry)
                lane.parked.append(offset)
                if entry.redrives:
                    self._redriven[offset] = (entry.redrives, entry.run)
                self.counts.hold(offset, entry)
        async for page in self._entries(DEAD):
            for offset, data in page:
                dead = decode_entry(data, DeadEntry)
                fit_dead(self._owned, offset, dead)
                self.counts.bury(dead.failed_ms, holds=dead.holds)
                if dead.holds:
                    lane = self._lane(dead.lane_key, offset)
                    lane.dead.add(offset)
                    lane.wait = Wait.DEAD
        for offset, (lane, entry) in heads.items():
            lane.attempts = entry.attempts
            if lane.wait is Wait.NOTHING:
                self.counts.hold(offset, entry, ready=True)
                self._resume_head(lane, entry)
        self._apply_bound()

    async def _entries(self, namespace: str) -> AsyncIterator[list[tuple[int, bytes]]]:
        async for page in pages_of(self._owned, namespace):
            yield [(offset_of(key), data) for key, data in page]

    def _resume_head(self, lane: Lane, entry: HeldEntry) -> None:
        if not entry.due_ms:
            self._owned.enqueue(lane)
            return
        # A wall clock that jumped back must not make a record wait longer than it was told to.
        longest = entry.delay_ms / 1000 if entry.delay_ms else self._owned.plan.retry.delay_seconds_max
        left = (entry.due_ms - self._owned.around.clock.now_ms()) / 1000
        lane.wait = Wait.DUE
        self._start_timer(lane, min(max(0.0, left), longest))

    def _lane(self, key: bytes | None, offset: int) -> Lane:
        lane = self._solo.get(offset) if key is None else self._owned.lanes.get(key)
        if lane is None:
            lane = Lane(key)
            if key is None:
                self._solo[offset] = lane
            else:
                self._owned.lanes[key] = lane
        return lane

    # -- parking ------------------------------------------------------------------------------

    def park_head(self, lane: Lane, delay_seconds: float, error: BaseException) -> None:
        """The lane's first record waits for its next attempt, the others behind it."""
        delay_ms = int(delay_seconds * 1000)
        due_ms = self._owned.around.clock.now_ms() + delay_ms
        offset = lane.items[0][2][0]
        self._park_items(lane, HeldEntry(lane.key, lane.attempts, due_ms, error=describe(error), delay_ms=delay_ms))
        if lane.key is None:
            self._solo[offset] = lane
        lane.wait = Wait.DUE
        self._start_timer(lane, delay_seconds)

    def park_unserved(self, lane: Lane) -> None:
        """The lane waits for a process that handles the type of its first record."""
        offset = lane.items[0][2][0]
        self._park_items(lane, HeldEntry(lane.key, lane.attempts, unserved=True))
        if lane.key is None:
            self._solo[offset] = lane
        lane.wait = Wait.UNSERVED

    def _park_items(self, lane: Lane, head: HeldEntry | None) -> None:
        """Move everything of `items` in front of `parked`; `head` describes the first, if given."""
        offsets = []
        while lane.items:
            item = lane.items.popleft()
            if head is not None:
                self._put(item, head)
            elif item[0] is not None:
                self._put(item, HeldEntry(lane.key))
            head = None
            offsets.append(item[2][0])
        lane.parked.extendleft(reversed(offsets))
        self._apply_bound()

    def park_last(self, lane: Lane, item: Item) -> None:
        """A new record waits behind those that its lane holds."""
        self._put(item, HeldEntry(lane.key))
        lane.parked.append(item[2][0])
        self._apply_bound()

    def _put(self, item: Item, entry: HeldEntry) -> None:
        chunk, index, record = item[0], item[1], item[2]
        offset = record[0]
        entry.size = len(record[4] or b"")
        if isinstance(chunk, Redriven):
            self._redriven[offset] = (chunk.redrives(index), chunk.run)
        if redriven := self._redriven.get(offset):
            entry.redrives, entry.run = redriven
        unit = self._owned.unit
        unit.put(HELD, offset_key(offset), encode_entry(entry))
        unit.moved = True
        self.counts.hold(offset, entry)
        if chunk is not None:
            chunk.outcomes[index] = Outcome.HELD

    def holds(self, offset: int) -> bool:
        """Whether a record waits here."""
        return offset in self.counts

    def _apply_bound(self) -> None:
        plan, owned, counts = self._owned.plan, self._owned, self.counts
        if counts.records >= plan.held_records_max or counts.size_bytes >= plan.held_bytes_max:
            if not owned.paused_for(HELD_RECORDS):
                owned.pause(HELD_RECORDS)
                _log.error(
                    "subscription %s holds %d records of %s partition %d, so it pauses: redrive or discard",
                    *(plan.name, counts.records, plan.topic, owned.partition),
                    extra=event(
                        "partition.full_of_held",
                        subscription=plan.name,
                        topic=plan.topic,
                        partition=owned.partition,
                        records=counts.records,
                    ),
                )
        elif counts.records < plan.held_records_max * 0.9 and counts.size_bytes < plan.held_bytes_max * 0.9:
            owned.resume(HELD_RECORDS)

    # -- coming back --------------------------------------------------------------------------

    def _start_timer(self, lane: Lane, delay_seconds: float) -> None:
        def due() -> None:
            lane.timer = None
            self._wake(lane)

        if lane.timer is not None:
            lane.timer.cancel()
        lane.timer = self._owned.around.clock.call_later(delay_seconds, due)

    def _wake(self, lane: Lane) -> None:
        if self._owned.halted or lane.wait is not Wait.DUE:
            return
        if self.operator_paused:
            self._waiting_for_resume.append(lane)
            return
        lane.wait = Wait.NOTHING
        self._owned.enqueue(lane)

    def resume_due(self) -> None:
        """An operator's pause ended: what came due meanwhile runs now."""
        self.operator_paused = False
        lanes, self._waiting_for_resume = self._waiting_for_resume, []
        for lane in lanes:
            self._wake(lane)

    def retry_now(self, offsets: Collection[int]) -> None:
        """Let these records, or all where none is named, wait no longer for their next attempt; their ladder goes on.

        What an operator's pause holds comes at its end. The entries keep their times: where the owner dies before
        an attempt, the next one waits until then.
        """
        for lane in [*self._owned.lanes.values(), *self._solo.values()]:
            if lane.wait is Wait.DUE and lane.timer is not None and (not offsets or lane.parked[0] in offsets):
                lane.timer.cancel()
                lane.timer = None
                self._wake(lane)

    async def unpark(self, lane: Lane) -> None:
        """Bring the next parked records of the lane into memory, in order; under an operator's pause they wait on."""
        owned = self._owned
        if self.operator_paused:
            lane.wait = Wait.DUE
            self._waiting_for_resume.append(lane)
            return
        offsets = [lane.parked[i] for i in range(min(_UNPARK_RECORDS, len(lane.parked)))]
        found = await self._read(offsets)
        await owned.prepare(list(found.values()))
        if owned.halted or lane.wait is not Wait.NOTHING:
            return
        for offset in offsets:
            if not lane.parked or lane.parked[0] != offset:
                continue  # an operator discarded it meanwhile
            lane.parked.popleft()
            self._solo.pop(offset, None)
            record = found.get(offset)
            if record is None:
                self._vanished(offset)
            else:
                lane.items.append((None, offset, record, owned.plan.handler_of(record[3]), UNDECODED))

    async def _read(self, offsets: Sequence[int]) -> dict[int, Record]:
        """The records at these offsets; of one that the log lost, its copy if it was a dead letter before."""
        owned = self._owned
        log = owned.around.log
        found = {record[0]: record for record in await log.read_offsets(owned.topic, owned.partition, offsets)}
        if missing := [offset for offset in offsets if offset not in found]:
            found |= await self._copies.records(missing)
        return await self.edits.applied(found)

    def _vanished(self, offset: int) -> None:
        self._owned.unit.delete(HELD, offset_key(offset))
        self._changed(offset, Outcome.LOST)
        self._owned.vanished(offset)
        _log.error(
            "subscription %s lost held record %d of %s partition %d: the log does not have it any more",
            *(self._owned.plan.name, offset, self._owned.topic, self._owned.partition),
            extra=event(
                "record.lost",
                subscription=self._owned.plan.name,
                topic=self._owned.topic,
                partition=self._owned.partition,
                offset=offset,
            ),
        )

    def release(self, record: Record, outcome: Outcome) -> None:
        """A held record ended."""
        self._owned.unit.delete(HELD, offset_key(record[0]))
        self._changed(record[0], outcome)

    def _changed(self, offset: int, outcome: Outcome) -> None:
        self._owned.window.change(offset, outcome)
        self._owned.unit.moved = True
        if outcome is not Outcome.DEAD_LETTERED:
            self.edits.forget(offset)
        self._redriven.pop(offset, None)
        self.counts.drop(offset)
        self._apply_bound()

    # -- dead letters -------------------------------------------------------------------------

    def bury(self, lane: Lane, item: Item, error: BaseException, attempts: int) -> None:
        """Give the lane's first record up: a full copy is appended, its status kept in state."""
        owned, record = self._owned, item[2]
        offset = record[0]
        holds = owned.plan.after == "hold" and lane.key is not None
        source = source_of(error)
        nowhere = f"reading {record[3] or 'a record'}" if item[3] is None else item[3].name_for(source)
        place = place_of(source, nowhere)
        redrives, run = self._redrives_of(item)
        entry = DeadEntry(
            lane_key=lane.key,
            key=record[2],
            type=record[3],
            error_type=type(error).__qualname__,
            error=describe(error),
            attempts=attempts,
            failed_ms=owned.around.clock.now_ms(),
            holds=holds,
            place=place.text,
            group=place.group,
            size=len(record[4] or b""),
            redrives=redrives,
            run=run,
        )
        lane.items.popleft()
        lane.attempts = 0
        owned.settle(item, Outcome.DEAD_LETTERED)
        owned.unit.put(DEAD, offset_key(offset), encode_entry(entry))
        envelope = envelope_or_blank(owned.around.log, record)
        burial = Burial(record, envelope, error, attempts, entry.failed_ms, self.edits.by.get(offset, ""))
        owned.unit.appends.append(dead_letter_copy(owned.plan.dead_letters, owned.assignment, burial))
        self.counts.bury(entry.failed_ms, holds=holds)
        if holds:
            lane.dead.add(offset)
            lane.wait = Wait.DEAD
            self._park_items(lane, None)

    def _redrives_of(self, item: Item) -> tuple[int, str]:
        chunk = item[0]
        if isinstance(chunk, Redriven):
            return chunk.redrives(item[1]), chunk.run
        return self._redriven.get(item[2][0], (0, ""))

    def redrive(self, letters: Mapping[int, bytes], run: str, records: Mapping[int, Record]) -> None:
        """Run dead letters, in order of offset, again under their own offsets, before what waits behind them.

        Those of which the records are given go into their lanes at once, if nothing is to run before them.
        """
        owned, plan, lanes, handlers = self._owned, self._owned.plan, self._owned.lanes, self._owned.plan.handlers
        self.hand.account()
        owned.unit.delete_all(DEAD, offset_keys(list(letters)))
        owned.unit.moved = True
        owned.window.change_all(list(letters), Outcome.HELD, counted_as=Outcome.DEAD_LETTERED)
        batch, index, held_keys = self.hand.take(letters, records, run), -1, 0
        for offset, data in letters.items():
            record = records.get(offset)
            if record is None:
                key = decode_entry(data, DeadEntry).lane_key
            else:
                index += 1
                key = record[2] if plan.order == "key" else lane_key_of(plan.order, record[2])
            lane = (None if key is None else lanes.get(key)) or self._lane(key, offset)
            held_key = offset in lane.dead
            if held_key:
                held_keys += 1
                self._exhume(lane, offset)
            free = lane.wait is Wait.NOTHING and (not lane.parked or (held_key and _is_first(lane, offset)))
            if record is not None and free:
                if key is None:
                    del self._solo[offset]
                handler = handlers.get(record[3]) or plan.handler_of(record[3])
                lane.items.append((batch, index, record, handler, UNDECODED))
                if not lane.active:
                    owned.enqueue(lane)
                continue
            if record is not None:
                batch.outcomes[index] = Outcome.HELD
            self._park_redriven(lane, offset, waiting(decode_entry(data, DeadEntry), run), held_key)
        self.counts.exhume(len(letters), holding=held_keys)

    def _exhume(self, lane: Lane, offset: int) -> None:
        lane.dead.discard(offset)
        lane.attempts = 0
        if not lane.dead:
            lane.wait = Wait.NOTHING

    def _park_redriven(self, lane: Lane, offset: int, entry: HeldEntry, held_key: bool) -> None:
        self._redriven[offset] = (entry.redrives, entry.run)
        self._owned.unit.put(HELD, offset_key(offset), encode_entry(entry))
        self.counts.hold(offset, entry, ready=True)
        if held_key:
            lane.parked.insert(bisect_left(lane.parked, offset), offset)
        else:
            lane.parked.append(offset)
        self._let_flow(lane)

    def unwritten(self, namespace: str, key: bytes) -> bytes | None:
        """The entry that a record at hand would have."""
        entry = self.hand.entry(offset_of(key)) if namespace == HELD else None
        return None if entry is None else encode_entry(entry)

    async def at_hand(self, letters: Mapping[int, bytes]) -> dict[int, Record]:
        """The records of the first of these dead letters, as many as memory has room for."""
        records, size = (0, 0) if self.operator_paused else self.hand.room
        offsets = list(islice(letters, records))
        if not offsets:
            return {}
        if is_stretch(offsets[0], offsets[-1], len(offsets)):
            found = await self._read_stretch(offsets, size)
        else:
            found = await self._read(fitting(letters, records, size))
        await self._owned.prepare(list(found.values()))
        return found

    async def _read_stretch(self, offsets: Sequence[int], max_bytes: int) -> dict[int, Record]:
        """The records at the first of these offsets, which lie close together, as many as have so many bytes."""
        owned, first, last = self._owned, offsets[0], offsets[-1]
        log, limit = owned.around.log, last - first + 1
        read = await log.read(owned.topic, owned.partition, first, limit=limit, max_bytes=max(1, max_bytes))
        if len(read) == len(offsets) == limit and (read[0][0], read[-1][0]) == (first, last):
            return await self.edits.applied(dict(zip(offsets, read, strict=True)))
        meant = set(offsets)
        found = {record[0]: record for record in read if record[0] in meant}
        end = read[-1][0] if read else last
        missing = [offset for offset in offsets if offset <= end and offset not in found]
        return await self.edits.applied(found) | (await self._read(missing) if missing else {})

    def discard(self, offset: int, dead: DeadEntry) -> None:
        """Give a dead letter up for good; what waited behind it flows."""
        self.hand.account()
        unit = self._owned.unit
        unit.delete(DEAD, offset_key(offset))
        unit.moved = True
        self.edits.forget(offset)
        self._owned.window.change(offset, Outcome.DISCARDED, counted_as=Outcome.DEAD_LETTERED)
        self.counts.exhume(1, holding=int(dead.holds))
        if dead.holds:
            lane = self._lane(dead.lane_key, offset)
            lane.dead.discard(offset)
            self._let_flow(lane)

    def discard_held(self, offset: int, entry: HeldEntry) -> bool:
        """Give up a record that waits; False if it is running at this moment."""
        lane = self._lane(entry.lane_key, offset)
        if offset not in lane.parked:
            return False
        if lane.parked[0] == offset:
            lane.attempts = 0
            if lane.wait in (Wait.DUE, Wait.UNSERVED):
                lane.wait = Wait.NOTHING
        lane.parked.remove(offset)
        self._solo.pop(offset, None)
        self._owned.unit.delete(HELD, offset_key(offset))
        self._changed(offset, Outcome.DISCARDED)
        self._let_flow(lane)
        return True

    def _let_flow(self, lane: Lane) -> None:
        if lane.wait is Wait.DEAD and not lane.dead:
            lane.wait = Wait.NOTHING
        if lane.wait is Wait.NOTHING and lane.parked:
            self._owned.enqueue(lane)
        self._owned.retire(lane)

    def cancel_timers(self) -> None:
        """The partition goes to another owner: wake nothing any more."""
        for lane in [*self._owned.lanes.values(), *self._solo.values()]:
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None


def _is_first(lane: Lane, offset: int) -> bool:
    """Whether a letter that held its key goes before all that waits behind it."""
    return not lane.items and lane.parked[0] > offset
