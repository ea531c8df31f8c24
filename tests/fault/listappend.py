"""Judges a history of sends, polls and transactions on a partitioned log, in the manner of Jepsen's Kafka workload.

Each value is sent once, so that a value tells its send, to topics that keep everything. What is not acknowledged may
be there or not, now or later; what is, must be seen by somebody. Offsets may have gaps: markers, and what was aborted.
A log grows at its end only, so that whoever reads past a place could have read it. The anomalies:

- `lost-write`: acknowledged and never read, although something later in its partition was read.
- `unseen`: acknowledged and unread, with nothing read behind it: lost, or nobody read to the end.
- `duplicate`: one value at two places. `inconsistent-offsets`: two values at one place.
- `misplaced`: read in another partition than it was sent to. `phantom`: read and never sent.
- `aborted-read`: a value of a failed send or an aborted transaction was read. `precommitted-read`: a process read
  what its own transaction, still open, had sent.
- `torn-transaction`: of a transaction with an unknown end, a part was read and another, further down, was not.
- `poll-skip`, `nonmonotonic-poll`: a process passed over what is there, or went back, without being placed anew;
  `internal-…` where both records came out of one poll.
- `nonmonotonic-send`: what one process sent later, both acknowledged, lies earlier.

And for processing: `unprocessed`, `processed-twice`, `phantom-effect`, `effects-out-of-order`, `scattered-effects`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal, TypeAlias

__all__ = [
    "Anomaly",
    "Effect",
    "Ended",
    "Input",
    "Operation",
    "Poll",
    "Report",
    "Send",
    "Sought",
    "check_history",
    "check_processing",
]

Value: TypeAlias = Hashable
Outcome: TypeAlias = Literal["ok", "fail", "unknown"]
#: Partition and offset.
Place: TypeAlias = tuple[Hashable, int]


@dataclass(frozen=True)
class Send:
    """One value sent; a process sends its next only after this one's outcome, or with it in one call.

    `fail` is for sure: it isn't there. The offset is what the log answered, if it did.
    """

    process: str
    partition: Hashable
    value: Value
    outcome: Outcome = "ok"
    offset: int | None = None
    transaction: Hashable = None


@dataclass(frozen=True)
class Ended:
    """How a transaction ended; one that never ended in the history has an unknown outcome."""

    transaction: Hashable
    outcome: Outcome = "ok"


@dataclass(frozen=True)
class Poll:
    """What one poll gave, in order; a partition goes on where the process's last poll of it ended."""

    process: str
    records: Sequence[tuple[Hashable, int, Value]]


@dataclass(frozen=True)
class Sought:
    """The process was placed anew in these partitions: assigned, taken away, or moved by seeking."""

    process: str
    partitions: Collection[Hashable]


Operation: TypeAlias = Send | Ended | Poll | Sought


@dataclass(frozen=True)
class Input:
    """A record that was to be processed, in the order of its partition."""

    partition: Hashable
    offset: int
    key: Hashable = None

    @property
    def place(self) -> Place:
        """Where it lies."""
        return (self.partition, self.offset)


@dataclass(frozen=True)
class Effect:
    """A stored effect: the place of the input that it is of, and its own, whose order is that of effects."""

    of: Place
    place: Place


@dataclass(frozen=True)
class Anomaly:
    """A broken promise and what shows it."""

    kind: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.evidence}"


@dataclass(frozen=True)
class Report:
    """All anomalies of a history."""

    anomalies: Sequence[Anomaly]

    @property
    def kinds(self) -> set[str]:
        """The names of what was found."""
        return {anomaly.kind for anomaly in self.anomalies}

    def __bool__(self) -> bool:
        return not self.anomalies

    def __str__(self) -> str:
        return "\n".join(map(str, self.anomalies)) or "no anomalies"


def check_history(history: Iterable[Operation]) -> Report:
    """All anomalies of a history of a log; the operations stand in the order in which they ended."""
    known = _Known(list(history))
    checks = (
        _unwritten(known),
        _offsets(known),
        _aborted(known),
        _precommitted(known),
        _unread(known),
        _torn(known),
        _polls(known),
        _sends(known),
    )
    return Report([anomaly for check in checks for anomaly in check])


