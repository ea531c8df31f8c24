"""`Lookers`: reads what groups have committed, by clients that never join them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from postline.errors import LogUnavailable
from postline.log.kafka.cluster import PASSING, Cluster

__all__ = ["Lookers"]

#: How long one look waits.
_LOOK_SECONDS = 0.5
_UNSTABLE = PASSING | {KafkaError.UNSTABLE_OFFSET_COMMIT}
#: Each that is kept costs half a megabyte and four to six sleeping threads; a new one 5 ms.
_KEPT_MAX = 128
_AT_ONCE = 16

_Key: TypeAlias = tuple[str, bool]


class Lookers:
    """A client for each group that was looked at lately. Blocking; thread-safe.

    The administrative client's call for many groups ends the process by a segmentation fault where a coordinator has
    moved (librdkafka issue 5040), and can abort it where it times out (3663).
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Consumer] = OrderedDict()
        self._closed = False
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="postline kafka looks")

    def close(self) -> None:
        """Let go of the clients; one that is looking goes when it has looked."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._let_go()

    def look(self, group: str, places: Sequence[TopicPartition], *, stable: bool) -> list[TopicPartition] | None:
        """The group's committed offsets; None if they are not to be had within half a second.

        With `stable` that is so while a transaction is open that may change them.
        """
        with self._cluster.asking(f"read the positions of group {group}"), self._looker(group, stable) as looker:
            try:
                found = looker.committed(list(places), timeout=_LOOK_SECONDS)
                for place in found:
                    if place.error is not None:
                        raise KafkaException(place.error)
            except KafkaException as error:
                if error.args[0].code() in _UNSTABLE or error.args[0].retriable():
                    return None
                raise
        return found

    def look_at_many(self, wanted: Mapping[str, Sequence[TopicPartition]]) -> dict[str, list[TopicPartition]]:
        """The committed offsets of many groups side by side; those that are not to be had at once are left out."""

        def look(group: str) -> list[TopicPartition] | None:
            with suppress(LogUnavailable):
                return self.look(group, wanted[group], stable=True)
            return None

        try:
            looks = list(self._pool.map(look, wanted))
        except (RuntimeError, CancelledError) as error:  # the pool is closed
            raise self._cluster.closed() from error
        return {group: found for group, found in zip(wanted, looks, strict=True) if found}

    @contextmanager
    def _looker(self, group: str, stable: bool) -> Iterator[Consumer]:
        """A client that nobody else uses meanwhile."""
        with self._lock:
            looker = self._kept.pop((group, stable), None)
        if looker is None:
            isolation = "read_committed" if stable else "read_uncommitted"
            looker = self._cluster.outsider({"group.id": group, "isolation.level": isolation})
        try:
            yield looker
        finally:
            self._keep((group, stable), looker)

    def _keep(self, key: _Key, looker: Consumer) -> None:
        with self._lock:
            spare = self._kept.pop(key, None)
            self._kept[key] = looker
        if spare is not None:
            spare.close()
        self._let_go()

    def _let_go(self) -> None:
        """Close those that are too many, the longest unused first."""
        with self._lock:
            excess = len(self._kept) - (0 if self._closed else _KEPT_MAX)
            dropped = [self._kept.popitem(last=False)[1] for _ in range(excess)]
        for looker in dropped:
            looker.close()
