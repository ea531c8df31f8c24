"""Contract tests for users: every version of a topic as a handler gets it, and an owner against its consumers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Struct

from postline import App, ForeignTopic, Schemas, Topic
from postline.contracts.marks import was
from postline.contracts.reflection import schema_of
from postline.contracts.schema import SCHEMA_URN
from postline.contracts.snapshot import snapshot_of, updated, write_snapshot
from postline.errors import ContractError, UsageError
from postline.registry import View
from postline.testing.contracts import check_consumers, consumer_examples, recorded_examples


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


@pytest.mark.parametrize("format", ["avro", "protobuf"])
def test_examples_are_of_topics_of_every_format(tmp_path: Path, format: Any) -> None:
    topic = Topic("shop.orders", owner="shop", key="id", schemas=Schemas(format=format))
    topic.event("shop.Order")(First)
    (tmp_path / "shop.orders.json").write_bytes(write_snapshot(snapshot_of(topic)))
    app = App("billing")
    view = ForeignTopic("shop.orders", format=format)
    view.reads("shop.Order")(Second)

    @app.subscribe("billing", view, start="earliest").on(Second)
    async def bill(order: Second) -> None:
        """Bills it."""

    found = consumer_examples(app, tmp_path)
    assert len(found) == 3
    assert all(isinstance(each.value, Second) for each in found)


def recorded(path: Path, *events: tuple[str, Any, Any]) -> Path:
    """A file as `postline tail --json` writes it, of types, data (None for a tombstone) and their classes."""
    lines = [
        {"topic": "shop.orders", "offset": n, "type": name}
        | ({} if data is None else {"data": data})
        | ({} if kind is None else {"dataschema": SCHEMA_URN + schema_of(kind, name="shop.Order").fingerprint})
        for n, (name, data, kind) in enumerate(events)
    ]
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path


def test_recorded_messages_are_read_as_the_versions_that_they_name_or_the_newest(contracts: Path) -> None:
    file = recorded(
        contracts / "orders.jsonl",
        ("shop.Order", {"id": "a", "amount": 7}, First),
        ("shop.Other", {"anything": 1}, None),
        ("shop.Order", None, None),
        ("shop.Order", {"id": "b", "total": 8}, Second),
        ("shop.Order", {"id": "c", "amount": 9}, None),
    )
    found = recorded_examples(consumer(Second), file, contracts)
    assert [(each.version, each.number, each.value) for each in found] == [
        (1, 1, Second("a", 7)),
        (2, 4, Second("b", 8)),
        (2, 5, Second("c", 0)),
    ]


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [({"id": 5}, None, "can't be read as version 2: .*id"), ({"id": "a"}, Lean, "is of a version that the snapshot")],
)
def test_a_recorded_message_that_can_not_be_read_is_named_with_its_line(
    contracts: Path, data: Any, kind: Any, said: str
) -> None:
    file = recorded(contracts / "orders.jsonl", ("shop.Order", data, kind))
    with pytest.raises(ContractError, match=rf"orders\.jsonl:1: the recorded shop\.Order {said}"):
        recorded_examples(consumer(Second), file, contracts)


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
