"""What a test reads back from the log: messages, dead letters, keyed state, and the audit, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from postline.log.port import Log, PartitionInfo, Record
from postline.runtime.entries import DEAD, HELD, DeadEntry, HeldEntry, decode_entry, offset_of
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Progress, Standing

__all__ = ["DeadLetterView", "audit", "dead_letters", "entries", "instantly", "records"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DeadLetterView:
    """A record that a subscription gave up on, as its state describes it."""

    partition: int
    offset: int
    type: str
    key: bytes | None
    #: The record's bytes, as they were published.
    value: bytes | None
    error_type: str
    error: str
    attempts: int
    #: Later records of its key wait for a redrive or a discard.
    holds: bool


def instantly(reading: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, as reading from a log in memory never does."""
    try:
        reading.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    reading.close()
    raise AssertionError("a read of a log in memory waited")


def records(log: Log, topic: str) -> list[Record]:
    """Everything that lies in a topic, by time, then partition by partition."""
    found: list[Record] = []
    for partition, bounds in enumerate(instantly(log.bounds(topic))):
        offset = bounds.start
        while offset < bounds.end and (page := instantly(log.read(topic, partition, offset))):
            found += page
            offset = page[-1][0] + 1
    return sorted(found, key=lambda record: record[1])


def entries(log: Log, subscription: str, partition: int, namespace: str) -> Iterator[tuple[bytes, bytes]]:
    """All committed entries of one namespace of one partition."""
    after = b""
    while page := instantly(log.peek_state(subscription, partition, namespace, after=after)):
        yield from page
        after = page[-1][0]


def dead_letters(log: Log, subscription: str, topic: str) -> list[DeadLetterView]:
    """The dead letters of a subscription, in the order of partition and offset."""
    found = []
    for info in instantly(log.partitions(subscription)):
        for key, data in entries(log, subscription, info.partition, DEAD):
            offset, entry = offset_of(key), decode_entry(data, DeadEntry)
            stored = instantly(log.read_offsets(topic, info.partition, [offset]))
            view = DeadLetterView(
                partition=info.partition,
                offset=offset,
                type=entry.type,
                key=entry.key,
                value=stored[0][4] if stored else None,
                error_type=entry.error_type,
                error=entry.error,
                attempts=entry.attempts,
                holds=entry.holds,
            )
            found.append(view)
    return found


def audit(log: Log, on_fault: Callable[[str], None]) -> dict[str, dict[str, int]]:
    """Counts of outcomes by subscription; `on_fault` hears of everything that does not balance."""
    totals: dict[str, dict[str, int]] = {}
    for subscription in instantly(log.subscriptions()):
        counts: Counter[str] = Counter()
        for info in instantly(log.partitions(subscription.name)):
            progress = Progress.decode(info.progress, info.position)
            for fault in _faults(log, subscription.name, info, progress):
                on_fault(f"{subscription.name} partition {info.partition}: {fault}")
            for outcome in Outcome:
                counts[outcome.label] += progress.counts[outcome]
            counts["gaps"] += progress.gaps
        totals[subscription.name] = {label: number for label, number in counts.items() if number}
    return totals


def _faults(log: Log, subscription: str, info: PartitionInfo, progress: Progress) -> Iterator[str]:
    if missing := progress.missing(info.position):
        yield f"{missing} records below position {info.position} have no outcome"
    if min(progress.counts) < 0 or progress.gaps < 0:
        yield f"a count is below zero: {progress.counts}, gaps {progress.gaps}"
    if progress.standing is not None and (told := _told_wrongly(log, subscription, info, progress.standing)):
        yield told
    for namespace, outcome in ((HELD, Outcome.HELD), (DEAD, Outcome.DEAD_LETTERED)):
        offsets = [offset_of(key) for key, _ in entries(log, subscription, info.partition, namespace)]
        counted = sum(progress.start <= offset < info.position for offset in offsets)
        if counted != progress.counts[outcome]:
            yield f"{progress.counts[outcome]} records count as {outcome.label}, but state names {counted}: {offsets}"
        for offset in offsets:
            if offset >= info.position and not _is_ahead(progress, offset, outcome):
                yield f"offset {offset} is {outcome.label} in state, but neither counted nor done ahead"


def _told_wrongly(log: Log, subscription: str, info: PartitionInfo, standing: Standing) -> str:
    """What the owner tells beside the position that state contradicts; "" for nothing."""
    held = [decode_entry(data, HeldEntry) for _, data in entries(log, subscription, info.partition, HELD)]
    dead = [decode_entry(data, DeadEntry) for _, data in entries(log, subscription, info.partition, DEAD)]
    due_ms = min((entry.due_ms for entry in held if entry.due_ms), default=0)
    unserved = sum(entry.unserved and not entry.due_ms for entry in held)
    kept = (len(held), unserved, due_ms, len(dead), sum(entry.holds for entry in dead))
    told = (standing.held, standing.unserved, standing.next_attempt_ms, standing.dead_letters, standing.holding)
    return "" if told == kept else f"its owner tells {told}, state has {kept}: held, unserved, next due, dead, holding"


def _is_ahead(progress: Progress, offset: int, outcome: Outcome) -> bool:
    return any(first <= offset <= last and how == outcome for first, last, how in progress.ahead)
