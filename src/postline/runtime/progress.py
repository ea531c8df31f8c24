"""What is stored beside a position: audit counts, gaps, records settled ahead of it, and how the partition stands."""

from __future__ import annotations

from typing import Literal

import msgspec

from postline.errors import LogVersionError
from postline.runtime.outcomes import Outcome, empty_counts

__all__ = ["FORMAT", "Cause", "CauseKind", "Progress", "Run", "Standing"]

FORMAT = 1

#: Consecutive records with one outcome: first offset, last offset, outcome number.
Run = tuple[int, int, int]


#: An open breaker, an output's bound, or a handler that does not come back.
CauseKind = Literal["breaker", "bound", "handler"]


class Cause(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One thing that keeps a subscription from going on."""

    #: A `CauseKind`, or what a newer version has besides.
    kind: str
    #: The message types, the topic, or the handler.
    name: str
    #: Wall-clock milliseconds.
    since_ms: int
    #: The last error, or the handler's stack.
    detail: str = ""


class Standing(msgspec.Struct, array_like=True, gc=False):
    """What the partition's owner knew when it committed, for whoever looks on. Of records in any generation."""

    retrying: int = 0
    blocked: int = 0
    unserved: int = 0
    dead_letters: int = 0
    #: Of these, how many hold their key.
    holding: int = 0
    #: Wall-clock time of the next attempt; 0 if none waits for a time.
    next_attempt_ms: int = 0
    #: Why its owner fetched nothing.
    pauses: list[str] = []
    #: (wall-clock milliseconds, offsets passed) at some of the last commits, half a minute apart or more.
    samples: list[tuple[int, int]] = []
    #: Whether state tells which priority of its topic it reads.
    prioritized: bool = False
    #: No dead letter failed before this (wall-clock milliseconds), 0 while there is none.
    oldest_failed_ms: int = 0
    #: More dead letters in all partitions than this are an alarm, -1 for none; also one this old, 0 for none.
    alarm_count: int = -1
    alarm_age_ms: int = 0
    #: What keeps the subscription, in the process of this partition's owner, from going on.
    causes: list[Cause] = []

    @property
    def held(self) -> int:
        """All records that wait."""
        return self.retrying + self.blocked + self.unserved


class Progress(msgspec.Struct, array_like=True):
    """The audit of one partition of a subscription.

    `position - start = sum(counts) + gaps` always; counts cover offsets below the position only.
    """

    format: int = FORMAT
    #: Rises with each reset, which begins new counts.
    generation: int = 0
    start: int = 0
    counts: list[int] = msgspec.field(default_factory=empty_counts)
    gaps: int = 0
    #: Settled or held records above the position, in offset order.
    ahead: list[Run] = []
    #: Held records that resets gave up, in all generations.
    discarded_by_resets: int = 0
    #: None where a version that does not know of it made the last commit: it drops what it does not know.
    standing: Standing | None = None

    def encode(self) -> bytes:
        """The bytes to commit beside the position."""
        return _ENCODER.encode(self)

    @staticmethod
    def decode(data: bytes, position: int) -> Progress:
        """The progress that `data` holds; empty data begins at `position`."""
        if not data:
            return Progress(start=position)
        progress = _DECODER.decode(data)
        if progress.format > FORMAT:
            raise LogVersionError(
                f"A subscription's progress has format {progress.format}, this version reads {FORMAT}.",
                remedy="Run the newer version of Postline that wrote it.",
            )
        return progress

    def missing(self, position: int) -> int:
        """How many records below `position` have no outcome: anything but 0 is a fault."""
        return position - self.start - sum(self.counts) - self.gaps

    @property
    def settled_ahead(self) -> int:
        """Offsets settled or held above the position; gaps inside a run count."""
        return sum(last - first + 1 for first, last, _ in self.ahead)

    @property
    def held(self) -> int:
        """Records below the position that wait for a retry or behind one."""
        return self.counts[Outcome.HELD]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Progress)
