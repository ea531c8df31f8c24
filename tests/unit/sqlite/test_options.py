"""The options of a sqlite:// URL."""

from __future__ import annotations

import pytest

from postline.errors import SettingsError
from postline.log.sqlite import read_options
from postline.log.sqlite.storage import Settings


def test_without_options_everything_is_durable() -> None:
    assert read_options({}) == Settings(durable=True)


def test_relaxed_durability_is_a_stated_choice() -> None:
    assert read_options({"durability": "relaxed", "reserve_mb": "2", "lock_seconds": "1.5"}) == Settings(
        durable=False, reserve_bytes=2 << 20, lock_seconds=1.5
    )


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(SettingsError, match="durability=none, lock_seconds=-1, colour=red"):
        read_options({"durability": "none", "lock_seconds": "-1", "colour": "red"})
