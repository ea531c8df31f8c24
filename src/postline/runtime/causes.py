"""What keeps a subscription from going on, told beside its partitions' positions, so that any process can read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from postline.clock import Clock
from postline.runtime.breaker import Circuit
from postline.runtime.partition import OwnedPartition
from postline.runtime.progress import Cause, CauseKind

__all__ = ["Causes"]

_DETAIL_CHARACTERS_MAX = 4_096


class Causes:
    """The causes that stand now, in every partition that is owned here. Event loop only.

    Nothing is written while nothing stands in the way; what begins or ends goes with the next commit.
    """

    def __init__(
        self,
        clock: Clock,
        partitions: Callable[[], Iterable[OwnedPartition]],
        wake: Callable[[], None],
        circuits: Iterable[Circuit],
    ) -> None:
        self._clock, self._partitions, self._wake = clock, partitions, wake
        self._circuits = {circuit.name: circuit for circuit in circuits}
        self._standing: dict[tuple[str, str], Cause] = {}
        for circuit in self._circuits.values():
            circuit.on_change.append(self._changed)

    def begin(self, kind: CauseKind, name: str, detail: str = "", since_ms: int = 0) -> None:
        """From now on, or since then, this stands in the way; said again, the detail is another."""
        since_ms = since_ms or self._clock.now_ms()
        self._standing[kind, name] = Cause(kind, name, since_ms, detail[-_DETAIL_CHARACTERS_MAX:])
        self._tell()

    def end(self, kind: CauseKind, name: str) -> None:
        """It does no longer. Idempotent."""
        if self._standing.pop((kind, name), None) is not None:
            self._tell()

    def take_up(self, owned: OwnedPartition) -> None:
        """A partition comes: a circuit that its last owner found open is open here, too; what else was is over."""
        told = owned.window.progress.standing
        for cause in told.causes if told is not None else ():
            if cause.kind == "breaker" and (circuit := self._circuits.get(cause.name)) is not None:
                circuit.take_over(cause.since_ms, cause.detail)
        owned.causes = list(self._standing.values())

    def close(self) -> None:
        """Hear of circuits no more."""
        for circuit in self._circuits.values():
            if self._changed in circuit.on_change:
                circuit.on_change.remove(self._changed)

    def _tell(self) -> None:
        causes = list(self._standing.values())
        for owned in self._partitions():
            owned.causes = causes
            owned.unit.moved = True
        self._wake()

    def _changed(self, circuit: Circuit) -> None:
        if circuit.open:
            self.begin("breaker", circuit.name, circuit.error, circuit.since_ms)
        else:
            self.end("breaker", circuit.name)
