"""`UnitWriter`: commits units of one membership as transactions: positions with stamps, state, appends.

Refused for a stale group, a unit is produced again from memory as far as its partitions are still owned; of unknown
outcome, it is looked for by its commit number. Neither runs a handler again (research: kafka §4.1 to 4.4).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from postline.errors import Fenced, LogError, LogUnavailable, MessageTooLarge
from postline.log.kafka.cache import CacheBroken, Change
from postline.log.kafka.changelog import changes_of, checkpoint_of, outgoing, progress_of
from postline.log.kafka.groups import Committed
from postline.log.kafka.ownership import Owned, Ownership
from postline.log.kafka.parts import GroupNames, Parts
from postline.log.kafka.pins import Pins
from postline.log.kafka.stamp import Stamp
from postline.log.kafka.transactions import UNTOLD, Aborted, Died, Outgoing, Transactions, failure_of
from postline.log.port import Assignment, CommitUnit, PartitionCommit
from postline.logs.events import event

__all__ = ["UnitWriter"]

_log = logging.getLogger("postline.log.kafka")

#: A checkpoint of position and stamp goes with a commit if the last one is older.
_CHECKPOINT_SECONDS = 1.0
_FRESH_SECONDS = 0.5
_STALE_SECONDS_MAX = 15.0
_LOOK_SECONDS = 0.05
#: Another process with our id began transactions so often within so long: it lives, and is no successor.
_TWIN_FENCES, _TWIN_SECONDS = 2, 60.0

_FENCES = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


class _Part:
    """One partition's part of a unit on its way."""

    __slots__ = ("changes", "commit", "owned", "stamp")

    def __init__(self, commit: PartitionCommit, owned: Owned, changes: list[Change], owner: str) -> None:
        self.commit, self.owned, self.changes = commit, owned, changes
        before = owned.stamp
        self.stamp = Stamp(commit.assignment.epoch, before.number + 1, owner, commit.progress)
        if not self.stamp.fits:
            changes.append(progress_of(commit.progress))


