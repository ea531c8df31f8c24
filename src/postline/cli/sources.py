"""The source files of a project, watched for changes by their times and sizes."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Sources"]

_SUFFIXES = (".py", ".toml")
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv"}


class Sources:
    """Python and TOML files below a folder; hidden folders and environments are left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._look()

    def changed(self) -> list[str]:
        """Files made, changed or removed since the last call, relative to the folder."""
        before, self._seen = self._seen, self._look()
        return sorted({name for name, _ in before.items() ^ self._seen.items()})

    def _look(self) -> dict[str, tuple[int, int]]:
        found = {}
        for root, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
            for name in files:
                if name.endswith(_SUFFIXES):
                    path = Path(root, name)
                    try:
                        status = path.stat()
                    except FileNotFoundError:
                        continue
                    found[str(path.relative_to(self._folder))] = (status.st_mtime_ns, status.st_size)
        return found
