"""What a log has and an older copy of it doesn't, in records: what restoring the copy would lose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from postline.errors import UsageError
from postline.log.sqlite.connection import fetch, translated
from postline.log.sqlite.statements import statements

__all__ = ["Loss", "LostRecords", "LostSubscription", "Rewound", "compare", "outdo"]


class LostRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one partition that were published after the copy was made."""

    topic: str
    partition: int
    #: Their offsets: from `first` to before `end`.
    first: int
    end: int
    #: How many of these the log still had.
    records: int


class Rewound(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription whose positions go back."""

    subscription: str
    #: Offsets that were handled, and will be handled again: effects outside happen twice.
    handled_again: int
    #: Offsets that were handled, and whose records are lost: their effects outside stay.
    handled_and_lost: int
    #: Entries of its state (held records, dead letters, timers, handlers' state) that were other ones.
    state_entries: int


class LostSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription made after the copy: its next worker makes it anew, from its declared start."""

    subscription: str
    topic: str


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a copy doesn't have."""

    records: int
    topics: list[LostRecords]
    subscriptions: list[Rewound]
    lost_subscriptions: list[LostSubscription]


def compare(connection: apsw.Connection, copy: Path, address: str) -> Loss:
    """What the log of the connection has and the copy doesn't. Raises UsageError if the copy is not one of this log."""
    sql = statements("care")
    with _beside(connection, copy, address):
        _require_related(connection, copy, address)
        topics = [
            LostRecords(topic=topic, partition=partition, first=first, end=end, records=records)
            for topic, partition, first, end, records in fetch(connection, sql["lost_records"])
        ]
        changed = dict(fetch(connection, sql["changed_state"]))
        gone = [LostSubscription(subscription=a, topic=b) for a, b in fetch(connection, sql["lost_subscriptions"])]
        rewound = {name: (again, beyond) for name, again, beyond in fetch(connection, sql["rewound"])}
    missing = {each.subscription for each in gone}
    return Loss(
        records=sum(each.records for each in topics),
        topics=topics,
        subscriptions=[
            Rewound(
                subscription=name,
                handled_again=rewound.get(name, (0, 0))[0],
                handled_and_lost=rewound.get(name, (0, 0))[1],
                state_entries=changed.get(name, 0),
            )
            for name in sorted((rewound.keys() | changed.keys()) - missing)
        ],
        lost_subscriptions=gone,
    )


def outdo(connection: apsw.Connection, copy: Path, address: str) -> None:
    """Raise the copy's next offsets and epochs above those of the connection's log."""
    sql = statements("care")
    with _beside(connection, copy, address), connection:
        connection.execute(sql["outdo_offsets"])
        connection.execute(sql["outdo_epochs"])


@contextmanager
def _beside(connection: apsw.Connection, copy: Path, address: str) -> Iterator[None]:
    with translated(address):
        connection.execute(statements("care")["attach"], (str(copy),))
        try:
            yield
        finally:
            connection.execute("DETACH restored")


def _require_related(connection: apsw.Connection, copy: Path, address: str) -> None:
    differing = fetch(connection, statements("care")["differing"])
    if differing:
        topic, partition, offset = differing[0]
        raise UsageError(
            f"{address} has another record at {topic} {partition}:{offset} than the backup: it is not a backup of that"
            " log, or that one was restored from an older one meanwhile.",
            remedy="Restore to another path, or move the log that lies there away first.",
        )
