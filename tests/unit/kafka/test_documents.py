"""The page about Kafka says something of every option, and shows the rights that are really planned."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")

from postline.log.kafka.options import _OWN, _REFUSED, _SECRET_FILES
from postline.log.port import Capability

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "howto" / "kafka.md").read_text("utf-8")


def test_every_option_is_on_the_page() -> None:
    assert [name for name in (*_OWN, *_SECRET_FILES) if f"`{name}=" not in PAGE] == []


def test_every_refused_property_is_on_the_page() -> None:
    assert [name for name in _REFUSED if f"`{name}`" not in PAGE] == []


def test_every_capability_is_in_the_table() -> None:
    assert [each.value for each in Capability if f"| {each.value} |" not in PAGE] == []
