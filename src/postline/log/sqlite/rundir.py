"""The directory beside the file in which the processes that share it meet: locks, life signs, bells."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from postline.errors import LogReadOnly

__all__ = ["run_directory"]

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def run_directory(file: Path) -> Path:
    """Make (if need be) and return the meeting directory of a log file, the same for every path to it.

    Raises LogReadOnly where it can't be made. What lies in it may be deleted when no process uses
    the file.
    """
    real = Path(os.path.realpath(file))
    directory = real.with_name(real.name + ".run")
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
