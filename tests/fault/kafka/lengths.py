"""Which trials run always, and which only when somebody has the time."""

from __future__ import annotations

import os

import pytest

__all__ = ["long_run"]

#: A minute or more each; `POSTLINE_FAULTS=long scripts/test tests/fault/kafka` runs them, too.
long_run = pytest.mark.skipif(
    os.environ.get("POSTLINE_FAULTS", "") != "long", reason="takes long: set POSTLINE_FAULTS=long to run it"
)
