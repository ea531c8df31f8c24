"""Deduplication: which field of a message tells a duplicate, and the marks of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import msgspec

from postline.errors import SettingsError
from postline.log.port import Record
from postline.message import ENCODING_ERRORS, Envelope
from postline.runtime.entries import DEDUP, DEDUP_ORDER, offset_key, offset_of
from postline.runtime.unit import PendingUnit

__all__ = ["EVICTION_STEP", "OWN_ID_WINDOW", "Dedup", "Marks", "identity_digest"]

#: Evicting looks at this many marks at a time.
EVICTION_STEP = 200

#: Window and count for marks of messages that were published with an own id.
OWN_ID_WINDOW = (timedelta(days=7), 10_000)


@dataclass(frozen=True, kw_only=True)
class Dedup:
    """What makes two messages of one partition the same, and for how long that is remembered.

    Exactly one of `by_id`, `field` and `digest` is chosen. A mark is forgotten only when both
    `window` has passed and `count` later records have come.
    """

    by_id: bool = False
    field: str | None = None
    digest: bool = False
    #: Top-level fields that a digest leaves out.
    ignore: tuple[str, ...] = ()
    window: timedelta = timedelta(days=7)
    count: int = 10_000

    def __post_init__(self) -> None:
        problems = []
        if [self.by_id, self.field is not None, self.digest].count(True) != 1:
            problems.append("choose exactly one of by_id=True, field=… and digest=True.")
        if self.ignore and not self.digest:
            problems.append("ignore= belongs to digest=True.")
        if self.window <= timedelta(0) or self.count < 0:
            problems.append("window must be above zero and count not below it.")
        if problems:
            raise SettingsError("Dedup can't be used: " + " ".join(problems))

    def digest_of(self, record: Record, message: Any, envelope: Callable[[Record], Envelope]) -> bytes | None:
        """The mark that this record leaves; None if it has none (a missing id or field)."""
        if self.by_id:
            return identity_digest(envelope(record))
        try:
            return self._digest_of(record, message)
        except Exception:  # noqa: BLE001 - foreign bytes, or a value's own code; equal bytes are equal all the same
            return None if record[4] is None else _digest("bytes", record[3], record[4])

    def _digest_of(self, record: Record, message: Any) -> bytes | None:
        if self.field is None:
            return _digest("digest", record[3], self._content(record[4] or b""))
        value = message
        for name in self.field.split("."):
            value = getattr(value, name, None)
        # Of this key alone: other keys of the partition may count by themselves, from 1 as well.
        return None if value is None else _digest("field", record[3], b"%r\x1f%r" % (record[2], repr(value)))

    def _content(self, value: bytes) -> bytes:
        content = msgspec.json.decode(value)
        if self.ignore and isinstance(content, dict):
            for name in self.ignore:
                content.pop(name, None)
        return msgspec.json.encode(content, order="sorted")


def identity_digest(envelope: Envelope) -> bytes | None:
    """The mark of a message's identity (source, id); None for a foreign record without an id."""
    return _digest("id", envelope.source, envelope.id.encode("utf-8", ENCODING_ERRORS)) if envelope.id else None


def _digest(kind: str, scope: str, content: bytes) -> bytes:
    return blake2b(f"{kind}\x1f{scope}\x1f".encode("utf-8", ENCODING_ERRORS) + content, digest_size=16).digest()


class Marks:
    """The marks of one partition: digest to the offset that left it.

    The same offset again is a replay and no duplicate. A mark is written before its record is
    settled; that is safe, because the record can't be passed over meanwhile.
    """

    def __init__(self, window: timedelta, count: int) -> None:
        self._window_ms = int(window.total_seconds() * 1000)
        self._count = count
        #: By mark, the offset that left it and when, as state has them.
        self._known: dict[bytes, bytes] = {}
        self._next_eviction_ms = 0
        self.written = False

    def missing(self, digests: Sequence[bytes]) -> list[bytes]:
        """Those that have to be looked up in state before `is_duplicate` is asked."""
        return [digest for digest in digests if digest not in self._known]

    def learn(self, found: dict[bytes, bytes]) -> None:
        """Take in what state says of digests."""
        self._known |= found

    def is_duplicate(self, digest: bytes, offset: int, timestamp_ms: int, unit: PendingUnit) -> bool:
        """Whether another record left this mark before; leaves it if none did."""
        seen = offset_key(offset) + timestamp_ms.to_bytes(8, "big")
        first = self._known.setdefault(digest, seen)
        if first[:8] != seen[:8]:
            return True
        unit.put(DEDUP, digest, seen)
        unit.put(DEDUP_ORDER, offset_key(offset) + digest, seen[8:])
        self.written = True
        return False

    def first_of(self, digest: bytes) -> tuple[int, int]:
        """The offset that left a known mark, and when, in wall-clock milliseconds."""
        first = self._known[digest]
        return offset_of(first[:8]), int.from_bytes(first[8:], "big")

    def trim(self, unit: PendingUnit, in_memory_max: int = 50_000) -> None:
        """Bound what is kept in memory to marks that are not committed yet; state has the others."""
        if len(self._known) > in_memory_max:
            unsaved = [key for namespace, key in unit.changes if namespace == DEDUP]
            self._known = {digest: self._known[digest] for digest in unsaved if digest in self._known}

    def eviction_due(self, now_ms: int) -> bool:
        """Whether looking for marks to forget may find any."""
        return self.written and now_ms >= self._next_eviction_ms

    def evict(self, oldest: list[tuple[bytes, bytes]], position: int, now_ms: int, unit: PendingUnit) -> None:
        """Forget those of `oldest` (entries of DEDUP_ORDER, in order) that window and count allow."""
        for key, value in oldest:
            offset, seen_ms = offset_of(key[:8]), int.from_bytes(value, "big")
            if seen_ms + self._window_ms > now_ms or offset + self._count > position:
                self._next_eviction_ms = max(now_ms + 1000, min(seen_ms + self._window_ms, now_ms + 60_000))
                return
            unit.delete(DEDUP_ORDER, key)
            unit.delete(DEDUP, key[8:])
            self._known.pop(key[8:], None)
        if len(oldest) < EVICTION_STEP:
            self._next_eviction_ms = now_ms + 60_000
