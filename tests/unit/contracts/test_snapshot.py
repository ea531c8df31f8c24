"""Contracts as files: every version once, always the same bytes, and what must never change for a topic."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import structs

from postline.contracts import Schemas, Topic
from postline.contracts.checking import broken_promises, findings, read_by_upcast
from postline.contracts.marks import number
from postline.contracts.snapshot import FORMAT, Snapshot, read_snapshot, snapshot_of, updated, write_snapshot
from postline.errors import ContractError


def shop(*fields: Any, name: str = "shop.Order", aliases: tuple[str, ...] = (), **options: Any) -> Topic:
    topic = Topic("shop.orders", **{"owner": "shop", "key": "id", **options})
    topic.event(name, aliases=aliases)(msgspec.defstruct("Order", [("id", str), *fields]))
    return topic


def test_a_snapshot_comes_back_from_its_file_and_is_the_same_each_time() -> None:
    snapshot = snapshot_of(shop(("total", int, 0)))
    content = write_snapshot(snapshot)
    assert read_snapshot(content, "here") == snapshot
    assert write_snapshot(read_snapshot(content, "here")) == content
    assert (snapshot.owner, snapshot.key, snapshot.encoding) == ("shop", "id", "json")
    assert snapshot.evolution == "FULL_TRANSITIVE"


def test_a_new_version_is_added_and_a_known_one_is_not_repeated() -> None:
    first, second = snapshot_of(shop()), snapshot_of(shop(("total", int, 0)))
    both = updated(first, second)
    assert updated(both, second) == both
    history = both.types["shop.Order"]
    assert list(history.numbered) == [1, 2]
    assert [(change.path, change.said) for change in history.changes] == [("total", "added: integer, 0 by default")]


def test_a_type_that_was_renamed_keeps_its_history_and_one_that_is_gone_stays() -> None:
    before = snapshot_of(shop())
    renamed = updated(before, snapshot_of(shop(name="shop.Placed", aliases=("shop.Order",))))
    assert renamed.types["shop.Placed"].versions[:1] == before.types["shop.Order"].versions
    assert "shop.Order" in renamed.types


def test_owner_key_and_format_of_a_topic_with_records_stay() -> None:
    before = snapshot_of(shop())
    now = snapshot_of(shop(owner="other", key=None, schemas=Schemas(format="protobuf")))
    said = broken_promises(before, now)
    assert [each.split(" was ")[0] for each in said] == ["its owner", "its key", "its encoding"]
    assert broken_promises(before, before) == []


def test_a_type_that_is_not_declared_any_more_is_missed_unless_it_is_an_alias() -> None:
    before = snapshot_of(shop())
    (said,) = broken_promises(before, snapshot_of(shop(name="shop.Placed")))
    assert "does not declare shop.Order any more" in said
    assert broken_promises(before, snapshot_of(shop(name="shop.Placed", aliases=("shop.Order",)))) == []


def test_an_upcast_mends_what_the_new_version_cannot_read() -> None:
    old = msgspec.defstruct("Order", [("id", str), ("name", str)])
    new = msgspec.defstruct("Order", [("id", str), ("first", str), ("last", str)])
    topic = Topic("shop.orders", owner="shop", key="id", schemas=Schemas(evolution="BACKWARD_TRANSITIVE"))
    topic.event("shop.Order")(new)
    reading = topic.reading_of("shop.Order")
    versions = {1: snapshot_of(shop(("name", str))).types["shop.Order"].versions[0]}
    assert [each.direction for each in findings(reading, versions, "BACKWARD_TRANSITIVE")] == ["backward"]
    assert not read_by_upcast(reading, versions[1])

    @topic.upcast(old, new)
    def split(order: Any) -> Any:
        first, last = order.name.split()
        return new(order.id, first, last)

    assert read_by_upcast(reading, versions[1])
    assert findings(reading, versions, "BACKWARD_TRANSITIVE") == []
    assert [each.direction for each in findings(reading, versions, "FULL_TRANSITIVE")] == ["forward"]
    assert reading.decoder(versions[1])(b'{"id":"1","name":"Ada Lovelace"}') == new("1", "Ada", "Lovelace")


def test_a_field_between_others_moves_numbers_of_protobuf_unless_they_are_said() -> None:
    proto: dict[str, Any] = {"schemas": Schemas(format="protobuf")}
    before = snapshot_of(shop(("total", int, 0), **proto)).types["shop.Order"].numbered
    between = shop(("note", str, ""), ("total", int, 0), **proto).reading_of("shop.Order")
    (found,) = findings(between, before, "FULL_TRANSITIVE")
    assert {(each.path, each.rule) for each in found.breaks} == {("note", "number"), ("total", "number")}
    said = shop(("note", Annotated[str, number(3)], ""), ("total", Annotated[int, number(2)], 0), **proto)
    assert findings(said.reading_of("shop.Order"), before, "FULL_TRANSITIVE") == []
    assert findings(shop(("note", str, ""), ("total", int, 0)).reading_of("shop.Order"), before, "FULL") == []


def test_a_version_that_nothing_reads_is_refused_with_path_and_remedy() -> None:
    reading = shop(("total", int)).reading_of("shop.Order")
    (other,) = snapshot_of(shop(("total", str))).types["shop.Order"].versions
    with pytest.raises(ContractError, match=r"shop\.Order can't be read.*total: the reader wants integer") as told:
        reading.decoder(other)
    assert told.value.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no snapshot"),
        (b"[]", "no snapshot"),
        (b'{"format": 1}', "no snapshot"),
        (b"\xff", "no snapshot"),
        (msgspec.json.encode({"format": FORMAT + 1}), "newer version"),
    ],
)
def test_a_file_that_is_no_snapshot_is_refused_by_name(content: bytes, said: str) -> None:
    with pytest.raises(ContractError, match=said) as told:
        read_snapshot(content, "contracts/shop.orders.json")
    assert "contracts/shop.orders.json" in told.value.message


def test_a_snapshot_of_this_format_with_unknown_facts_is_read() -> None:
    known = msgspec.to_builtins(snapshot_of(shop()))
    found = read_snapshot(msgspec.json.encode({**known, "later": 1}), "here")
    assert isinstance(found, Snapshot)
    assert structs.asdict(found)["topic"] == "shop.orders"


def _edited(change: Any) -> bytes:
    """A snapshot that somebody edited by hand."""
    content = msgspec.to_builtins(snapshot_of(shop()))
    change(content)
    return msgspec.json.encode(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(format=-3), "its format is -3"),
        (lambda content: content["types"]["shop.Order"].update(versions=[]), r"shop\.Order has no version"),
        (
            lambda content: content["types"]["shop.Order"]["versions"][0].update(definitions={}),
            r"version 1 of shop\.Order refers to shop\.Order, which it does not define",
        ),
    ],
)
def test_a_snapshot_that_was_merged_badly_is_refused_with_the_reason(change: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        read_snapshot(_edited(change), "contracts/shop.orders.json")


def test_a_snapshot_of_another_topic_is_told() -> None:
    other = structs.replace(snapshot_of(shop()), topic="shop.others")
    assert broken_promises(other, snapshot_of(shop())) == ["its topic was 'shop.others' and is 'shop.orders'."]
