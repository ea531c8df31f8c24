"""The topic `<service>.schedules`: messages that a service delays from outside handlers, and runs of its schedules."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from postline.contracts import Topic

__all__ = ["SUFFIX", "Delayed", "ScheduledRun", "SchedulesTopic"]

SUFFIX = ".schedules"
#: A message that nobody has taken up for so long is lost; what was taken up waits in state for as long as it likes.
_RETENTION = timedelta(days=30)


class Delayed(msgspec.Struct, frozen=True):
    """A message that is to leave later."""

    #: The message's own key, whose order is kept; its id if it has none.
    key: str
    #: The message's id, by which its cancellation finds it.
    id: str
    due_ms: int
    #: 0 if it was asked for a time.
    delay_ms: int
    #: For people: what it is and where it goes.
    type: str
    topic: str
    #: The whole record, as `runtime/delays.py` packs it.
    packed: bytes
    own_id: bool = False


class ScheduledRun(msgspec.Struct, frozen=True):
    """One run of a periodic schedule."""

    #: The schedule's name.
    key: str
    planned_ms: int


class SchedulesTopic(Topic):
    """One service's own; its message classes are its own too, because a class belongs to one topic."""

    takes_events = False

    def __init__(self, service: str) -> None:
        super().__init__(service + SUFFIX, owner=service, key="key", retention=_RETENTION)
        self.delayed: type[Delayed] = type("Delayed", (Delayed,), {"__module__": __name__}, frozen=True)
        self.run: type[ScheduledRun] = type("ScheduledRun", (ScheduledRun,), {"__module__": __name__}, frozen=True)
        self.event(f"{self.name}.Delayed")(self.delayed)
        self.event(f"{self.name}.Run")(self.run)
