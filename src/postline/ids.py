"""Identifiers: fresh ones that sort by time, and derived ones that repeat exactly."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from hashlib import blake2b

import msgspec

__all__ = ["IdSource", "derived_id", "random_bytes"]

_COUNTER_BITS = 80
_ID_BYTES = 16
#: MessagePack keeps the parts apart, whatever they contain.
_encode = msgspec.msgpack.Encoder().encode


class IdSource:
    """Makes 32-digit hexadecimal ids: 48 bits of milliseconds, then 80 bits that count up.

    Ids of one source sort in the order they were made, as a monotonic ULID's do; the random
    start makes those of different sources differ. One event loop's property: not thread-safe.
    """

    def __init__(self, now_ms: Callable[[], int], randomness: random.Random) -> None:
        self._now_ms = now_ms
        self._random = randomness
        self._last_ms = -1
        self._last = 0

    def next_id(self) -> str:
        """A new id, greater than all before it from this source."""
        return self.id_at(self._now_ms())

    def id_at(self, now: int) -> str:
        """As `next_id`, for callers that have just read the clock (milliseconds)."""
        if now > self._last_ms:
            self._last_ms = now
            # The top bit stays clear, so that counting up never runs over into the time.
            self._last = (now << _COUNTER_BITS) | self._random.getrandbits(_COUNTER_BITS - 1)
        else:
            self._last += 1
        return self._last.to_bytes(_ID_BYTES, "big").hex()


def derived_id(*parts: str | bytes | int | None) -> str:
    """The 32-digit id that these parts always give; different parts give another one."""
    try:
        packed = _encode(parts)
    except UnicodeEncodeError:  # what others wrote that is no UTF-8
        packed = _encode([each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each for each in parts])
    return blake2b(packed, digest_size=16).hexdigest()


def random_bytes(count: int) -> bytes:
    """So many bytes that nobody can guess, from the system."""
    return os.urandom(count)
