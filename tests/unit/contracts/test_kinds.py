"""Structs, dataclasses and pydantic models become JSON and come back; what readers could not read is refused."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.contracts import Kind
from postline.contracts.kinds import is_message_class
from postline.errors import ContractError, DecodeError, EncodeError


class Colour(enum.Enum):
    RED = "red"


class StructItem(msgspec.Struct):
    sku: str
    price: Decimal


class StructOrder(msgspec.Struct):
    id: UUID
    quantity: int
    placed: datetime
    colour: Colour
    items: list[StructItem]
    note: str | None = None


@dataclasses.dataclass
class DataItem:
    sku: str
    price: Decimal


@dataclasses.dataclass
class DataOrder:
    id: UUID
    quantity: int
    placed: datetime
    colour: Colour
    items: list[DataItem]
    note: str | None = None


class ModelItem(pydantic.BaseModel):
    sku: str
    price: Decimal


class ModelOrder(pydantic.BaseModel):
    id: UUID
    quantity: int
    placed: datetime
    colour: Colour
    items: list[ModelItem]
    note: str | None = None


@pydantic.dataclasses.dataclass
class CheckedItem:
    sku: str
    price: pydantic.PositiveInt


@pydantic.dataclasses.dataclass
class CheckedOrder:
    id: UUID
    quantity: int
    placed: datetime
    colour: Colour
    items: list[ModelItem]
    note: str | None = None


KINDS: list[tuple[Any, Any]] = [
    (StructOrder, StructItem),
    (DataOrder, DataItem),
    (ModelOrder, ModelItem),
    (CheckedOrder, ModelItem),
]
each_kind = pytest.mark.parametrize(("order", "item"), KINDS, ids=[order.__name__ for order, _ in KINDS])


def _made(order: Any, item: Any, **changed: Any) -> Any:
    fields = {
        "id": UUID(int=1),
        "quantity": 2,
        "placed": datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC),
        "colour": Colour.RED,
        "items": [item(sku="a", price=Decimal("1.10"))],
    }
    return order(**fields | changed)


@each_kind
def test_a_message_comes_back_equal(order: Any, item: Any) -> None:
    kind = Kind(order)
    value = _made(order, item, note="süß")
    assert kind.decode(kind.encode(value)) == kind.read(kind.encode(value)) == value


@given(
    quantity=st.integers(-(2**63), 2**63 - 1),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    note=st.none() | st.text(),
    placed=st.datetimes(timezones=st.just(UTC)),
)
def test_any_values_come_back_and_all_kinds_write_the_same_json(
    quantity: int, price: Decimal, note: str | None, placed: datetime
) -> None:
    struct = StructOrder(UUID(int=1), quantity, placed, Colour.RED, [StructItem("a", price)], note)
    data = DataOrder(UUID(int=1), quantity, placed, Colour.RED, [DataItem("a", price)], note)
    written = Kind(StructOrder).encode(struct)
    assert Kind(StructOrder).decode(written) == struct
    assert Kind(DataOrder).decode(Kind(DataOrder).encode(data)) == data
    assert json.loads(written) == json.loads(Kind(DataOrder).encode(data))


@each_kind
def test_unknown_fields_are_ignored_when_read(order: Any, item: Any) -> None:
    kind = Kind(order)
    value = _made(order, item)
    fields = {**json.loads(kind.encode(value)), "new_in_version_2": {"a": [1]}}
    assert kind.read(json.dumps(fields).encode()) == value


@each_kind
@pytest.mark.parametrize(
    ("field", "wrong"),
    [("quantity", "2"), ("quantity", 2.5), ("quantity", None), ("colour", "blue"), ("items", 5), ("note", 5)],
)
def test_a_mistyped_field_is_refused_when_written(order: Any, item: Any, field: str, wrong: Any) -> None:
    value = _made(order, item)
    setattr(value, field, wrong)
    with pytest.raises(EncodeError, match=order.__name__) as caught:
        Kind(order).encode(value)
    assert caught.value.__cause__ is not None
    assert "declared type" in caught.value.remedy


@each_kind
@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'"\xff"', b"null", b"[]", b'{"id":1}', b'{"id":' * 50_000])
def test_bytes_that_are_no_such_message_are_a_decode_error(order: Any, item: Any, data: bytes) -> None:
    with pytest.raises(DecodeError, match=order.__name__) as caught:
        Kind(order).read(data)
    assert caught.value.__cause__ is not None


class Node(msgspec.Struct):
    next: Any = None


def test_a_value_that_contains_itself_is_refused_when_written() -> None:
    node = Node()
    node.next = node
    with pytest.raises(EncodeError, match="recursion"):
        Kind(Node).encode(node)


class Guarded(msgspec.Struct):
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise LookupError("low is above high")


def test_a_rule_of_the_class_is_asked_again_when_written() -> None:
    value = Guarded(1.0, 2.0)
    value.low = 3.0
    with pytest.raises(EncodeError, match="low is above high"):
        Kind(Guarded).encode(value)


def test_not_a_number_is_refused_where_readers_would_find_none() -> None:
    with pytest.raises(EncodeError):
        Kind(Guarded).encode(Guarded(float("nan"), 1.0))


class Aliased(pydantic.BaseModel):
    order_id: str = pydantic.Field(alias="orderId")
    parts: pydantic.Json[list[int]] = pydantic.Field(default="[]", validate_default=True)

    model_config = pydantic.ConfigDict(extra="forbid")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        return f"order {self.order_id}"


def test_a_model_is_written_as_it_reads_itself() -> None:
    value = Aliased.model_validate({"orderId": "o-1", "parts": "[1,2]"})
    written = Kind(Aliased).encode(value)
    assert json.loads(written) == {"orderId": "o-1", "parts": "[1,2]"}
    assert Kind(Aliased).decode(written) == value


def test_a_pydantic_dataclass_keeps_its_own_rules_when_read() -> None:
    with pytest.raises(DecodeError, match="greater than 0"):
        Kind(CheckedItem).read(b'{"sku":"a","price":-5}')


class Tree(msgspec.Struct):
    children: list[Tree] = []


class Branch(pydantic.BaseModel):
    children: list[Branch] = []


@pytest.mark.parametrize("cls", [Tree, Branch])
def test_a_type_may_contain_itself(cls: Any) -> None:
    value = cls(children=[cls(), cls(children=[cls()])])
    assert Kind(cls).decode(Kind(cls).encode(value)) == value


class Plain:
    pass


def _struct_of(kind: Any) -> Callable[[], Any]:
    return lambda: msgspec.defstruct("Holder", [("field", kind)])


def _model_of_nothing() -> Any:
    class Unfinished(pydantic.BaseModel):
        field: Nowhere  # type: ignore[name-defined]  # noqa: F821

    return Unfinished


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Plain, "no kind of message"),
        (lambda: complex, "no kind of message"),
        (_struct_of(Plain), "Plain"),
        (_struct_of(list[Plain] | None), "Plain"),
        (_struct_of(dict[str, tuple[int, Plain]]), "Plain"),
        (_struct_of(ModelItem), "ModelItem"),
        (_struct_of("Nowhere"), "isn't defined there"),
        (_struct_of(StructItem | StructOrder), "JSON can't carry"),
        (_model_of_nothing, "isn't defined there"),
    ],
)
def test_a_class_that_can_not_be_written_is_refused_when_declared(make: Callable[[], Any], reason: str) -> None:
    with pytest.raises(ContractError, match=reason) as caught:
        Kind(make())
    assert caught.value.remedy


@pytest.mark.parametrize("kind", [int, str, dict, list[int], dict[str, StructItem], StructItem | None])
def test_state_may_be_of_a_plain_type_but_a_message_may_not(kind: Any) -> None:
    assert Kind(kind).cls is kind
    assert not is_message_class(kind)


@each_kind
def test_every_kind_of_message_class_is_known_as_one(order: Any, item: Any) -> None:
    assert is_message_class(order)
    assert is_message_class(item)
    assert not is_message_class(_made(order, item))
