"""What a subscription does while topics that its handlers publish to are over their bounds: it fetches no more.

A handler never waits. So that services that feed each other in a circle can't stop each other for good, a subscription
stops only for one that uses more of its bound than itself: who waits, waits for somebody who is worse off, and
the worst off never waits (docs/decisions/0012-bounds.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from postline.log.port import Append
from postline.logs.events import event
from postline.runtime.causes import Causes
from postline.runtime.gates import LOOK_SECONDS, RELEASED, Gate, nap
from postline.runtime.partition import OwnedPartition
from postline.runtime.plan import Plan
from postline.runtime.surroundings import Surroundings

__all__ = ["REASON", "Restraint"]

_log = logging.getLogger("postline.runtime")

#: Why a partition pauses.
REASON: Final = "bound"


class Restraint:
    """Pauses a subscription's partitions while its outputs' topics are over their bounds. Event loop only."""

    def __init__(
        self,
        plan: Plan,
        around: Surroundings,
        partitions: Callable[[], Iterable[OwnedPartition]],
        causes: Causes,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._plan, self._gates, self._clock = plan, around.gates, around.clock
        self._partitions, self._causes, self._failed = partitions, causes, failed
        #: Those of the topics that it was seen to publish to.
        self._outputs: dict[str, Gate] = {}
        self._watching: asyncio.Task[None] | None = None
        #: The topic for whose bound it fetches nothing at the moment; "" while it does.
        self.stopped_for = ""

    @property
    def stopped(self) -> bool:
        """Whether it fetches nothing at the moment."""
        return bool(self.stopped_for)

    def note(self, appends: Iterable[Append]) -> None:
        """These were committed: count them, and look whether their topics take more."""
        for append in appends:
            if (gate := self._gates.of(append.topic)) is not None:
                self._outputs[append.topic] = gate
                gate.count(1)
        if self._outputs and self._watching is None and any(gate.due() for gate in self._outputs.values()):
            self._watching = asyncio.create_task(self._watch(), name=f"{self._plan.name} restraint")

    def take_up(self, owned: OwnedPartition) -> None:
        """A partition came: it stops with the others."""
        if self.stopped:
            owned.pause(REASON)
            owned.unit.moved = True

    def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        """Look until nothing speaks against fetching."""
        try:
            while True:
                self._set(await self._reason())
                if not self.stopped:
                    return
                await nap(self._clock, LOOK_SECONDS)
        except Exception as error:  # noqa: BLE001 - reported by whoever watches the consumer
            self._failed(error)
        finally:
            self._watching = None

    async def _reason(self) -> str:
        """The topic that it stops for; "" for none."""
        own = self._gates.of(self._plan.topic)
        for gate in {*self._outputs.values(), *([own] if own else [])}:
            await gate.look(LOOK_SECONDS / 2)
        own_used = self._used_by_itself(own)
        limit = RELEASED if self.stopped else 1.0
        full = [topic for topic, gate in self._outputs.items() if gate.used() >= limit and gate.used() > own_used]
        return full[0] if full else ""

    def _used_by_itself(self, own: Gate | None) -> float:
        return 0.0 if own is None else own.used_by(self._plan.name)

    def _set(self, topic: str) -> None:
        before, self.stopped_for = self.stopped_for, topic
        if before == topic:
            return
        for owned in self._partitions():
            if self.stopped:
                owned.pause(REASON)
            else:
                owned.resume(REASON)
        if before:
            self._causes.end(REASON, before)
        if topic:
            self._causes.begin(REASON, topic)
        if self.stopped and not before:
            _log.info(
                "subscription %s fetches no more until topic %s is below its bound",
                self._plan.name,
                topic,
                extra=event("bound.reached", subscription=self._plan.name, topic=topic),
            )
