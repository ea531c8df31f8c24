"""The directory beside the file in which the processes that share it meet: locks, life signs, bells."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from postline.errors import LogReadOnly

__all__ = ["meeting_of", "run_directory"]

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def meeting_of(file: Path) -> Path:
    """Where a log's run directory is, whether it is there or not."""
    real = Path(os.path.realpath(file))
    return real.with_name(real.name + ".run")


def run_directory(file: Path) -> Path:
    """Make (if need be) and return the meeting directory of a log file, the same for every path to it.

    Raises LogReadOnly where it can't be made. What lies in it may be deleted when no process uses
    the file.
    """
    directory = meeting_of(file)
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise LogReadOnly(
            f"The directory {directory} can't be made: {error.strerror}.",
            remedy="Allow this user to write in the directory of the log file.",
        ) from error
    return directory