class UnitWriter:
    """Blocking; one call at a time, in one thread."""

    def __init__(self, parts: Parts, names: GroupNames, ownership: Ownership) -> None:
        self._cluster, self._groups, self._topics = parts.cluster, parts.groups, parts.topics
        self._changelog = parts.changelog
        self._ownership = ownership
        self._pins = Pins(parts, names.topic)
        cluster = parts.cluster
        self.group, self._topic, self.state_topic = names
        self.transactions = Transactions(cluster, cluster.transactional_id(self.group), marked=True)
        self._fenced: list[float] = []

    def commit(self, unit: CommitUnit, *, checkpoint: bool = False) -> list[Assignment]:
        """Store the unit; gives the assignments that were refused. Raises LogError with nothing stored."""
        for append in (append for part in unit for append in part.appends):
            if append.partition >= self._topics.partitions(append.topic):
                raise self._topics.unknown(append.topic)
        unknown: list[_Part] = []
        stale_until = self._cluster.clock.monotonic() + _STALE_SECONDS_MAX
        while True:
            with self._ownership.lock:
                stored = bool(unknown) and self._resolved(unknown)
                # In this order: what is lost is given up before newer metadata is published, so that metadata which the
                # coordinator still accepts never goes with a part that is over.
                metadata, _ = self._ownership.metadata()
                parts = self._parts(unit, checkpoint)
                ended = None
                if stored:
                    self._reload(unknown)
                elif parts:
                    ended = self._try(parts, metadata)
                if ended is None:
                    self._stored(parts)
                    kept = {part.commit.assignment.partition for part in parts}
                    return [part.assignment for part in unit if part.assignment.partition not in kept]
            unknown = parts if isinstance(ended, Died) else []
            self._prepare_again(ended, parts, stale_until)

    def open(self) -> None:
        """Be ready to commit, which ends what an earlier life of this process left open."""
        self.transactions.open()
        self._pins.look()

    def checkpoint(self, assignments: Sequence[Assignment]) -> None:
        """Write position and counts of these, as they are when every commit before this call has ended."""
        owned = [self._ownership.owned[each.partition] for each in assignments if self._ownership.stands(each)]
        # Before its first commit there is nothing new, and a move by another program must not be covered up.
        unit = [
            PartitionCommit(each.assignment, each.position, self._progress(each))
            for each in owned
            if each.checkpoint[0] != each.stamp.number and each.stamp.epoch == each.assignment.epoch
        ]
        if unit:
            self.commit(unit, checkpoint=True)

    def copy_threatened(self) -> None:
        """Copy held records that retention may take before long into the state of their partitions."""
        self._pins.look()
        for owned in list(self._ownership.owned.values()):
            if copies := self._pins.threatened(owned):
                puts = [(namespace, key, value) for namespace, key, value in copies if key and value is not None]
                self.commit([PartitionCommit(owned.assignment, owned.position, self._progress(owned), puts=puts)])

    def _progress(self, owned: Owned) -> bytes:
        progress = owned.stamp.progress
        return self._changelog.progress(owned.cache) if progress is None else progress

    def _parts(self, unit: CommitUnit, checkpoint: bool) -> list[_Part]:
        found = []
        now = self._cluster.clock.monotonic()
        for commit in unit:
            if not self._ownership.stands(commit.assignment):
                continue
            owned = self._ownership.owned[commit.assignment.partition]
            changes = changes_of(commit) + self._pins.changes(commit, owned.cache)
            part = _Part(commit, owned, changes, self.transactions.id)
            if checkpoint or now - owned.checkpoint[1] > _CHECKPOINT_SECONDS:
                part.changes.append(checkpoint_of(commit.position, part.stamp))
            found.append(part)
        return found

    def _try(self, parts: Sequence[_Part], metadata: Any) -> Aborted | Died | None:
        if metadata is None:
            raise LogUnavailable(
                f"Subscription {self.group!r} has no place in its group yet.", remedy="It is tried again."
            )
        offsets = [
            TopicPartition(self._topic, part.commit.assignment.partition, part.commit.position, part.stamp.encode())
            for part in parts
        ]
        try:
            placed = self.transactions.run(self._outgoing(parts), (offsets, metadata))
        except (Aborted, Died) as ended:
            return ended
        for part in parts:
            if part.changes:
                at = placed.get((self.state_topic, part.commit.assignment.partition), [UNTOLD])[-1]
                self._apply(part, part.owned.cache.applied if at == UNTOLD else at + 1)
        return None

    def _apply(self, part: _Part, applied: int) -> None:
        try:
            part.owned.cache.apply(part.changes, applied, self._cluster.clock.now_ms())
        except CacheBroken as error:
            if not self._ownership.stands(part.commit.assignment):
                return  # closed, because the partition went elsewhere meanwhile
            # The commit stands all the same; the state is restored from the changelog under another epoch.
            _log.error(
                "subscription %s: the state cache broke: %s",
                self.group,
                error,
                extra=event("state.cache_broken", subscription=self.group),
            )
            part.owned.cache_broken = True

    def _outgoing(self, parts: Sequence[_Part]) -> list[Outgoing]:
        found: list[Outgoing] = []
        for part in parts:
            found += outgoing(self.state_topic, part.commit.assignment.partition, part.changes)
            found += map(Outgoing.of, part.commit.appends)
        return found

    def _stored(self, parts: Sequence[_Part]) -> None:
        now = self._cluster.clock.monotonic()
        for part in parts:
            owned = part.owned
            owned.position, owned.stamp = part.commit.position, part.stamp
            if any(change[1] == b"checkpoint" for change in part.changes):
                owned.checkpoint = (part.stamp.number, now)

    # -- when it did not end well -------------------------------------------------------------

    def _resolved(self, unknown: Sequence[_Part]) -> bool:
        """Whether a transaction of unknown outcome was stored after all; asks until it is told.

        To raise would mean that nothing was stored. A new producer's start settles what the old one left open.
        """
        while True:
            try:
                self.transactions.open()
                return self._is_stored(unknown)
            except LogError as error:
                if not error.retryable or self._cluster.stopping.is_set():
                    raise
                _log.warning(
                    "subscription %s asks how a commit ended: %s",
                    self.group,
                    error,
                    extra=event("commit.unknown", subscription=self.group),
                )
            if self._cluster.stopping.wait(_LOOK_SECONDS):
                raise self._cluster.closed()

    def _is_stored(self, unknown: Sequence[_Part]) -> bool:
        """Told by what is still ours: a partition that went elsewhere may have another owner's commit."""
        ours = {
            part.commit.assignment.partition: (part.stamp.epoch, part.stamp.number)
            for part in unknown
            if self._ownership.stands(part.commit.assignment)
        }
        if not ours:
            return False
        committed = self._stable(sorted(ours))
        return any(each.stamp and (each.stamp.epoch, each.stamp.number) == ours[each.partition] for each in committed)

    def _reload(self, stored: Sequence[_Part]) -> None:
        """The changes are in the changelog, at offsets that nobody told; the caches take them in all the same."""
        for part in stored:
            if part.changes and self._ownership.stands(part.commit.assignment):
                self._apply(part, part.owned.cache.applied)

    def _stable(self, partitions: Sequence[int]) -> list[Committed]:
        while (found := self._groups.committed(self.group, self._topic, partitions, stable=True)) is None:
            if self._cluster.stopping.wait(_LOOK_SECONDS):
                raise self._cluster.closed()
        return found

    def _prepare_again(self, ended: Aborted | Died, parts: Sequence[_Part], stale_until: float) -> None:
        """Make sure that trying again makes sense. Raises LogError if it does not; nothing is stored then."""
        if isinstance(ended, Died):
            self._note_fence(ended)
            return
        if not ended.stale_group:
            failure = failure_of(ended, f"commit for subscription {self.group}", self._cluster.address)
            if isinstance(failure, MessageTooLarge):
                # The limit was lowered while we ran; who starts knows it, and refuses the message, not the commit.
                remedy = f"Start the service again, so that the record that causes it fails alone; or: {failure.remedy}"
                raise LogError(failure.message, remedy=remedy) from failure
            raise failure from ended
        _, number = self._ownership.metadata()
        self._end_overtaken(parts)
        if not self._ownership.wait_fresher(number, _FRESH_SECONDS) and self._cluster.clock.monotonic() > stale_until:
            raise LogUnavailable(
                f"Subscription {self.group!r} could not commit: {self._cluster.address} says that this member's place"
                " in the group is out of date.",
                remedy="It is tried again.",
            ) from ended

    def _end_overtaken(self, parts: Sequence[_Part]) -> None:
        """Give up partitions that a newer owner has committed for."""
        partitions = [part.commit.assignment.partition for part in parts]
        committed = self._groups.committed(self.group, self._topic, partitions, stable=False) or []
        ours = {part.commit.assignment.partition: part.stamp.epoch for part in parts}
        over = [each.partition for each in committed if each.stamp and each.stamp.epoch > ours[each.partition]]
        self._ownership.give_up(over, 0)

    def _note_fence(self, ended: Died) -> None:
        if ended.error.code() not in _FENCES:
            return
        now = self._cluster.clock.monotonic()
        self._fenced = [at for at in self._fenced if now - at < _TWIN_SECONDS] + [now]
        if len(self._fenced) > _TWIN_FENCES:
            raise Fenced(
                f"Another process works as {self.transactions.id!r} too, on {self._cluster.address}.",
                remedy="Give each machine and each container another POSTLINE_INSTANCE.",
            ) from ended
