"""The read model of a log: subscriptions, lag, held records, dead letters and the audit, as plain data.

Everything is read through the log port, as last committed, and changes nothing. Views are structs
of numbers and texts, so that a table, JSON and a page in a browser show the same figures.
"""

from __future__ import annotations

from postline.monitor.causes import standing_causes
from postline.monitor.contents import Contents
from postline.monitor.deadletters import DeadLetters, Letter, Picked, Selection
from postline.monitor.health import HealthView, SubscriptionHealth, health_of
from postline.monitor.letter_views import DeadLetterDetail, DeadLetterGroup, DeadLetterView, EditView, RelatedView
from postline.monitor.loads import Adviser, Source, declared_name, loads_in, loads_of
from postline.monitor.paces import Load
from postline.monitor.reading import Monitor
from postline.monitor.scaling import Decision, DemandView, Look, Policy, Scale, advance
from postline.monitor.tasks import QueueView, TaskDetail, Tasks, TaskView
from postline.monitor.views import (
    AuditView,
    BoundView,
    CauseView,
    EverythingView,
    HeldKeysView,
    HeldKeyView,
    HeldView,
    HistoryPoint,
    HistoryView,
    MemberView,
    PartitionAudit,
    PartitionView,
    PriorityView,
    RateView,
    RecordId,
    RecordView,
    SubscriptionView,
    TopicView,
    key_text,
)
from postline.monitor.waiting import DelayedView, ScheduleView, WaitingView, waiting_of

__all__ = [
    "Adviser",
    "AuditView",
    "BoundView",
    "CauseView",
    "Contents",
    "DeadLetterDetail",
    "DeadLetterGroup",
    "DeadLetterView",
    "DeadLetters",
    "Decision",
    "DelayedView",
    "DemandView",
    "EditView",
    "EverythingView",
    "HealthView",
    "HeldKeyView",
    "HeldKeysView",
    "HeldView",
    "HistoryPoint",
    "HistoryView",
    "Letter",
    "Load",
    "Look",
    "MemberView",
    "Monitor",
    "PartitionAudit",
    "PartitionView",
    "Picked",
    "Policy",
    "PriorityView",
    "QueueView",
    "RateView",
    "RecordId",
    "RecordView",
    "RelatedView",
    "Scale",
    "ScheduleView",
    "Selection",
    "Source",
    "SubscriptionHealth",
    "SubscriptionView",
    "TaskDetail",
    "TaskView",
    "Tasks",
    "TopicView",
    "WaitingView",
    "advance",
    "declared_name",
    "health_of",
    "key_text",
    "loads_in",
    "loads_of",
    "standing_causes",
    "waiting_of",
]
