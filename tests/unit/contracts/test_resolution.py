"""Reading what another version wrote: the value is what plain decoding makes of the same content in our own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from pydantic import BaseModel

from postline.contracts.kinds import Kind
from postline.contracts.marks import was
from postline.contracts.reading import Reading
from postline.contracts.reflection import schema_of
from postline.contracts.resolution import needs_resolution, resolver
from postline.contracts.resolution_pairs import Pairs
from postline.contracts.resolution_rewriting import rewriter
from postline.errors import ContractError
from tests.unit.contracts.versions_drawn import versions


def read(old: Any, new: Any, value: Any) -> Any:
    """A value of the old class, read as the new one."""
    data = value.model_dump_json().encode() if isinstance(value, BaseModel) else msgspec.json.encode(value)
    return resolver(new, "shop.Order", schema_of(new, name="n"), schema_of(old, name="o"))(data)


class Line(Struct):
    sku: str
    number: int


class Order(Struct):
    id: str
    amount: int
    lines: list[Line] = []


class RenamedOrder(Struct):
    id: str
    total: Annotated[Decimal, was("amount")]
    lines: list[Line] = []
    note: str = "none"


def test_a_renamed_field_is_found_under_its_old_name_and_numbers_are_widened() -> None:
    assert read(Order, RenamedOrder, Order("1", 7, [Line("a", 2)])) == RenamedOrder("1", Decimal(7), [Line("a", 2)])


def test_what_another_version_wrote_has_no_decimal_that_is_no_number_either() -> None:
    decode = resolver(RenamedOrder, "o", schema_of(RenamedOrder, name="n"), schema_of(Order, name="o"))
    with pytest.raises(msgspec.ValidationError, match=r"NaN is no finite number - at `\$\.total`"):
        decode(b'{"id":"1","amount":"NaN"}')


class RenamedLine(Struct, kw_only=True, frozen=True):
    article: Annotated[str, was("sku", "item")]
    number: int


class DeepOrder(Struct):
    id: str
    amount: int
    lines: list[RenamedLine] = []
    by_sku: dict[str, RenamedLine] = {}
    first: RenamedLine | None = None


class OldDeepOrder(Struct):
    id: str
    amount: int
    lines: list[Line] = []
    by_sku: dict[str, Line] = {}
    first: Line | None = None


@pytest.mark.parametrize("first", [None, Line("c", 3)])
def test_renamed_fields_are_found_in_lists_maps_and_options(first: Line | None) -> None:
    old = OldDeepOrder("1", 7, [Line("a", 1)], {"b": Line("b", 2)}, first)
    read_first = None if first is None else RenamedLine(article="c", number=3)
    lines, by_sku = [RenamedLine(article="a", number=1)], {"b": RenamedLine(article="b", number=2)}
    assert read(OldDeepOrder, DeepOrder, old) == DeepOrder("1", 7, lines, by_sku, read_first)


class Node(Struct):
    value: int
    after: Node | None = None


class RenamedNode(Struct):
    content: Annotated[int, was("value")]
    after: RenamedNode | None = None


def test_types_that_contain_themselves_are_resolved_all_the_way() -> None:
    chain = Node(1, Node(2, Node(3)))
    assert read(Node, RenamedNode, chain) == RenamedNode(1, RenamedNode(2, RenamedNode(3)))


def test_of_another_version_too_it_is_told_that_a_value_nests_too_deeply() -> None:
    reading = Reading(RenamedNode, "shop.Node")
    data = b'{"value":1,"after":' * 50_000 + b'{"value":1}' + b"}" * 50_000
    with pytest.raises(RecursionError) as failed:
        reading.decoder(schema_of(Node))(data)
    assert reading.fault(failed.value, data)[0] == "its values are nested too deeply"


class Card(Struct, tag="card"):
    number: str


class Cash(Struct, tag="cash"):
    cents: int


class Payment(Struct):
    by: Card | Cash


class CreditCard(Struct, tag="credit-card"):
    __was__ = ("card",)
    digits: Annotated[str, was("number")]


class Coins(Struct, tag="cash"):
    cents: float


class NewPayment(Struct):
    by: CreditCard | Coins


@pytest.mark.parametrize(("old", "new"), [(Card("1"), CreditCard("1")), (Cash(5), Coins(5.0))])
def test_a_unions_value_is_told_by_its_tag_even_if_that_was_renamed(old: Any, new: Any) -> None:
    assert read(Payment, NewPayment, Payment(old)) == NewPayment(new)


@dataclass
class DataOrder:
    id: str
    total: Annotated[int, was("amount")]
    lines: list[Line] = field(default_factory=list)


class ModelOrder(BaseModel):
    id: str
    total: Annotated[int, was("amount")]


@pytest.mark.parametrize("new", [DataOrder, ModelOrder])
def test_dataclasses_and_models_are_resolved_too(new: Any) -> None:
    found = read(Order, new, Order("1", 7))
    assert (type(found), found.id, found.total) == (new, "1", 7)


def test_what_plain_decoding_bridges_needs_no_resolution() -> None:
    class Grown(Struct):
        id: str
        amount: float
        note: str = ""

    assert not needs_resolution(schema_of(Grown), schema_of(Order))
    assert read(Order, Grown, Order("1", 7)) == Grown("1", 7.0)


def test_what_can_not_be_read_is_refused_when_it_is_compiled() -> None:
    class Needy(Struct):
        id: str
        customer: str

    with pytest.raises(ContractError, match=r"customer: the reader wants it"):
        resolver(Needy, "shop.Order", schema_of(Needy), schema_of(Order))


def test_a_wrong_value_is_told_with_its_path_in_the_writers_words() -> None:
    decode = resolver(RenamedOrder, "shop.Order", schema_of(RenamedOrder), schema_of(Order))
    with pytest.raises(msgspec.ValidationError, match=r"\$\.amount"):
        decode(b'{"id": "1", "amount": "many"}')


@pytest.mark.parametrize("kind", ["struct", "dataclass", "mixed", "model"])
@settings(max_examples=40)
@given(st.data())
def test_any_two_versions_read_what_plain_decoding_reads_of_the_same_content(kind: str, data: st.DataObject) -> None:
    old, new, written, own = versions(data, kind)
    reader, writer = schema_of(new, name="Order"), schema_of(old, name="Order")
    expected = Kind(new).decode(own)
    found = resolver(new, "Order", reader, writer)(written)
    assert (found, repr(found)) == (expected, repr(expected))
    if not needs_resolution(reader, writer):
        assert Kind(new).decode(written) == expected


@pytest.mark.parametrize("kind", ["struct", "mixed", "model"])
@settings(max_examples=40)
@given(st.data())
def test_what_can_not_be_read_at_once_is_rewritten_to_the_same_content(kind: str, data: st.DataObject) -> None:
    old, new, written, own = versions(data, kind)
    rewrite = rewriter(Pairs(schema_of(new, name="Order"), schema_of(old, name="Order")))
    found, expected = Kind(new).decode(bytes(rewrite(msgspec.Raw(written)))), Kind(new).decode(own)
    assert (found, repr(found)) == (expected, repr(expected))
