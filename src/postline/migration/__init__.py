"""Moving a whole log to another engine or file (docs/decisions/0016-migration.md)."""

from __future__ import annotations

from postline.migration.migrating import Migration, Progress, Report, TopicReport

__all__ = ["Migration", "Progress", "Report", "TopicReport"]
