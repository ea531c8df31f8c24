"""Testing services without waiting: apps in memory on a virtual clock, and contexts for calling handlers directly."""

from __future__ import annotations

from postline.testing.contexts import DirectContext, TestContext
from postline.testing.harness import TestApp
from postline.testing.ledger import DeadLetterView

__all__ = ["DeadLetterView", "DirectContext", "TestApp", "TestContext"]
