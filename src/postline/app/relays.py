"""`Relay`: stores events that came from elsewhere as messages of an app's own contracts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec

from postline.app.published import Published, append_all
from postline.contracts.relaying import CloudEvent, Relaying
from postline.log.port import Append, Log
from postline.runtime.gates import Gates
from postline.runtime.outlet import Outlet

__all__ = ["Relay", "Renamed"]

#: Gives the ids that events are to be stored under, in their order.
Renamed: TypeAlias = Callable[[], Awaitable[Sequence[str]]]


class Relay:
    """What comes from elsewhere into one app. Event loop only."""

    def __init__(self, relaying: Relaying, outlet: Outlet, gates: Gates, log: Log) -> None:
        self._relaying, self._outlet, self._gates, self._log = relaying, outlet, gates, log

    async def store(
        self, events: Iterable[CloudEvent], topic: str, beside: Sequence[Append] = (), renamed: Renamed | None = None
    ) -> list[Published]:
        """Store events, and records `beside` them, in one step.

        `renamed` is awaited once nothing but the log can refuse them. Raises as `App.relay`.
        """
        told = [(self._relaying.message(event, topic), event.envelope) for event in events]
        appends = [self._outlet.relayed(*each) for each in told]
        if self._gates.bounded:
            await self._gates.room_for(appends)
        if renamed is not None:
            named = zip(told, appends, await renamed(), strict=True)
            appends = [
                append
                if envelope.id == name  # what has no key lies where its id says
                else self._outlet.relayed(message, msgspec.structs.replace(envelope, id=name))
                for (message, envelope), append, name in named
            ]
        stored = await append_all(self._log, (*appends, *beside)) if appends or beside else []
        return stored[: len(appends)]
