"""What an examination of a log's file finds out: facts, and findings each with its remedy."""

from __future__ import annotations

import msgspec

__all__ = [
    "DiskSpeed",
    "Examination",
    "Finding",
    "Process",
    "Reader",
    "Setting",
    "Sizes",
    "StateSize",
    "TableSize",
    "TopicSize",
]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong, or soon will be."""

    #: What was looked at, in one or two words.
    check: str
    said: str
    remedy: str


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the files, and of the disk."""

    file: int = 0
    #: Inside the file, for new records.
    free: int = 0
    wal: int = 0
    reserve: int = 0
    disk_free: int = 0


class DiskSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """How long the disk takes to make 4 KB durable: what every commit waits for."""

    median_ms: float
    worst_ms: float


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting of the file or of its URL, and what it means."""

    name: str
    value: str
    meaning: str


class TopicSize(msgspec.Struct, frozen=True, kw_only=True):
    """A topic's records, with what they take; estimated from samples where there are many."""

    topic: str
    records: int
    bytes: int
    estimated: bool


class TableSize(msgspec.Struct, frozen=True, kw_only=True):
    """A table or index of the file, and what of its pages is unused."""

    name: str
    bytes: int
    unused: int


class StateSize(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of a subscription's state in one namespace."""

    subscription: str
    namespace: str
    entries: int
    bytes: int


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has the log open, or had it."""

    process: int
    #: "alive", "hung" (no sign of life for seconds) or "dead".
    status: str
    #: Subscriptions that it is a member of.
    subscriptions: list[str]


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """A program that has kept a read transaction open, so that the WAL can't begin anew."""

    #: 0 if it runs in another container.
    process: int
    command: str
    #: Pages of the WAL that were written since.
    pages_behind: int


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `findings` is empty where all is well."""

    file: str
    findings: list[Finding]
    #: "log", "backup", or "unreadable".
    kind: str = "unreadable"
    format: int = 0
    oldest_reader_format: int = 0
    sqlite: str = ""
    #: "ok", "damaged" or "not checked".
    integrity: str = "not checked"
    #: As the system names it; "" if unknown.
    file_system: str = ""
    sizes: Sizes = Sizes()
    disk: DiskSpeed | None = None
    settings: list[Setting] = []
    topics: list[TopicSize] = []
    tables: list[TableSize] = []
    state: list[StateSize] = []
    processes: list[Process] = []
    readers: list[Reader] = []
