"""Decides from what was published, handled and stored whether anything was lost, doubled, reordered or made up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "AuditLine",
    "Execution",
    "History",
    "Identity",
    "Problem",
    "Publication",
    "StoredRecord",
    "check_audit",
    "check_effects",
    "check_equal",
    "check_executions",
    "check_publishing",
]

#: (source, id) of a message.
Identity = tuple[str, str]


@dataclass(frozen=True)
class Problem:
    """A broken guarantee: `kind` is lost, doubled, reordered, phantom, audit or wrong."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Publication:
    """A message that somebody tried to publish; `sequence` counts within (topic, key)."""

    topic: str
    identity: Identity
    key: bytes
    sequence: int
    #: Some attempt was acknowledged. Otherwise the outcome is unknown, or `refused` for sure.
    acknowledged: bool = False
    refused: bool = False


@dataclass(frozen=True)
class Execution:
    """One call of a handler that ended; `epoch` and `process` say under which assignment.

    `stale`: the assignment was over by then, whether the process knew or not. What such a one does is
    never committed, and what it reads may be newer than its position.
    """

    subscription: str
    identity: Identity
    ok: bool
    partition: int = 0
    epoch: int = 0
    process: str = ""
    stale: bool = False


@dataclass(frozen=True)
class StoredRecord:
    """A record found in the log at the end; `cause` is the message whose handling published it."""

    partition: int
    offset: int
    key: bytes | None
    identity: Identity
    cause: Identity | None = None


@dataclass(frozen=True)
class AuditLine:
    """The audit of one partition: counts by outcome, held and gaps included, below the position."""

    subscription: str
    partition: int
    start: int
    position: int
    counts: Mapping[str, int]
    #: Held records and dead letters, as the owner tells beside the position, and as they lie in state.
    told: tuple[int, int] = (0, 0)
    kept: tuple[int, int] = (0, 0)


@dataclass
class History:
    """What the participants saw, in the order in which it happened."""

    publications: dict[Identity, Publication] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)

    def publishing(self, topic: str, identity: Identity, key: bytes, sequence: int) -> None:
        """An attempt begins; repeating it with the same identity is one publication."""
        self.publications.setdefault(identity, Publication(topic, identity, key, sequence))

    def acknowledged(self, identity: Identity) -> None:
        """An attempt was acknowledged: the message may not be lost any more."""
        self.publications[identity].acknowledged = True

    def refused(self, identity: Identity) -> None:
        """No attempt can have been stored: the message may not appear."""
        self.publications[identity].refused = True

    def executed(self, execution: Execution) -> None:
        """A handler ended."""
        self.executions.append(execution)


def check_publishing(
    history: History, topic: str, records: Sequence[StoredRecord], *, removed: Collection[Identity] = ()
) -> list[Problem]:
    """Whether the topic holds what was published to it, in order; `removed` by retention or compaction."""
    problems = []
    found = {record.identity for record in records}
    for publication in history.publications.values():
        if publication.topic != topic:
            continue
        there = publication.identity in found
        if publication.acknowledged and not there and publication.identity not in removed:
            problems.append(Problem("lost", f"{publication} was acknowledged and isn't in the log"))
        if publication.refused and there:
            problems.append(Problem("phantom", f"{publication} was refused and is in the log"))
    known = [record for record in records if record.identity in history.publications]
    if len(known) < len(records):
        strangers = [record for record in records if record.identity not in history.publications]
        problems.append(Problem("phantom", f"nobody published {strangers[:5]}"))
    return problems + _check_order(history, _first_copies(known), f"topic {topic}", lambda record: record.identity)


def check_effects(
    history: History,
    subscription: str,
    records: Sequence[StoredRecord],
    effects: Sequence[StoredRecord],
    *,
    excluded: Collection[Identity] = (),
    unordered: Collection[bytes] = (),
) -> list[Problem]:
    """Whether each record had exactly one committed effect, in the order of publication within its key.

    `effects` are the records that the subscription's handlers published, one for each record that is
    done; `excluded` ended otherwise (dead-lettered, discarded, …), `unordered` keys gave up order.
    """
    problems = []
    handled = {record.identity for record in records}
    counts: dict[Identity | None, int] = defaultdict(int)
    for effect in effects:
        counts[effect.cause] += 1
    for identity in dict.fromkeys(record.identity for record in records):
        times = counts.get(identity, 0)
        if identity in excluded:
            if times:
                problems.append(Problem("phantom", f"{subscription}: {identity} isn't done and has {times} effects"))
        elif times == 0:
            problems.append(Problem("lost", f"{subscription}: no effect of {_named(history, identity)}"))
        elif times > 1:
            problems.append(Problem("doubled", f"{subscription}: {times} effects of {_named(history, identity)}"))
    for cause in counts:
        if cause not in handled:
            problems.append(Problem("phantom", f"{subscription}: an effect of {cause}, which is no record"))
    causes = [effect for effect in effects if effect.cause in history.publications]
    ordered = [effect for effect in causes if history.publications[_cause(effect)].key not in unordered]
    return problems + _check_order(history, ordered, f"effects of {subscription}", _cause)


