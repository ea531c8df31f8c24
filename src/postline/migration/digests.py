"""`Digest`: a digest of a partition's records, the same on every engine and wherever reading was interrupted.

Records are hashed in blocks of 4,096 offsets and the blocks' hashes added up, so that a sum that was noted at the
beginning of a block can be gone on with.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from postline.contracts.frame import guid_behind
from postline.errors import DecodeError
from postline.log.port import FLAG_STRUCTURED, SCHEMA_ID_SHIFT, Record
from postline.log.transfer import Verified
from postline.message import Envelope

__all__ = ["BLOCK", "Digest", "StateDigest", "told"]

BLOCK = 4_096
_BYTES = 16
_MASK = (1 << 8 * _BYTES) - 1
_INTEGERS_END = 1 << 64
_offset = itemgetter(0)
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def told(record: Record, envelope: Callable[[Record], Envelope]) -> tuple[Any, ...]:
    """What a record says, however its engine keeps it: what has to be equal on both sides.

    In which form Kafka carries it, and that it names its schema by a GUID, stand elsewhere or in no file.
    """
    offset, timestamp_ms, key, name, value, flags, packed = record
    if flags:
        flags &= ~FLAG_STRUCTURED
        if flags >= _INTEGERS_END or guid_behind(flags >> SCHEMA_ID_SHIFT) is not None:
            flags &= (1 << SCHEMA_ID_SHIFT) - 1
    try:
        said = envelope(record)
        opened: Any = (
            *(said.id, said.source, said.type, said.time_ms),
            *(said.content_type, said.correlation_id, said.causation_id, said.headers),
        )
    except DecodeError:
        opened = packed
    # A time of 0 means "now" to Kafka's client.
    return offset, timestamp_ms or 1, key, name, value, flags, opened


def _bytes_of(record: Record, envelope: Callable[[Record], Envelope]) -> bytes:
    what = told(record, envelope)
    try:
        return _encode(what)
    except UnicodeEncodeError:  # what others wrote that is no UTF-8
        return repr(what).encode("utf-8", "surrogatepass")


class Digest:
    """Takes in the records of one partition, in order."""

    def __init__(self, envelope: Callable[[Record], Envelope], begun: Verified) -> None:
        self._envelope = envelope
        self._sum, self.records = int(begun.digest or "0", 16), begun.records
        self._block = begun.offset // BLOCK
        self._hasher = hashlib.blake2b(digest_size=_BYTES)
        self._fed = 0
        self._begun = begun.offset

    def feed(self, records: Sequence[Record]) -> None:
        """Take in some more."""
        start, envelope = 0, self._envelope
        while start < len(records):
            block = records[start][0] // BLOCK
            if block != self._block:
                self._close()
                self._block, self._begun = block, block * BLOCK
            stop = bisect_left(records, (block + 1) * BLOCK, start, key=_offset)
            self._hasher.update(b"".join([_bytes_of(record, envelope) for record in records[start:stop]]))
            self._fed += stop - start
            start = stop

    def _close(self) -> None:
        if self._fed:
            self._sum = (self._sum + int.from_bytes(self._hasher.digest())) & _MASK
            self.records += self._fed
            self._hasher = hashlib.blake2b(digest_size=_BYTES)
            self._fed = 0

    def adopt(self, other: Digest) -> None:
        """Have taken in what the other has: both were found equal in another way."""
        self._sum, self.records, self._fed = other._sum, other.records, other._fed
        self._block, self._begun, self._hasher = other._block, other._begun, other._hasher.copy()

    @property
    def resumable(self) -> Verified:
        """What can be gone on with: everything before the block that is not full yet."""
        return Verified(self._begun, self.records, f"{self._sum:x}")

    def upto(self, offset: int) -> Verified:
        """What was taken in so far, up to this offset."""
        total = self._sum
        if self._fed:
            total = (total + int.from_bytes(self._hasher.digest())) & _MASK
        return Verified(offset, self.records + self._fed, f"{total:x}")


class StateDigest:
    """Takes in entries of state, in order."""

    def __init__(self) -> None:
        self._hasher = hashlib.blake2b(digest_size=_BYTES)
        self.entries = 0

    def feed(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Take in some more."""
        self._hasher.update(b"".join(map(_encode, rows)))
        self.entries += len(rows)

    @property
    def digest(self) -> str:
        """Of all entries so far."""
        return self._hasher.hexdigest()
