"""`Ready`: the lanes that wait for a worker, in the order in which priorities and limits let them run."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from postline.contracts.priorities import parts_of
from postline.runtime.limits import Limiter

__all__ = ["Entry", "Ready", "ReadyClass", "Turn"]

#: Pool, partition and lane.
Entry = tuple[Any, Any, Any]

#: What one handled record is worth; shares are parts of it.
_RECORD = parts_of(1)


class Turn(NamedTuple):
    """What a worker was given to do."""

    of: ReadyClass
    entry: Entry
    #: What its attempt counts against.
    limiter: Limiter | None
    #: Whether its priority was owed a record of its share.
    owed: bool


class ReadyClass:
    """The waiting lanes of one priority, in a queue for each limit; those behind a closed limit don't count."""

    def __init__(self, name: str, share: float) -> None:
        self.name = name
        self.parts = parts_of(share)
        #: What it is owed, in parts of a record.
        self.credit = 0
        #: Records that were handled of it, by this process.
        self.handled = 0
        self._free: deque[Entry] = deque()
        self._limited: dict[Limiter, deque[Entry]] = {}
        self._turn: deque[Limiter | None] = deque([None])

    def append(self, entry: Entry, limiter: Limiter | None) -> None:
        """Queue a lane, behind the others that its first record's limit holds for."""
        if limiter is None:
            self._free.append(entry)
            return
        if limiter not in self._limited:
            self._limited[limiter] = deque()
            self._turn.append(limiter)
        self._limited[limiter].append(entry)

    def popleft(self) -> tuple[Entry, Limiter | None]:
        """The next lane that may run, with the limit that its attempt counts against; limits take turns."""
        for _ in range(len(self._turn)):
            limiter = self._turn[0]
            self._turn.rotate(-1)
            if limiter is None:
                if self._free:
                    return self._free.popleft(), None
            elif (waiting := self._limited[limiter]) and limiter.is_open:
                return waiting.popleft(), limiter
        raise IndexError("no lane may run now")

    def forget(self, owned: object) -> None:
        """Let go of the lanes of a partition that is halted."""
        self._free = deque(entry for entry in self._free if entry[1] is not owned)
        for limiter, waiting in self._limited.items():
            self._limited[limiter] = deque(entry for entry in waiting if entry[1] is not owned)

    def __bool__(self) -> bool:
        return bool(self._free) or any(waiting and each.is_open for each, waiting in self._limited.items())

    def __len__(self) -> int:
        return len(self._free) + sum(len(waiting) for each, waiting in self._limited.items() if each.is_open)

    @property
    def closed(self) -> list[Limiter]:
        """The limits that lanes wait behind."""
        return [each for each, waiting in self._limited.items() if waiting and not each.is_open]


class Ready:
    """Gives the next lane: of the priority that is owed a record of its share, else of the highest.

    For each handled record every priority with something ready is credited its share; a record handled as owed costs
    it one. So of N records handled while it had something ready, it had at least its share of N but for a few, and
    what is guaranteed to nobody goes to the highest. Who has nothing ready hoards nothing. Whole numbers throughout:
    the same queues give the same order.
    """

    def __init__(self, classes: Sequence[tuple[str, float]], limiters: Mapping[str, Limiter]) -> None:
        #: From the highest to the lowest.
        self.classes = [ReadyClass(name, share) for name, share in classes]
        #: By wire name of a message type, the limit of its handler.
        self._limiters = limiters

    def append(self, rank: int, entry: Entry) -> None:
        """Queue a lane of the priority of this rank."""
        limiter = None
        if self._limiters:
            items = entry[2].items
            handler = items[0][3] if items else None
            limiter = None if handler is None else self._limiters.get(handler.type_name)
        self.classes[rank].append(entry, limiter)

    def popleft(self) -> Turn:
        """The next lane; its priority is charged for one record."""
        waiting = [each for each in self.classes if each]
        first = max(waiting, key=lambda each: each.credit)  # of equals the higher
        owed = first.credit >= _RECORD
        chosen = first if owed else waiting[0]
        entry, limiter = chosen.popleft()
        turn = Turn(chosen, entry, limiter, owed)
        self._charge(turn, 1, waiting)
        return turn

    def also_handled(self, turn: Turn, records: int) -> None:
        """The turn handled so many records besides the first."""
        self._charge(turn, records, [each for each in self.classes if each or each is turn.of])

    def _charge(self, turn: Turn, records: int, waiting: Sequence[ReadyClass]) -> None:
        for each in self.classes:
            each.credit = each.credit + records * each.parts if each in waiting else min(each.credit, _RECORD)
        turn.of.handled += records
        rest = turn.of.credit - records * _RECORD
        # Beyond its share it took only what nobody else was owed, which is no debt.
        turn.of.credit = rest if turn.owed else max(rest, 0)

    def forget(self, owned: object) -> None:
        """Let go of the lanes of a partition that is halted."""
        for each in self.classes:
            each.forget(owned)

    def __bool__(self) -> bool:
        return any(self.classes)

    def __len__(self) -> int:
        return sum(map(len, self.classes))

    @property
    def closed(self) -> list[Limiter]:
        """The limits that lanes wait behind."""
        return list({each: None for ready in self.classes for each in ready.closed})
