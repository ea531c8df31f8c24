"""Contract tests for users: every version of a topic as a handler gets it, and an owner against its consumers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Struct

from postline import App, ForeignTopic, Topic
from postline.contracts.marks import was
from postline.contracts.reflection import schema_of
from postline.contracts.snapshot import snapshot_of, updated, write_snapshot
from postline.errors import ContractError, UsageError
from postline.registry import View
from postline.testing.contracts import check_consumers, consumer_examples


class First(Struct):
    id: str
    amount: int


class Second(Struct):
    id: str
    total: Annotated[int, was("amount")] = 0


class Lean(Struct):
    id: str


def shop(kind: Any) -> Topic:
    topic = Topic("shop.orders", owner="shop", key="id")
    topic.event("shop.Order")(kind)
    return topic


def consumer(kind: Any) -> App:
    view = ForeignTopic("shop.orders")
    view.reads("shop.Order")(kind)
    app = App("billing")

    @app.subscribe("billing", view, start="earliest").on(kind)
    async def bill(order: Any) -> None:
        """Bills it."""

    return app


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    """A directory with a snapshot of two versions."""
    both = updated(snapshot_of(shop(First)), snapshot_of(shop(Second)))
    (tmp_path / "shop.orders.json").write_bytes(write_snapshot(both))
    return tmp_path


def test_a_handler_gets_examples_of_every_version(contracts: Path) -> None:
    found = consumer_examples(consumer(Second), contracts)
    assert {(each.version, each.number) for each in found} == {(v, n) for v in (1, 2) for n in (1, 2, 3)}
    assert all(isinstance(each.value, Second) for each in found)
    assert str(found[0]) == "billing: shop.Order version 1, example 1"


def test_a_version_that_the_consumer_cannot_read_is_named(contracts: Path) -> None:
    with pytest.raises(ContractError, match=r"shop\.Order can't be read.*amount"):
        consumer_examples(consumer(First), contracts)


def test_a_topic_without_a_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no snapshot of shop\.orders"):
        consumer_examples(consumer(Second), tmp_path)


def test_an_owner_is_told_whom_its_next_version_breaks(tmp_path: Path) -> None:
    views = [
        View(topic="shop.orders", type="shop.Order", service=name, subscription=name, reader=schema_of(kind))
        for name, kind in (("billing", First), ("packing", Lean))
    ]
    (tmp_path / "views.json").write_bytes(msgspec.json.encode(views))
    check_consumers(App("shop", owns=[shop(First)]), tmp_path / "views.json")
    with pytest.raises(AssertionError, match=r"billing \(billing\) can't read shop\.Order: amount") as told:
        check_consumers(App("shop", owns=[shop(Second)]), tmp_path / "views.json")
    assert "packing" not in str(told.value)


def views_in(folder: Path, *views: View) -> Path:
    (folder / "views.json").write_bytes(msgspec.json.encode(views))
    return folder / "views.json"


def test_an_owner_reads_its_own_topic_as_it_is_declared_now(tmp_path: Path) -> None:
    def view(service: str) -> View:
        return View(
            topic="shop.orders", type="shop.Order", service=service, subscription="totals", reader=schema_of(First)
        )

    app = App("shop", owns=[topic := shop(Second)])

    @app.subscribe("totals", topic, start="earliest").on(Second)
    async def total(order: Second) -> None:
        """Adds it."""

    check_consumers(app, views_in(tmp_path, view("shop")))
    with pytest.raises(AssertionError, match=r"other \(totals\)"):
        check_consumers(app, views_in(tmp_path, view("other")))


def test_a_file_that_holds_no_views_is_named(tmp_path: Path) -> None:
    (tmp_path / "views.json").write_text("{}")
    with pytest.raises(ContractError, match=r"views\.json does not say what consumers read"):
        check_consumers(App("shop", owns=[shop(First)]), tmp_path / "views.json")
