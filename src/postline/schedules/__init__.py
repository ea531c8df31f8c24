"""What a service plans: messages delayed at its edge, and functions that run by a calendar or an interval."""

from __future__ import annotations

from postline.schedules.periodic import Missed, Periodic, Planned, Run, read_planned
from postline.schedules.rules import Cron, Every, Rule
from postline.schedules.service import Schedules
from postline.schedules.topic import SchedulesTopic

__all__ = [
    "Cron",
    "Every",
    "Missed",
    "Periodic",
    "Planned",
    "Rule",
    "Run",
    "Schedules",
    "SchedulesTopic",
    "read_planned",
]
