"""The pytest plugin: the fixture `crash_points`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from postline.testing.crash_points import CrashReport

__all__ = ["crash_points"]


@pytest.fixture
def crash_points() -> Callable[..., CrashReport]:
    """`postline.testing.crash_points`, whose findings fail the test at once; gives the report."""
    from postline.testing.crash_points import crash_points as search

    def required(*arguments: object, **named: object) -> CrashReport:
        report = search(*arguments, **named)  # type: ignore[arg-type]
        report.require()
        return report

    return required
