"""`Published`: where what an app published lies in the log."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from postline.log.port import Append, Log

__all__ = ["Published", "append_all"]


class Published(msgspec.Struct, frozen=True, gc=False):
    """Where a message went; it is durable."""

    id: str
    topic: str
    partition: int
    offset: int
    #: Of a delayed message, what cancels it; the place is that of the record that it waits as. Else "".
    token: str = ""


async def append_all(log: Log, appends: Sequence[Append]) -> list[Published]:
    """Store these, all or none; where they went."""
    offsets = await log.append(appends)
    return [
        Published(append.envelope.id, append.topic, append.partition, offset)
        for append, offset in zip(appends, offsets, strict=True)
    ]
