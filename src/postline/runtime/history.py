"""The history of a partition: samples in its state, in rings that get coarser with age, so that they stay bounded.

A sample goes into a commit that happens anyway, the first of its minute. Where nothing is committed nothing changes, so
nothing is missing between two samples. How far the log itself was at a time is known from its records' times.
"""

from __future__ import annotations

import struct

import msgspec

from postline.runtime.entries import HISTORY
from postline.runtime.progress import Progress, Standing
from postline.runtime.unit import PendingUnit

__all__ = ["RINGS", "History", "Ring", "Sample", "read_sample"]


class Ring(msgspec.Struct, frozen=True):
    """Samples so far apart, and so many of them."""

    step_ms: int
    slots: int

    @property
    def span_ms(self) -> int:
        """How far back it reaches."""
        return self.step_ms * self.slots


#: Two hours by minutes, two days by ten minutes, two weeks by two hours: 576 samples of a partition at most.
RINGS = (Ring(60_000, 120), Ring(600_000, 288), Ring(7_200_000, 168))

_KEY = struct.Struct(">BH")


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a partition stood after a commit."""

    at_ms: int
    position: int
    #: Settled or held above it.
    ahead: int
    #: Settled or held before that commit: all that had been passed by then.
    before: int
    #: Counts by outcome, of offsets below the position since the last reset.
    counts: list[int]
    #: Rises with each reset, which begins new counts.
    generation: int
    held: int
    dead_letters: int
    format: int = 1

    @property
    def passed(self) -> int:
        """Offsets that it was done with."""
        return self.position + self.ahead


class History:
    """Adds samples to units whose time has come. One for each owned partition."""

    def __init__(self, passed: int) -> None:
        self._passed = passed
        self._slots = [-1] * len(RINGS)
        self._due_ms = 0

    def note(self, unit: PendingUnit, now_ms: int, position: int, progress: Progress, standing: Standing) -> None:
        """Put a sample of this commit into every ring that has none of its slot yet."""
        before, self._passed = self._passed, position + progress.settled_ahead
        if self._due_ms - RINGS[0].step_ms <= now_ms < self._due_ms:
            return
        data = _ENCODER.encode(
            Sample(
                at_ms=now_ms,
                position=position,
                ahead=self._passed - position,
                before=before,
                counts=progress.counts,
                generation=progress.generation,
                held=standing.held,
                dead_letters=standing.dead_letters,
            )
        )
        for number, ring in enumerate(RINGS):
            slot = now_ms // ring.step_ms
            if slot != self._slots[number]:
                self._slots[number] = slot
                unit.put(HISTORY, _KEY.pack(number, slot % ring.slots), data)
        self._due_ms = (now_ms // RINGS[0].step_ms + 1) * RINGS[0].step_ms


def read_sample(data: bytes) -> Sample | None:
    """The sample that `History.note` wrote; None for one of a newer format."""
    sample = _DECODER.decode(data)
    return sample if sample.format == 1 else None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Sample)
