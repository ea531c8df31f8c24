"""Logs: one line for each event in a service's life, JSON on request, and what is handled on each line of a handler.

Nothing here is installed by an import: `configure`, or the parts in a program's own set-up, do that.
"""

from __future__ import annotations

from postline.logs.configuring import Format, configure, formatter_for, handler_for
from postline.logs.events import EVENTS, Event
from postline.logs.filtering import Fields
from postline.logs.formatting import JsonFormatter, TextFormatter
from postline.logs.handled import fields
from postline.logs.sampling import SamplingHandler, per_second

__all__ = [
    "EVENTS",
    "Event",
    "Fields",
    "Format",
    "JsonFormatter",
    "SamplingHandler",
    "TextFormatter",
    "configure",
    "fields",
    "formatter_for",
    "handler_for",
    "per_second",
]
