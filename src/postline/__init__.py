"""Postline: durable, ordered, exactly-once messaging between services on one partitioned log."""

from __future__ import annotations

# The layers, imports going strictly down (tests/test_layers.py):
#
# 9 shell         cli/  demo/
# 8 surfaces      http/  testing/  sync.py  (dashboard/ comes later)
# 7 composition   app/
# 6 reading       monitor/  operations/  migration/
# 5 processing    (workflows/  streams/  connect/ come later)
# 4 patterns      events.py  registry/  schedules/  commands/  routing/  queues/
# 3 runtime       runtime/
# 2 engines       log/
# 1 contracts     contracts/
# 0 foundation    message.py  errors.py  clock.py  settings/  ids.py  logs/
from postline.app import App, Published
from postline.commands import Outcome, Ticket, TicketStatus
from postline.contracts import (
    Bound,
    Compaction,
    ForeignTopic,
    Priorities,
    Retention,
    Rule,
    Schemas,
    Topic,
    disjoint,
    field,
)
from postline.contracts.commands import CommandTopic
from postline.contracts.replies import Cancelled, Done, Fault, ReplyOutcome, TimedOut
from postline.errors import (
    BackPressure,
    ContractError,
    DecodeError,
    EncodeError,
    HandlerFault,
    LogError,
    MessageError,
    MessageTooLarge,
    OutcomeError,
    PostlineError,
    PublishTimeout,
    Refused,
    RequestIdReused,
    RequestTimeout,
    SettingsError,
    UsageError,
)
from postline.events import Subscription
from postline.message import Envelope
from postline.queues import ContextTask, Queue, Task, TaskTicket
from postline.runtime.breaker import Breaker
from postline.runtime.context import Context
from postline.runtime.dead_letter_policy import DeadLetterPolicy
from postline.runtime.dedup import Dedup
from postline.runtime.intents import DeadLetter, Discard, RetryLater
from postline.runtime.limits import Rate
from postline.runtime.retry import Retry
from postline.schedules import Run

__all__ = [
    "App",
    "BackPressure",
    "Bound",
    "Breaker",
    "Cancelled",
    "CommandTopic",
    "Compaction",
    "Context",
    "ContextTask",
    "ContractError",
    "DeadLetter",
    "DeadLetterPolicy",
    "DecodeError",
    "Dedup",
    "Discard",
    "Done",
    "EncodeError",
    "Envelope",
    "Fault",
    "ForeignTopic",
    "HandlerFault",
    "LogError",
    "MessageError",
    "MessageTooLarge",
    "Outcome",
    "OutcomeError",
    "PostlineError",
    "Priorities",
    "PublishTimeout",
    "Published",
    "Queue",
    "Rate",
    "Refused",
    "ReplyOutcome",
    "RequestIdReused",
    "RequestTimeout",
    "Retention",
    "Retry",
    "RetryLater",
    "Rule",
    "Run",
    "Schemas",
    "SettingsError",
    "Subscription",
    "Task",
    "TaskTicket",
    "Ticket",
    "TicketStatus",
    "TimedOut",
    "Topic",
    "UsageError",
    "disjoint",
    "field",
]
