"""What operators ask of subscriptions: redrive, discard, edit, pause, resume, reset, remove; of topics: partitions.

Nobody but a partition's owner writes its state, so that each of these is a durable record on the
subscription's control topic, and the owner obeys it when it comes to it: at once while a worker
runs, else when the next one does.
"""

from __future__ import annotations

from postline.operations.acting import Operations, PartitionReset, ResetPlan, ResetTarget
from postline.operations.asking import Request
from postline.operations.deadletters import Disposed, Pace
from postline.operations.editing import Edited, Editing, with_changes

__all__ = [
    "Disposed",
    "Edited",
    "Editing",
    "Operations",
    "Pace",
    "PartitionReset",
    "Request",
    "ResetPlan",
    "ResetTarget",
    "with_changes",
]
