"""The composition root: the only place that builds engines and wires parts."""

from __future__ import annotations

from postline.app.application import DEFAULT_TIMEOUT_SECONDS, App, need_of
from postline.app.environment import Environment, open_environment, open_log
from postline.app.published import Published
from postline.app.rehearsing import DryRun, rehearse
from postline.app.replaying import Replayed, Replaying, Span, replay
from postline.app.running import HANDLER_THREAD, declared_views, foreign_readings

__all__ = [
    "DEFAULT_TIMEOUT_SECONDS",
    "HANDLER_THREAD",
    "App",
    "DryRun",
    "Environment",
    "Published",
    "Replayed",
    "Replaying",
    "Span",
    "declared_views",
    "foreign_readings",
    "need_of",
    "open_environment",
    "open_log",
    "rehearse",
    "replay",
]
