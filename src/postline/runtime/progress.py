"""What is stored beside a position: audit counts, gaps, and the records settled ahead of it."""

from __future__ import annotations

import msgspec

from postline.errors import LogVersionError
from postline.runtime.outcomes import Outcome, empty_counts

__all__ = ["FORMAT", "Progress", "Run"]

FORMAT = 1

#: Consecutive records with one outcome: first offset, last offset, outcome number.
Run = tuple[int, int, int]


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
    def held(self) -> int:
        """Records below the position that wait for a retry or behind one."""
        return self.counts[Outcome.HELD]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Progress)
