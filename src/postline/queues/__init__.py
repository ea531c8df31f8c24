"""Work queues: functions as tasks, sent to workers that compete for them."""

from __future__ import annotations

from postline.queues.offering import Queueing
from postline.queues.queue import Queue
from postline.queues.tasks import ContextTask, Task, TaskSender
from postline.queues.tickets import TaskTicket

__all__ = ["ContextTask", "Queue", "Queueing", "Task", "TaskSender", "TaskTicket"]