def check_executions(
    history: History,
    subscription: str,
    records: Sequence[StoredRecord],
    *,
    excluded: Collection[Identity] = (),
    unordered: Collection[bytes] = (),
) -> list[Problem]:
    """Whether handlers ran in order: never on a record before all earlier ones of its key succeeded.

    Runs repeated under another assignment are legal; two successes under one that is in force are not.
    """
    problems = []
    expected: dict[bytes, list[int]] = defaultdict(list)
    for identity in dict.fromkeys(record.identity for record in records):
        if (publication := history.publications.get(identity)) and identity not in excluded:
            expected[publication.key].append(publication.sequence)
    waiting = {key: sorted(sequences, reverse=True) for key, sequences in expected.items()}
    succeeded: set[tuple[bytes, int]] = set()
    successes: set[tuple[Identity, int, int, str]] = set()
    for execution in history.executions:
        publication = history.publications.get(execution.identity)
        if execution.subscription != subscription or publication is None or execution.identity in excluded:
            continue
        key, sequence = publication.key, publication.sequence
        pending = waiting.get(key, [])
        while pending and (key, pending[-1]) in succeeded:
            pending.pop()
        if key not in unordered and pending and pending[-1] < sequence:
            text = (
                f"{subscription}: {publication} was handled by {execution.process} before {pending[-1]} had succeeded"
            )
            problems.append(Problem("reordered", text))
        if not execution.ok:
            continue
        succeeded.add((key, sequence))
        run = (execution.identity, execution.partition, execution.epoch, execution.process)
        if run in successes and not execution.stale:
            problems.append(Problem("doubled", f"{subscription}: {execution} succeeded twice under one assignment"))
        successes.add(run)
    return problems


def check_audit(lines: Iterable[AuditLine]) -> list[Problem]:
    """Whether the counts of every partition add up to what its position passed."""
    problems = []
    for line in lines:
        total = sum(line.counts.values())
        if total != line.position - line.start or min(line.counts.values(), default=0) < 0:
            text = f"{line} counts {total} records of {line.position - line.start}"
            problems.append(Problem("audit", text))
        if line.told != line.kept:
            text = f"{line}: the owner tells of {line.told} held records and dead letters, state has {line.kept}"
            problems.append(Problem("audit", text))
    return problems


def check_equal(what: str, expected: Mapping[Any, object], actual: Mapping[Any, object]) -> list[Problem]:
    """Whether a computed result is the one that a direct computation gives."""
    keys = dict.fromkeys([*expected, *actual])
    wrong = [(key, expected.get(key), actual.get(key)) for key in keys if expected.get(key) != actual.get(key)]
    return [Problem("wrong", f"{what} (key, expected, actual): {wrong[:5]}")] if wrong else []


def _check_order(history: History, records: Sequence[StoredRecord], where: str, identity_of: object) -> list[Problem]:
    """Whether the sequences of each key ascend within each partition, and the key has one partition only."""
    problems = []
    last: dict[bytes, tuple[int, int]] = {}
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        publication = history.publications[identity_of(record)]  # type: ignore[operator]
        partition, sequence = last.get(publication.key, (record.partition, -1))
        if partition != record.partition:
            text = f"{where}: key {publication.key!r} is in partitions {partition} and {record.partition}"
            problems.append(Problem("reordered", text))
        if sequence > publication.sequence:
            text = (
                f"{where}: {publication.key!r} has {publication.sequence} at offset {record.offset}, after {sequence}"
            )
            problems.append(Problem("reordered", text))
        last[publication.key] = (record.partition, publication.sequence)
    return problems


def _first_copies(records: Sequence[StoredRecord]) -> list[StoredRecord]:
    """Records without later copies, which a publisher's repetition may leave."""
    first: dict[Identity, StoredRecord] = {}
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        first.setdefault(record.identity, record)
    return list(first.values())


def _cause(record: StoredRecord) -> Identity:
    assert record.cause is not None
    return record.cause


def _named(history: History, identity: Identity) -> str:
    publication = history.publications.get(identity)
    return str(publication or identity)
