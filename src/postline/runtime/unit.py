"""What one owned partition has to commit next, gathered while records settle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from postline.log.port import Append, Assignment, PartitionCommit

__all__ = ["PendingUnit"]


class PendingUnit:
    """State changes and appends since the last commit; the last change of an entry wins."""

    __slots__ = ("appends", "changes", "clears", "moved")

    def __init__(self) -> None:
        self.changes: dict[tuple[str, bytes], bytes | None] = {}
        self.clears: list[str] = []
        self.appends: list[Append] = []
        #: A record was settled, so the position or the progress differs.
        self.moved = False

    def put(self, namespace: str, key: bytes, value: bytes) -> None:
        """Write an entry with the next commit."""
        self.changes[namespace, key] = value

    def delete(self, namespace: str, key: bytes) -> None:
        """Remove an entry with the next commit."""
        self.changes[namespace, key] = None

    def delete_all(self, namespace: str, keys: Sequence[bytes]) -> None:
        """Remove entries with the next commit."""
        self.changes.update(dict.fromkeys(zip(repeat(namespace), keys, strict=False)))

    def clear(self, namespace: str) -> None:
        """Empty a namespace with the next commit; later puts of the same unit stay."""
        self.clears.append(namespace)
        for place in [place for place in self.changes if place[0] == namespace]:
            del self.changes[place]

    def __bool__(self) -> bool:
        return bool(self.moved or self.changes or self.appends or self.clears)

    def commit(self, assignment: Assignment, position: int, progress: bytes) -> PartitionCommit:
        """The partition's part of a commit unit."""
        return PartitionCommit(
            assignment=assignment,
            position=position,
            progress=progress,
            clears=self.clears,
            puts=[(place[0], place[1], value) for place, value in self.changes.items() if value is not None],
            deletes=[place for place, value in self.changes.items() if value is None],
            appends=self.appends,
        )
