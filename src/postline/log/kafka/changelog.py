"""The changelog of a partition's state: how entries are written to its topic, and how a cache is brought up to it.

One compacted topic for each subscription, co-partitioned with the subscribed topic. A record's key is the entry's
namespace, a zero byte, and the entry's key; no value removes it. Records of the engine's own begin with a zero byte:
the checkpoint (position and stamp, for when the group's offsets are gone), a progress too long for the offset's
metadata, and marks that empty a namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
from confluent_kafka import Message

from postline.errors import LogCorrupt, LogVersionError
from postline.log.kafka.cache import Change, StateCache
from postline.log.kafka.reading import Readers
from postline.log.kafka.stamp import Stamp
from postline.log.kafka.topics import Topics
from postline.log.kafka.transactions import Outgoing
from postline.log.port import PartitionCommit
from postline.message import UNREADABLE

__all__ = ["COPIES", "Changelog", "Checkpoint", "changes_of", "checkpoint_of", "progress_of"]

#: Namespaces of the engine's own, which the cache keeps beside the runtime's.
_ENGINE = "\0engine"
#: Full copies of records that retention or compaction may take while they are held.
COPIES = "\0copies"
_CHECKPOINT, _PROGRESS = b"checkpoint", b"progress"
_CLEAR = b"\0clear\0"
FORMAT = 1


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """Position and stamp of one moment."""

    format: int
    position: int
    stamp: Stamp


_encode = msgspec.msgpack.Encoder().encode
_decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode


class _Format(msgspec.Struct, array_like=True):
    format: int


_decode_format = msgspec.msgpack.Decoder(_Format).decode


def changes_of(part: PartitionCommit) -> list[Change]:
    """The part's changes of state, namespaces emptied first."""
    found: list[Change] = [(namespace, None, None) for namespace in part.clears]
    found += part.puts
    found += [(namespace, key, None) for namespace, key in part.deletes]
    return found


def checkpoint_of(position: int, stamp: Stamp) -> Change:
    """The entry that keeps them."""
    return _ENGINE, _CHECKPOINT, _encode(Checkpoint(FORMAT, position, stamp))


def progress_of(progress: bytes) -> Change:
    """The entry of a progress too long for the offset's metadata."""
    return _ENGINE, _PROGRESS, progress


def outgoing(topic: str, partition: int, changes: Sequence[Change]) -> Iterator[Outgoing]:
    """The changes as records of the changelog."""
    for namespace, key, value in changes:
        if key is None:
            yield Outgoing(topic, partition, _CLEAR + namespace.encode(), b"", told=True)
        else:
            yield Outgoing(topic, partition, namespace.encode() + b"\0" + key, value, told=True)


def change_in(key: bytes, value: bytes | None) -> Change | None:
    """The change that a record of the changelog makes; None for what no version of ours wrote."""
    if key.startswith(_CLEAR):
        return key[len(_CLEAR) :].decode(), None, None
    at = key.find(b"\0", 1)
    return None if at < 0 else (key[:at].decode("utf-8", "replace"), key[at + 1 :], value)


class Changelog:
    """Reads changelogs into caches. Blocking; thread-safe."""

    def __init__(self, topics: Topics, readers: Readers, now_ms: Callable[[], int]) -> None:
        self._topics, self._readers, self._now_ms = topics, readers, now_ms

    def catch_up(self, cache: StateCache, topic: str, partition: int, waiting: Callable[[], None]) -> None:
        """Bring the cache to the changelog's true end of this moment, open transactions of before included.

        `waiting` is called again and again while nothing comes; it may raise.
        """
        end = self._topics.end(topic, partition)
        if cache.applied > end:
            cache.clear()  # it is of another life of the topic
        if cache.applied == end:
            return
        for messages in self._readers.stream(topic, partition, cache.applied, end):
            if messages:
                changes = [change for message in messages if (change := _change(message)) is not None]
                cache.apply(changes, (messages[-1].offset() or 0) + 1, self._now_ms())
            else:
                waiting()
        cache.apply([], end, self._now_ms())

    @staticmethod
    def checkpoint(cache: StateCache, where: str) -> Checkpoint | None:
        """The last checkpoint, if there is one. `where` names the partition in errors: LogVersionError, LogCorrupt."""
        found = cache.get(_ENGINE, [_CHECKPOINT]).get(_CHECKPOINT)
        return None if found is None else _read_checkpoint(found, where)

    @staticmethod
    def progress(cache: StateCache) -> bytes:
        """The progress that had no room in the offset's metadata."""
        return cache.get(_ENGINE, [_PROGRESS]).get(_PROGRESS, b"")


def _read_checkpoint(data: bytes, where: str) -> Checkpoint:
    try:
        version = _decode_format(data).format
        if version > FORMAT:
            raise LogVersionError(
                f"{where}: a newer version wrote its state: its checkpoint has format {version}, we read {FORMAT}.",
                remedy="Run the newer version of Postline that wrote it.",
            )
        return _decode_checkpoint(data)
    except UNREADABLE as error:
        raise LogCorrupt(
            f"{where}: the checkpoint among its state can't be read: {error}",
            remedy="Another program wrote into the state topic: give write rights to the subscription's service alone.",
        ) from error


def _change(message: Message) -> Change | None:
    key = message.key()
    return None if key is None else change_in(key, message.value())
