"""One owned partition at work: records into lanes, outcomes into the next commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from postline.contracts.priorities import Priority
from postline.log.port import Assignment, Membership, PartitionCommit, Record
from postline.logs.events import event
from postline.message import Envelope
from postline.runtime.aging import Aging
from postline.runtime.complaints import Place
from postline.runtime.context import Context
from postline.runtime.dedup import OWN_ID_WINDOW, Marks
from postline.runtime.desk import PartitionDesk
from postline.runtime.entries import (
    PRIORITY,
    PRIORITY_KEY,
    TYPES,
    USER_STATE,
    PriorityEntry,
    encode_entry,
    entries_of,
    keys_of,
)
from postline.runtime.history import History
from postline.runtime.holding import Holding
from postline.runtime.lanes import UNDECODED, Item, Lane, lane_key_of
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Cause, Progress
from postline.runtime.standing import SAMPLE_MS, sampled, standing_of
from postline.runtime.surroundings import Surroundings
from postline.runtime.timers import Timers
from postline.runtime.unit import PendingUnit
from postline.runtime.window import Chunk, Window

__all__ = ["OwnedPartition"]

_log = logging.getLogger("postline.runtime")

_STATES_CACHED_MAX = 10_000
_WINDOW_RECORDS_MAX = 16_384
_WINDOW_RUNS_MAX = 400


class OwnedPartition(PartitionDesk):
    """Lanes, window and pending unit of one assignment. Event loop only.

    It also is the desk that contexts work on.
    """

    def __init__(
        self,
        around: Surroundings,
        assignment: Assignment,
        membership: Membership,
        enqueue: Callable[[OwnedPartition, Lane], None],
    ) -> None:
        plan = around.plan
        super().__init__(around, assignment.partition)
        self.assignment, self.membership = assignment, membership
        self.window = Window(assignment.position, Progress.decode(assignment.progress, assignment.position))
        self.unit = PendingUnit()
        self.committing: PendingUnit | None = None
        self.lanes: dict[bytes, Lane] = {}
        self.bulk: Lane | None = Lane(None) if plan.batch is not None else None
        self.types: set[str] = set()
        window, count = (plan.dedup.window, plan.dedup.count) if plan.dedup else OWN_ID_WINDOW
        if plan.answering is not None:  # a request may be repeated for as long as its ticket is kept
            window, count = max(window, OWN_ID_WINDOW[0], plan.marks_kept), max(count, OWN_ID_WINDOW[1])
        self.marks = Marks(window, count)
        #: Envelopes of commands that admission has opened, by offset; their attempts take them out.
        self.opened: dict[int, Envelope] = {}
        self.holding = Holding(self)
        self.history = History(assignment.position + self.window.progress.settled_ahead)
        self.timers = Timers(self, plan.timers)
        self.aging = Aging(self)
        self.answers = plan.answering.open(self) if plan.answering is not None else None
        #: What operators ask comes from here; after a rename from the old name's topic, until that is at its end.
        self.control_topic = plan.control
        self.control_offset = 0
        #: No attempt may begin any more.
        self.draining = False
        #: None that still runs may settle either.
        self.halted = False
        #: Keys whose state a running batch may use.
        self.in_batch: frozenset[bytes] = frozenset()
        #: Lanes in the hands of workers.
        self.running = 0
        self._enqueue = enqueue
        self._pauses: set[str] = set()
        #: What keeps the subscription from going on in this process.
        self.causes: list[Cause] = []

    async def load(self) -> None:
        """Take up what the last owner left in state."""
        self.types = {name.decode() for name in await keys_of(self, TYPES)}
        await self.timers.load()
        if self.plan.taken_up is not None:
            await self.plan.taken_up(self)
        if self.answers is not None:
            await self.answers.load()
        if self.plan.priority is not None:
            await self._tell_priority(self.plan.priority)
        # Last, because it lets workers begin: were anything asked of the log after it, they could begin in vain.
        await self.holding.load()
        self._tell_standing()
        for name in self.plan.handlers.keys() - self.types - {""}:
            self.learn_type(name)

    def _tell_standing(self) -> None:
        """Commit soon how it stands, where the last owner didn't tell, or told something else."""
        told, limits = self.window.progress.standing, self.plan.dead_letter_policy.limits
        stale = (
            told is None
            or set(told.pauses) != self._pauses
            or told.causes != self.causes
            or (told.alarm_count, told.alarm_age_ms) != (limits.alarm_count, limits.alarm_age_ms)
        )
        if self.assignment.progress and stale:
            self.unit.moved = True

    async def _tell_priority(self, priority: Priority) -> None:
        """Keep which priority this is, if it isn't known or has changed: nobody else could tell an operator."""
        told = encode_entry(PriorityEntry(self.plan.declared_as, priority.name, priority.rank, priority.share))
        if dict(await self.membership.scan_state(self.assignment, PRIORITY)).get(PRIORITY_KEY) != told:
            self.unit.put(PRIORITY, PRIORITY_KEY, told)

    def learn_type(self, name: str) -> None:
        """Some version of this subscription handles the type: never filter it."""
        if name not in self.types:
            self.types.add(name)
            self.unit.put(TYPES, name.encode(), b"")

    # -- records in -------------------------------------------------------------------------

    def lane_key(self, record: Record) -> bytes | None:
        """The key that the record's order belongs to; None for a lane of its own."""
        return lane_key_of(self.plan.order, record[2])

    def group(self, chunk: Chunk, records: Sequence[Record], messages: Mapping[int, Any]) -> None:
        """Put fetched records into lanes; those in `messages` are decoded, or failed, already."""
        outcomes, handlers, lanes, by_key = chunk.outcomes, self.plan.handlers, self.lanes, self.plan.order == "key"
        enqueue, bulk = self._enqueue, self.bulk
        for index, record in enumerate(records):
            if outcomes[index]:
                continue
            handler = handlers.get(record[3]) or self.plan.handler_of(record[3])
            if handler is None and record[3] not in self.types:
                self._filter_unknown(chunk, index, record)
                continue
            message = messages.get(index, UNDECODED) if messages else UNDECODED
            item: Item = (chunk, index, record, handler, message)
            key = record[2] if by_key else self.lane_key(record)
            # A batch hands records over to their key's lane itself, in order, when it meets them.
            lane = bulk if bulk is not None else None if key is None else lanes.get(key)
            if lane is None:
                lane = Lane(key)
                if key is not None:
                    lanes[key] = lane
            elif not lane.free:
                self.holding.park_last(lane, item)
                continue
            lane.items.append(item)
            if not lane.active:
                lane.active = True
                enqueue(self, lane)

    def _filter_unknown(self, chunk: Chunk, index: int, record: Record) -> None:
        chunk.outcomes[index] = Outcome.FILTERED
        self.unit.moved = True
        type_name = record[3]
        if self.answers is not None:
            self.answers.unhandled(record)
        if type_name not in self.around.filtered_types:
            self.around.filtered_types.add(type_name)
            _log.warning(
                "subscription %s filters records of type %r, which no version of it ever handled",
                *(self.plan.name, type_name),
                extra=event("type.filtered", subscription=self.plan.name, topic=self.topic, type=type_name),
            )

    def lost_to_retention(self, number: int, first: int, log_start: int) -> None:
        """Say aloud that retention overtook the position; the audit counts it."""
        self.unit.moved = True
        if self.answers is not None:
            self.answers.lose(lambda offset: first <= offset < log_start and not self.holding.holds(offset))
        _log.error(
            "subscription %s lost %d records of %s partition %d to retention, which begins at %d now",
            *(self.plan.name, number, self.topic, self.partition, log_start),
            extra=event(
                "records.lost_to_retention",
                subscription=self.plan.name,
                topic=self.topic,
                partition=self.partition,
                records=number,
            ),
        )

    async def prepare(self, records: Sequence[Record]) -> None:
        """Have what these records' handlers need, looked up in one go: decoders for their versions, keyed state."""
        await self.around.versions.learn(records)
        if self.plan.state is None:
            return
        missing = list({record[2] for record in records if record[2] is not None} - self.states.keys())
        if missing:
            found = await self.membership.get_state(self.assignment, USER_STATE, missing)
            for key in missing:
                self.states.setdefault(key, found.get(key))

    def enqueue(self, lane: Lane) -> None:
        """Let a worker take the lane, unless one has it already."""
        if not lane.active and not self.draining:
            lane.active = True
            self._enqueue(self, lane)

    # -- outcomes ---------------------------------------------------------------------------

    def settle(self, item: Item, outcome: Outcome) -> None:
        """The record ended; its outcome goes into the next commit."""
        chunk, index = item[0], item[1]
        self.unit.moved = True
        if chunk is not None:
            chunk.outcomes[index] = outcome
        else:
            self.holding.release(item[2], outcome)
        if outcome is Outcome.FILTERED:
            self.vanished(item[2][0])

    def complete(self, item: Item, context: Context[Any]) -> None:
        """The attempt succeeded: its outputs and state changes go with its settlement."""
        self.settle(item, Outcome.DONE)
        self.keep_outputs(context)
        if item[0] is None and context.attempt > 1:
            place = Place(self.topic, self.partition, context.offset)
            self.around.complaints.released(place, context.attempt)

    def keep_outputs(self, context: Context[Any]) -> None:
        """Put what the handler published and stored into the next commit."""
        if context.outbox is not None:
            self.unit.appends += context.outbox
        if context.delayed is not None:
            for waiting in context.delayed:
                self.timers.put_off(waiting)
        if context.entries is not None:
            self.unit.changes.update(context.entries)
        if self.answers is not None:
            self.answers.settled(context)
        if context.staged is not None:
            for key, data in context.staged.items():
                self.states[key] = data
                self.unit.changes[USER_STATE, key] = data

    def vanished(self, offset: int) -> None:
        """A record that was admitted is not in the log any more, or not for us: it will have no answer."""
        if self.answers is not None:
            self.answers.lose(lambda each: each == offset)

    def lane_for(self, item: Item) -> Lane:
        """The lane of the record's own key, made if need be; a batch hands single records to it."""
        key = self.lane_key(item[2])
        return Lane(None) if key is None else self.lanes.setdefault(key, Lane(key))

    def retire(self, lane: Lane) -> None:
        """A worker is done with the lane for now: forget it if nothing of it is left."""
        if lane.empty and lane.key is not None and self.lanes.get(lane.key) is lane:
            del self.lanes[lane.key]

    # -- commits ----------------------------------------------------------------------------

    def take_commit(self) -> PartitionCommit:
        """Everything settled by now, as this partition's part of a commit unit."""
        self.holding.hand.write()
        self.window.advance()
        progress = self.window.encode(self._stand)
        self.committing, self.unit = self.unit, PendingUnit()
        if self.answers is not None:
            self.answers.take()
        return self.committing.commit(self.assignment, self.window.position, progress)

    def _stand(self, progress: Progress) -> None:
        """Tell how the partition stands with this commit; in the history, too, if it is the first of its minute."""
        now_ms, position = self.around.clock.now_ms(), self.window.position
        samples = progress.standing.samples if progress.standing is not None else []
        if not samples or not 0 <= now_ms - samples[-1][0] < SAMPLE_MS:
            samples = sampled(samples, now_ms, position + progress.settled_ahead)
        standing = standing_of(self.plan, self.holding.counts, self._pauses, samples)
        progress.standing, standing.causes = standing, self.causes
        self.history.note(self.unit, now_ms, position, progress, standing)

    def committed(self) -> None:
        """The last `take_commit` is durable."""
        self.committing = None
        self.marks.trim(self.unit)
        self.timers.committed()
        if len(self.opened) > _STATES_CACHED_MAX:
            self.opened.clear()  # of duplicates, and of what is held
        if len(self.states) > _STATES_CACHED_MAX:
            used = {key for key, lane in self.lanes.items() if lane.items}
            unsaved = {key for namespace, key in self.unit.changes if namespace == USER_STATE}
            kept = used | unsaved | self.in_batch
            if self.bulk is not None:
                kept |= {item[2][2] for item in self.bulk.items if item[2][2] is not None}
            self.states = {key: data for key, data in self.states.items() if key in kept}

    async def read_entry(self, namespace: str, key: bytes) -> bytes | None:
        """A state entry as this owner last wrote it, committed or not."""
        if (data := self.holding.unwritten(namespace, key)) is not None:
            return data
        for unit in (self.unit, self.committing):
            if unit is not None and (namespace, key) in unit.changes:
                return unit.changes[namespace, key]
        return (await self.membership.get_state(self.assignment, namespace, [key])).get(key)

    async def read_entries(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """As `read_entry`, of many; absent ones are left out."""
        units = [self.committing, self.unit]  # before the read: what is committed meanwhile may not be in it
        stored = await entries_of(self, namespace, keys)
        units += [each for each in (self.committing, self.unit) if each not in units]
        for unit in units:
            if unit is not None and not unit.changes.keys().isdisjoint(zip(repeat(namespace), keys, strict=False)):
                _overlay(stored, unit, namespace, keys)
        return stored

    # -- pausing ----------------------------------------------------------------------------

    def pause(self, reason: str) -> None:
        """Fetch no more of this partition until `resume` was called for each reason."""
        if not self._pauses:
            self.membership.pause(self.assignment)
        self._pauses.add(reason)

    def resume(self, reason: str) -> None:
        """Withdraw one reason to pause; fetching goes on when none is left."""
        if reason in self._pauses:
            self._pauses.remove(reason)
            if not self._pauses and not self.halted:
                self.membership.resume(self.assignment)

    @property
    def paused(self) -> bool:
        """Whether anything keeps this partition from being fetched."""
        return bool(self._pauses)

    def paused_for(self, reason: str) -> bool:
        """Whether this reason to pause is in force."""
        return reason in self._pauses

    def paused_but_for(self, reason: str) -> bool:
        """Whether anything but this reason keeps this partition from being fetched."""
        return bool(self._pauses - {reason})

    def bound_window(self) -> None:
        """Pause fetching while too much is settled ahead of a slow record (DESIGN §5.1)."""
        full = self.window.size() > _WINDOW_RECORDS_MAX or len(self.window.progress.ahead) > _WINDOW_RUNS_MAX
        if full:
            self.pause("window")
        elif self._pauses:
            self.resume("window")

    def halt(self) -> None:
        """Begin no attempt any more and settle none; what was settled can still be committed."""
        self.draining = self.halted = True
        self.holding.cancel_timers()
        self.timers.stop()
        self.aging.stop()


def _overlay(stored: dict[bytes, bytes], unit: PendingUnit, namespace: str, keys: Sequence[bytes]) -> None:
    """Have the entries as the unit changes them."""
    for key in keys:
        if (namespace, key) in unit.changes:
            change = unit.changes[namespace, key]
            if change is None:
                stored.pop(key, None)
            else:
                stored[key] = change
