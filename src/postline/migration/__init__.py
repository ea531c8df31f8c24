"""Moving a whole log to another engine or file (docs/decisions/0016-migration.md)."""

from __future__ import annotations

from postline.migration.migrating import End, Migration, Progress, Report, TopicReport

__all__ = ["End", "Migration", "Progress", "Report", "TopicReport"]
