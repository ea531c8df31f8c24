"""Who reads and writes a log now, from the locks that SQLite keeps beside it: a program of its own, `readers.py SHM`.

A process that uses the log must never open this file itself: closing it would drop all its locks. It imports nothing
of Postline, to start fast.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys

# Places in the shared memory's head and of its locks: sqlite.org/walformat.html.
_FRAMES, _BACKFILLED, _MARKS = 16, 96, 100
_LOCKS = 120
_WRITER, _FIRST_READER, _READERS = 0, 3, 5
_FLOCK = "hhqqi"


def holder(descriptor: int, lock: int) -> int | None:
    """The process that holds this lock of SQLite's; 0 if it is one of another container."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _LOCKS + lock, 1, 0)
    kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else max(0, process)


def look(path: str) -> dict[str, object]:
    """The state of the WAL and the holders of its locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        head = os.pread(descriptor, _LOCKS, 0)
        marks = struct.unpack_from("=5I", head, _MARKS)
        held = [(slot, holder(descriptor, _FIRST_READER + slot)) for slot in range(_READERS)]
        return {
            "frames": struct.unpack_from("=I", head, _FRAMES)[0],
            "backfilled": struct.unpack_from("=I", head, _BACKFILLED)[0],
            "readers": [[slot, marks[slot], process] for slot, process in held if process is not None],
            "writer": holder(descriptor, _WRITER),
        }
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(sys.argv[1])))
