"""One service's schedules put together: its topic, the handlers of its subscription, and what is published to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from postline.log.port import Append
from postline.runtime.context import Context
from postline.runtime.delays import Due, Waiting, order_of, pack_append
from postline.runtime.entries import TimerEntry
from postline.schedules.periodic import KIND, Periodics
from postline.schedules.topic import Delayed, SchedulesTopic

__all__ = ["Schedules"]


class Schedules:
    """Holds data only; the app registers it with a subscription of the same name as its topic."""

    def __init__(self, service: str) -> None:
        self.topic = SchedulesTopic(service)
        self.periodics = Periodics(self.topic)
        self.timers: dict[str, Callable[[Any, TimerEntry], None]] = {KIND: self.periodics.fire}

    def delayed(self, append: Append, partitions: int, due: Due, *, own_id: bool) -> Delayed:
        """The message that has a record, placed among so many partitions, leave later."""
        own = append.envelope.id
        return self.topic.delayed(
            key=own if append.key is None else append.key.decode("utf-8", "backslashreplace"),
            id=own,
            due_ms=due.at_ms,
            delay_ms=due.delay_ms,
            type=append.envelope.type,
            topic=append.topic,
            packed=pack_append(append, partitions),
            own_id=own_id,
        )

    async def take(self, message: Delayed, context: Context[Any]) -> None:
        """Handle a delayed message: have it wait in the state of its partition."""
        due = Due(message.due_ms, message.delay_ms)
        context.let_wait(Waiting(due, order_of(context.offset, 0), message.id, message.packed, message.own_id))
