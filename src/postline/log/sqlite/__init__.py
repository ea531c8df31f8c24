"""The embedded engine: one SQLite file that several processes of a machine share (DESIGN §8)."""

from __future__ import annotations

from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.options import read_options

__all__ = ["SqliteLog", "read_options"]
