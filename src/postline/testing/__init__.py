"""Testing services without waiting: apps in memory on a virtual clock, and contexts for calling handlers directly."""

from __future__ import annotations

from postline.testing.contexts import DirectContext, TestContext
from postline.testing.crash_points import CrashReport, crash_points
from postline.testing.harness import TestApp
from postline.testing.ledger import DeadLetterView
from postline.testing.namespaces import remove_namespace

__all__ = [
    "CrashReport",
    "DeadLetterView",
    "DirectContext",
    "TestApp",
    "TestContext",
    "crash_points",
    "remove_namespace",
]