@dataclass
class _Known:
    """A history, and what follows from it."""

    history: Sequence[Operation]

    sends: dict[Value, Send] = field(default_factory=dict)
    #: The reads of each value, and the values read at each place.
    read_at: dict[Value, dict[Place, str]] = field(default_factory=lambda: defaultdict(dict))
    ends: dict[Hashable, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operation in self.history:
            if isinstance(operation, Send):
                assert operation.value not in self.sends, f"{operation} and {self.sends[operation.value]}: sent twice"
                self.sends[operation.value] = operation
            elif isinstance(operation, Ended):
                self.ends[operation.transaction] = operation.outcome
            elif isinstance(operation, Poll):
                for partition, offset, value in operation.records:
                    self.read_at[value].setdefault((partition, offset), operation.process)

    @cached_property
    def visible_transactions(self) -> set[Hashable]:
        """Transactions without a known end of which something was read: they did commit."""
        seen = {send.transaction for value, send in self.sends.items() if value in self.read_at}
        return {each for each in seen if each is not None and self.ends.get(each, "unknown") == "unknown"}

    def outcome(self, send: Send) -> Outcome:
        """What is known of a send, its transaction's end included."""
        if send.outcome == "fail" or send.transaction is None:
            return send.outcome
        end = self.ends.get(send.transaction, "unknown")
        return send.outcome if end == "ok" else end

    @cached_property
    def places(self) -> Mapping[Value, set[Place]]:
        """Where each value lies, by what was answered and what was read; of the failed ones by reads alone."""
        found: dict[Value, set[Place]] = defaultdict(set)
        for value, send in self.sends.items():
            if send.offset is not None and self.outcome(send) != "fail":
                found[value].add((send.partition, send.offset))
        for value, reads in self.read_at.items():
            found[value].update(reads)
        return found

    @cached_property
    def there(self) -> Mapping[Hashable, list[int]]:
        """The offsets of each partition that surely hold something visible: read, or acknowledged."""
        found: dict[Hashable, set[int]] = defaultdict(set)
        for value, reads in self.read_at.items():
            if value in self.sends and self.outcome(self.sends[value]) != "fail":
                for partition, offset in reads:
                    found[partition].add(offset)
        for send in self.sends.values():
            if send.offset is not None and self.outcome(send) == "ok":
                found[send.partition].add(send.offset)
        return {partition: sorted(offsets) for partition, offsets in found.items()}

    @cached_property
    def read_to(self) -> Mapping[Hashable, int]:
        """The highest offset that was read of each partition."""
        highest: dict[Hashable, int] = {}
        for reads in self.read_at.values():
            for partition, offset in reads:
                highest[partition] = max(offset, highest.get(partition, offset))
        return highest

    @cached_property
    def by_process(self) -> Mapping[tuple[str, Hashable], list[Send]]:
        """The acknowledged sends of each process to each partition, in their order."""
        found: dict[tuple[str, Hashable], list[Send]] = defaultdict(list)
        for send in self.sends.values():
            if self.outcome(send) == "ok":
                found[send.process, send.partition].append(send)
        return found

    def offset_of(self, send: Send) -> int | None:
        """Where it lies in its partition, if that is known and unambiguous."""
        offsets = {offset for partition, offset in self.places.get(send.value, ()) if partition == send.partition}
        return offsets.pop() if len(offsets) == 1 else None


def _unwritten(known: _Known) -> Iterator[Anomaly]:
    for value, reads in known.read_at.items():
        send = known.sends.get(value)
        if send is None:
            yield Anomaly("phantom", f"{value!r} was read at {_listed(reads)}, and nobody sent it")
        elif elsewhere := [place for place in reads if place[0] != send.partition]:
            yield Anomaly("misplaced", f"{send} was read at {_listed(elsewhere)}")


def _offsets(known: _Known) -> Iterator[Anomaly]:
    at: dict[Place, set[Value]] = defaultdict(set)
    for value, places in known.places.items():
        if len(places) > 1:
            yield Anomaly("duplicate", f"{value!r} lies at {_listed(places)}")
        for place in places:
            at[place].add(value)
    for place, values in at.items():
        if len(values) > 1:
            yield Anomaly("inconsistent-offsets", f"{place} holds {' and '.join(sorted(map(repr, values)))}")


def _aborted(known: _Known) -> Iterator[Anomaly]:
    for value, reads in known.read_at.items():
        send = known.sends.get(value)
        if send is not None and known.outcome(send) == "fail":
            yield Anomaly("aborted-read", f"{send} failed or was aborted, and was read at {_listed(reads)}")


def _precommitted(known: _Known) -> Iterator[Anomaly]:
    open_sends: dict[Value, Send] = {}
    for operation in known.history:
        if isinstance(operation, Send) and operation.transaction is not None:
            open_sends[operation.value] = operation
        elif isinstance(operation, Ended):
            open_sends = {v: send for v, send in open_sends.items() if send.transaction != operation.transaction}
        elif isinstance(operation, Poll):
            for _, _, value in operation.records:
                if value in open_sends and open_sends[value].process == operation.process:
                    yield Anomaly(
                        "precommitted-read", f"{operation.process} read {value!r}, which it had yet to commit"
                    )


def _unread(known: _Known) -> Iterator[Anomaly]:
    for (_, partition), sends in known.by_process.items():
        read_to = known.read_to.get(partition, -1)
        behind: int | None = None
        for send in reversed(sends):
            offset = known.offset_of(send)
            # Without an offset of its own it lies before what its process sent after it.
            before = offset if offset is not None else behind
            if send.value not in known.read_at:
                if before is not None and before <= read_to:
                    yield Anomaly("lost-write", f"{send} was never read; its partition was, up to {read_to}")
                else:
                    yield Anomaly("unseen", f"{send} was never read, nor anything that is surely behind it")
            behind = before


def _torn(known: _Known) -> Iterator[Anomaly]:
    for value, send in known.sends.items():
        if send.transaction not in known.visible_transactions or value in known.read_at or send.outcome != "ok":
            continue
        read_to = known.read_to.get(send.partition)
        if send.offset is not None and read_to is not None and send.offset < read_to:
            yield Anomaly("torn-transaction", f"{send} was never read, other parts of its transaction were")


def _polls(known: _Known) -> Iterator[Anomaly]:
    last: dict[tuple[str, Hashable], int] = {}
    for operation in known.history:
        if isinstance(operation, Sought):
            for partition in operation.partitions:
                last.pop((operation.process, partition), None)
        elif isinstance(operation, Poll):
            inside: set[Hashable] = set()
            for partition, offset, _ in operation.records:
                before = last.get((operation.process, partition))
                if before is not None:
                    how = "internal-" if partition in inside else ""
                    yield from _step(known, operation.process, partition, (before, offset), how)
                last[operation.process, partition] = offset
                inside.add(partition)


def _step(known: _Known, process: str, partition: Hashable, step: tuple[int, int], how: str) -> Iterator[Anomaly]:
    before, offset = step
    where = f"{process} read {partition!r} at {offset} after {before}"
    if offset <= before:
        yield Anomaly(f"{how}nonmonotonic-poll", where)
        return
    there = known.there.get(partition, [])
    if skipped := there[bisect_right(there, before) : bisect_left(there, offset)]:
        yield Anomaly(f"{how}poll-skip", f"{where}, and passed over {skipped[:10]}")


def _sends(known: _Known) -> Iterator[Anomaly]:
    for sends in known.by_process.values():
        placed = [(send, offset) for send in sends if (offset := known.offset_of(send)) is not None]
        for (first, earlier), (second, later) in pairwise(placed):
            if later <= earlier:
                yield Anomaly("nonmonotonic-send", f"{second} lies at {later}, and {first}, sent before, at {earlier}")


def _listed(places: Iterable[Place]) -> str:
    return ", ".join(sorted(f"{partition}:{offset}" for partition, offset in places))


def check_processing(inputs: Sequence[Input], effects: Sequence[Effect], *, excused: Collection[Place] = ()) -> Report:
    """All anomalies of processing: each input has exactly one effect, and a key's lie in the order of its inputs.

    `excused` inputs may have none: given up, filtered, or not processed yet. A None key has no order.
    """
    by_place = {each.place: each for each in inputs}
    found: dict[Place, list[Effect]] = defaultdict(list)
    for effect in effects:
        found[effect.of].append(effect)
    anomalies = []
    for of, some in found.items():
        if of not in by_place:
            anomalies.append(Anomaly("phantom-effect", f"{some[0]} is of no input"))
        elif len(some) > 1:
            anomalies.append(Anomaly("processed-twice", f"{by_place[of]} has {len(some)} effects: {some}"))
    for each in inputs:
        if each.place not in found and each.place not in excused:
            anomalies.append(Anomaly("unprocessed", f"{each} has no effect"))
    return Report([*anomalies, *_effects_in_order(by_place, effects)])


def _effects_in_order(inputs: Mapping[Place, Input], effects: Sequence[Effect]) -> Iterator[Anomaly]:
    of_key: dict[tuple[Hashable, Hashable], list[Effect]] = defaultdict(list)
    for effect in effects:
        each = inputs.get(effect.of)
        if each is not None and each.key is not None:
            of_key[each.partition, each.key].append(effect)
    for (_, key), some in of_key.items():
        if len({effect.place[0] for effect in some}) > 1:
            yield Anomaly("scattered-effects", f"effects of key {key!r} lie in several partitions: {some[:10]}")
            continue
        some.sort(key=lambda effect: effect.place[1])
        for first, second in pairwise(some):
            if second.of[1] < first.of[1]:
                yield Anomaly("effects-out-of-order", f"key {key!r}: {second} lies behind {first}")
