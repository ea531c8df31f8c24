"""Taking partitions up: what the last owner committed, its open transaction ended, the state restored, a new epoch.

The committed offsets are read stable, that is after every transaction that might still change them. A last owner that
died inside one keeps them unstable until its time limit; then the stamp names its transactional id, under which we
begin ourselves, which ends it (research: kafka §4.5). Offsets that are gone, or that another program committed, are
told from the checkpoint in the changelog, and never pass silently (§4.8).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from postline.errors import LogFull, LogUnavailable
from postline.log.kafka.cache import CacheBroken, CacheKey, StateCache, remove_cache
from postline.log.kafka.catalog import SubscriptionEntry
from postline.log.kafka.changelog import Checkpoint
from postline.log.kafka.groups import Committed, foreign_members
from postline.log.kafka.ownership import Owned
from postline.log.kafka.parts import GroupNames, Parts
from postline.log.kafka.stamp import Stamp
from postline.log.kafka.subscribing import check_topic
from postline.log.kafka.transactions import Transactions
from postline.log.port import Assignment
from postline.logs.events import event

__all__ = ["Takeover"]

_log = logging.getLogger("postline.log.kafka")

_LOOK_SECONDS = 0.05
#: An open transaction that has not ended by then is its owner's last: it is ended from here.
_PATIENCE_SECONDS = 2.0
_NEVER = Stamp(0, 0, "")


class Takeover:
    """Takes up partitions of one subscription. Blocking; one call at a time."""

    def __init__(self, parts: Parts, names: GroupNames, entry: SubscriptionEntry, own_id: str) -> None:
        self._parts, self._names, self._entry, self._own_id = parts, names, entry, own_id
        self.topic = names.topic

    def take(self, partitions: Sequence[int]) -> list[Owned]:
        """The partitions as they are to be owned, under epochs that nobody has committed yet. Raises LogError."""
        known = self._parts.topics.describe([self._names.state_topic]).get(self._names.state_topic)
        if known is None:
            raise self._parts.topics.unknown(self._names.state_topic)
        check_topic(self._entry, self._parts.topics.id_of(self._names.topic), self._parts.cluster.address)
        for each in foreign_members(self._parts.groups.members(self._names.group)):
            _log.error(
                "subscription %s: a program that is none of Postline's, client %r on %s, consumes in its group; what it"
                " is given we don't see: stop it",
                *(self._names.group, each.client, each.host),
                extra=event("group.foreign_member", subscription=self._names.group, client=each.client, host=each.host),
            )
        committed = self._stable(partitions)
        key = CacheKey(known.id, self._parts.cluster.cluster_id)
        return [self._take(each, key) for each in committed]

    # -- the committed offsets ----------------------------------------------------------------

    def _stable(self, partitions: Sequence[int]) -> list[Committed]:
        cluster, names = self._parts.cluster, self._names
        patient_until = cluster.clock.monotonic() + _PATIENCE_SECONDS
        while True:
            found = self._parts.groups.committed(names.group, names.topic, partitions, stable=True)
            if found is not None:
                return found
            if cluster.clock.monotonic() > patient_until:
                self._end_left_open(partitions)
                patient_until = cluster.clock.monotonic() + cluster.options.transaction_seconds
            if cluster.stopping.wait(_LOOK_SECONDS):
                raise cluster.closed()

    def _end_left_open(self, partitions: Sequence[int]) -> None:
        """End what the last owners of these partitions left open, if they are gone: who lives ends it without us."""
        names = self._names
        committed = self._parts.groups.committed(names.group, names.topic, partitions, stable=False) or []
        said = self._parts.catalog.members(names.group)
        live = {
            said[each.client].transactional_id
            for each in self._parts.groups.members(names.group)
            if each.client in said
        }
        for owner in {each.stamp.owner for each in committed if each.stamp} - {"", self._own_id} - live:
            _log.warning(
                "subscription %s: ending the open transaction of %s, which is gone",
                names.group,
                owner,
                extra=event("kafka.transaction_ended", subscription=names.group, member=owner),
            )
            transactions = Transactions(self._parts.cluster, owner)
            transactions.open()
            transactions.close()

    # -- one partition ------------------------------------------------------------------------

    def _take(self, committed: Committed, key: CacheKey) -> Owned:
        path = self._cache_path(committed.partition)
        try:
            return self._taken(committed, StateCache.open(path, key))
        except CacheBroken as error:
            _log.warning(
                "the state cache %s is of no use (%s) and is built anew",
                path,
                error,
                extra=event("state.cache_anew", path=path),
            )
            remove_cache(path)
        try:
            return self._taken(committed, StateCache.open(path, key))
        except CacheBroken as error:
            kind = LogFull if error.full else LogUnavailable
            raise kind(
                f"The state of {self._names.topic} partition {committed.partition} can't be kept in {path}: {error}",
                remedy="Make room on that disk, or choose another with cache_dir=.",
            ) from error

    def _taken(self, committed: Committed, cache: StateCache) -> Owned:
        try:
            self._catch_up(cache, committed.partition)
            where = f"Subscription {self._names.group}, {self._names.topic} partition {committed.partition}"
            checkpoint = self._parts.changelog.checkpoint(cache, where)
            position, stamp, reset_to = self._where(committed, checkpoint)
            progress = self._parts.changelog.progress(cache) if stamp.progress is None else stamp.progress
        except BaseException:
            cache.close()
            raise
        epoch = max(stamp.epoch, checkpoint.stamp.epoch if checkpoint else 0) + 1
        names = self._names
        assignment = Assignment(
            names.group, names.topic, committed.partition, epoch, position, progress, reset_to=reset_to
        )
        return Owned(assignment, position, stamp, cache)

    def _where(self, committed: Committed, checkpoint: Checkpoint | None) -> tuple[int, Stamp, int | None]:
        """Position and stamp to go on from, and where another program has moved the position, if one has."""
        where = (self._names.group, self._names.topic, committed.partition)
        if committed.position is None:
            if checkpoint is None:
                return self._start(committed.partition), _NEVER, None
            _log.error(
                "subscription %s: the committed offset of %s partition %d is gone (expired or deleted); it goes on from"
                " the checkpoint at %d, so that what was handled after it is handled again",
                *(*where, checkpoint.position),
                extra=event("position.lost"),
            )
            return checkpoint.position, checkpoint.stamp, None
        stamp = committed.stamp
        if stamp is not None and (checkpoint is None or stamp.number >= checkpoint.stamp.number):
            return committed.position, stamp, None
        if checkpoint is None:
            _log.warning(
                "subscription %s begins %s partition %d at %d, as another program chose",
                *where,
                committed.position,
                extra=event("position.chosen_by_others"),
            )
            return committed.position, _NEVER, None
        return checkpoint.position, checkpoint.stamp, committed.position

    def _start(self, partition: int) -> int:
        starts = self._entry.starts
        return starts[partition] if partition < len(starts) else 0

    # -- the state ----------------------------------------------------------------------------

    def _catch_up(self, cache: StateCache, partition: int) -> None:
        cluster = self._parts.cluster
        self._clear_if_stale(cache)
        patient_until = cluster.clock.monotonic() + _PATIENCE_SECONDS

        def waiting() -> None:
            nonlocal patient_until
            if cluster.clock.monotonic() > patient_until:
                self._end_left_open([partition])
                patient_until = cluster.clock.monotonic() + cluster.options.transaction_seconds

        self._parts.changelog.catch_up(cache, self._names.state_topic, partition, waiting)

    def _clear_if_stale(self, cache: StateCache) -> None:
        """A tombstone that was compacted away meanwhile would leave its entry alive (research: kafka §4.7)."""
        settings = self._parts.topics.settings([self._names.state_topic])[self._names.state_topic]
        kept_ms = int(settings.get("delete.retention.ms", "0"))
        if cache.applied and self._parts.cluster.clock.now_ms() - cache.saved_ms > kept_ms // 2:
            cache.clear()

    def _cache_path(self, partition: int) -> Path:
        directory = self._parts.cluster.slot.directory / self._names.state_topic
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{partition}.db"
