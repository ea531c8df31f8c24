"""Postline: durable, ordered, exactly-once messaging between services on one partitioned log."""

from __future__ import annotations

# The layers, imports going strictly down (tests/test_layers.py):
#
# 9 shell         cli/  demo/
# 8 surfaces      http/  testing/  sync.py  (dashboard/ comes later)
# 7 composition   app/
# 6 reading       monitor/  operations.py
# 5 processing    (workflows/  streams/  connect/ come later)
# 4 patterns      events.py  registry/  schedules/
# 3 runtime       runtime/
# 2 engines       log/
# 1 contracts     contracts/
# 0 foundation    message.py  errors.py  clock.py  settings/  ids.py
from postline.app import App, Published
from postline.contracts import Compaction, ForeignTopic, Retention, Schemas, Topic
from postline.errors import (
    ContractError,
    DecodeError,
    EncodeError,
    LogError,
    MessageError,
    MessageTooLarge,
    PostlineError,
    PublishTimeout,
    SettingsError,
    UsageError,
)
from postline.events import Subscription
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.dedup import Dedup
from postline.runtime.intents import DeadLetter, Discard, RetryLater
from postline.runtime.retry import Retry
from postline.schedules import Run

__all__ = [
    "App",
    "Compaction",
    "Context",
    "ContractError",
    "DeadLetter",
    "DecodeError",
    "Dedup",
    "Discard",
    "EncodeError",
    "Envelope",
    "ForeignTopic",
    "LogError",
    "MessageError",
    "MessageTooLarge",
    "PostlineError",
    "PublishTimeout",
    "Published",
    "Retention",
    "Retry",
    "RetryLater",
    "Run",
    "Schemas",
    "SettingsError",
    "Subscription",
    "Topic",
    "UsageError",
]
