"""Topics say what they are, refuse wrong declarations at once, and place what is published."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from postline.contracts import Catalog, Compaction, ForeignTopic, Retention, Schemas, Topic
from postline.contracts.reflection import schema_of
from postline.errors import ContractError, DecodeError, EncodeError, UsageError


class Placed(msgspec.Struct):
    customer: str
    region: str = "north"


@dataclass
class Cancelled:
    customer: str
    reason: str = ""


class Other(msgspec.Struct):
    customer: str


def _orders(**options: Any) -> Topic:
    topic = Topic("shop.orders", **{"owner": "shop", "key": "customer", **options})
    topic.event("shop.OrderPlaced")(Placed)
    topic.event("shop.OrderCancelled")(Cancelled)
    return topic


def test_decorators_give_the_class_back_unchanged() -> None:
    assert Topic("t", owner="shop").event("shop.A")(Placed) is Placed
    assert ForeignTopic("t").reads("shop.A")(Placed) is Placed


def test_several_types_share_a_topic_under_their_own_wire_names() -> None:
    topic = _orders()
    assert topic.type_name_of(Placed) == "shop.OrderPlaced"
    assert topic.classes == {Placed, Cancelled}
    assert not topic.declares_one_type
    contract = topic.contracts["shop.OrderCancelled"]
    value = Cancelled("c-1", "too late")
    assert contract.decode(contract.encode(value)) == topic.decoder_of("shop.OrderCancelled")(contract.encode(value))
    assert contract.key_of(value) == b"c-1"


def test_the_key_places_a_message_unless_something_else_is_said() -> None:
    value = Placed("c-1", "south")
    by_key = _orders().contracts["shop.OrderPlaced"]
    assert by_key.placed_by(value, by_key.key_of(value)) == b"c-1"
    other = Topic("shop.orders", owner="shop", key="customer", partition_by="region")
    other.event("shop.OrderPlaced")(Placed)
    by_region = other.contracts["shop.OrderPlaced"]
    assert by_region.key_of(value) == b"c-1"
    assert by_region.placed_by(value, b"c-1") == b"south"
    with pytest.raises(EncodeError, match=r"partition_by \(region\)"):
        by_region.placed_by(Placed("c-1", ""), b"c-1")


def test_a_message_of_a_keyless_topic_has_neither_key_nor_place() -> None:
    topic = Topic("shop.clicks", owner="shop")
    topic.event("shop.Clicked")(Placed)
    contract = topic.contracts["shop.Clicked"]
    assert contract.key_of(Placed("c-1")) is None
    assert contract.placed_by(Placed("c-1"), None) is None
    assert not topic.keyed


def _by_both(order: Placed) -> str:
    return order.customer + order.region


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "customer"),
        ({"key": None}, ""),
        ({"partition_by": "region"}, "customer placed by region"),
        ({"key": _by_both}, "_by_both()"),
    ],
)
def test_what_the_log_compares_names_key_and_placement(options: dict[str, Any], text: str) -> None:
    assert Topic("t", **{"owner": "shop", "key": "customer", **options}).key_text == text


@pytest.mark.parametrize(
    "name",
    ["", "a b", "ä", ".", "..", "-a", "a/b", "x" * 201, "billing.dead-letters", "billing.control"],
)
def test_a_name_that_is_no_topics_is_refused(name: str) -> None:
    for declare in (lambda: Topic(name, owner="shop"), lambda: ForeignTopic(name)):
        with pytest.raises(ContractError, match="can't be a topic's name"):
            declare()


def test_all_that_is_wrong_with_a_topic_is_told_at_once() -> None:
    with pytest.raises(ContractError) as caught:
        Topic(
            "t",
            owner="",
            partitions=0,
            retention=Retention(age=timedelta(0), bytes_per_partition=0),
            compaction=Compaction(),
            schemas=Schemas(message_bytes_max=0),
        )
    for word in ("owner", "partitions", "retention", "compaction", "message_bytes_max"):
        assert word in str(caught.value)


def test_retention_may_be_said_as_an_age() -> None:
    assert Topic("t", owner="shop", retention=timedelta(days=14)).retention == Retention(age=timedelta(days=14))
    assert Topic("t", owner="shop").retention == Retention()


@pytest.mark.parametrize("topic", [Topic("t", owner="shop"), ForeignTopic("t")], ids=["own", "foreign"])
def test_a_wire_name_or_a_class_twice_on_a_topic_is_refused(topic: Topic | ForeignTopic) -> None:
    declare = topic.event if isinstance(topic, Topic) else topic.reads
    declare("shop.OrderPlaced")(Placed)
    with pytest.raises(ContractError, match=r"declares 'shop.OrderPlaced' twice"):
        declare("shop.OrderPlaced")(Other)
    with pytest.raises(ContractError, match="declares Placed twice"):
        declare("shop.Again")(Placed)
    with pytest.raises(ContractError, match="wire name"):
        declare("no name")(Other)
    assert topic.classes == {Placed}


@pytest.mark.parametrize("cls", [dict, int, object, Placed("c-1"), list[int]])
def test_what_is_no_message_class_is_refused_when_declared(cls: Any) -> None:
    with pytest.raises(ContractError, match="can't be a message"):
        Topic("t", owner="shop").event("shop.A")(cls)


def test_a_class_that_a_topic_does_not_declare_is_named_with_those_it_does() -> None:
    with pytest.raises(ContractError, match=r"Other \(it has shop.OrderCancelled, shop.OrderPlaced\)"):
        _orders().type_name_of(Other)


def test_a_view_reads_only_the_fields_it_names() -> None:
    foreign = ForeignTopic("shop.orders")

    @foreign.reads("shop.OrderPlaced")
    class Region(msgspec.Struct):
        region: str

    data = _orders().contracts["shop.OrderPlaced"].encode(Placed("c-1", "south"))
    assert foreign.decoder_of("shop.OrderPlaced")(data) == Region("south")
    assert foreign.declares_one_type
    with pytest.raises(UsageError, match="for reading alone"):
        Catalog([foreign]).contract_for(Region)


def test_a_catalog_finds_the_contract_of_a_class() -> None:
    topic = _orders()
    catalog = Catalog([topic, topic, ForeignTopic("crm.customers")])
    assert catalog.problems == []
    assert catalog.contract_for(Placed) is topic.contracts["shop.OrderPlaced"]
    assert list(catalog.topics) == ["shop.orders"]
    assert list(catalog.foreign) == ["crm.customers"]
    with pytest.raises(UsageError, match="Other"):
        catalog.contract_for(Other)


def _topic(name: str, wire_name: str, cls: type, **options: Any) -> Topic:
    topic = Topic(name, owner="shop", **options)
    topic.event(wire_name)(cls)
    return topic


def _view(name: str, wire_name: str, cls: type) -> ForeignTopic:
    view = ForeignTopic(name)
    view.reads(wire_name)(cls)
    return view


def test_two_contracts_of_one_topic_are_a_problem_that_names_what_differs() -> None:
    (problem,) = Catalog([_topic("t", "shop.A", Placed), _topic("t", "shop.B", Other, partitions=4)]).problems
    assert "Two contracts" in problem
    assert "partitions 8 and 4" in problem


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        (_topic("a", "shop.A", Placed), _topic("b", "shop.B", Placed), "Placed"),
        (_topic("a", "shop.A", Placed), _view("b", "shop.B", Placed), "Placed"),
        (_view("a", "shop.A", Placed), _view("b", "shop.B", Placed), "Placed"),
        (_topic("a", "shop.A", Placed), _topic("b", "shop.A", Other), "'shop.A'"),
        (_topic("a", "shop.A", Placed), _view("b", "shop.A", Other), "'shop.A'"),
    ],
)
def test_a_type_on_two_topics_is_a_problem(one: Any, other: Any, what: str) -> None:
    (problem,) = Catalog([one, other]).problems
    assert f"{what} is declared on two topics, 'a' and 'b'" in problem


def test_a_service_may_have_several_views_of_one_topic() -> None:
    catalog = Catalog([_view("a", "shop.A", Placed), _view("a", "shop.A", Other), _topic("a", "shop.A", Cancelled)])
    assert catalog.problems == []


def test_all_problems_between_topics_are_told_together() -> None:
    topics = [_topic("a", "shop.A", Placed), _topic("b", "shop.A", Placed), _topic("a", "shop.C", Other)]
    assert len(Catalog(topics).problems) == 3


class OldPlaced(msgspec.Struct):
    customer: int


def _upcasting(function: Any) -> Any:
    """What reads an old record through an upcast."""
    topic = Topic("shop.orders", owner="shop", key="customer")
    topic.event("shop.OrderPlaced")(Placed)
    topic.upcast(OldPlaced, Placed)(function)
    return topic.reading_of("shop.OrderPlaced").decoder(schema_of(OldPlaced))


def test_an_upcast_gives_the_new_class_or_the_record_cannot_be_read() -> None:
    assert _upcasting(lambda old: Placed(str(old.customer)))(b'{"customer":7}') == Placed("7")
    for function in (lambda old: None, lambda old: old, lambda old: {"customer": "7"}):
        with pytest.raises(DecodeError, match=r"The upcast .* gave a \w+, not a Placed"):
            _upcasting(function)(b'{"customer":7}')


async def _waiting(old: Any) -> Placed:
    return Placed("")


def _generating(old: Any) -> Any:
    yield Placed("")


@pytest.mark.parametrize("function", [_waiting, _generating, None])
def test_an_upcast_that_gives_no_value_is_refused_where_it_is_declared(function: Any) -> None:
    with pytest.raises(ContractError, match="is no plain function"):
        _upcasting(function)
