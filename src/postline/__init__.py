"""Postline: durable, ordered, exactly-once messaging between services on one partitioned log."""

# The layers, imports going strictly down (tests/test_layers.py):
#
# 9 shell         cli/  demo/
# 8 surfaces      testing/  sync.py
# 7 composition   app.py
# 6 reading       monitor.py
# 4 patterns      events.py
# 3 runtime       runtime/
# 2 engines       log/
# 1 contracts     contracts/
# 0 foundation    message.py  errors.py  clock.py  settings.py  ids.py

from postline.app import App, Published
from postline.contracts import ForeignTopic, Topic
from postline.errors import (
    ContractError,
    DecodeError,
    EncodeError,
    LogError,
    MessageTooLarge,
    PostlineError,
    SettingsError,
    UsageError,
)
from postline.events import Subscription
from postline.message import Envelope
from postline.runtime.context import Context
from postline.runtime.dedup import Dedup
from postline.runtime.intents import DeadLetter, Discard, RetryLater
from postline.runtime.retry import Retry

__all__ = [
    "App",
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
    "MessageTooLarge",
    "PostlineError",
    "Published",
    "Retry",
    "RetryLater",
    "SettingsError",
    "Subscription",
    "Topic",
    "UsageError",
]
