"""Errors about values of which some are sensitive say where and what is wrong, and no value."""

from __future__ import annotations

import traceback
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from postline.contracts import Sensitive
from postline.contracts.formats import Codec, FormatName, format_named
from postline.contracts.kinds import Kind
from postline.contracts.reading import Reading
from postline.errors import PostlineError

SECRET = "S3CRET"


class Card(msgspec.Struct):
    key: str
    card: Sensitive[int] = 0
    note: Sensitive[str] = ""
    share: Sensitive[Decimal] = Decimal(0)
    short: Annotated[Sensitive[str], msgspec.Meta(max_length=3)] = ""
    extra: Sensitive[dict[str, int]] = {}
    rate: Sensitive[float | None] = None

    def __post_init__(self) -> None:
        if self.note.startswith("bad"):
            raise ValueError(f"{self.note} is not so")


class CardModel(pydantic.BaseModel):
    key: str
    card: Sensitive[int] = 0
    note: Sensitive[str] = ""
    share: Sensitive[Decimal] = Decimal(0)
    short: Annotated[Sensitive[str], pydantic.Field(max_length=3)] = ""
    extra: Sensitive[dict[str, int]] = {}
    rate: Sensitive[float | None] = None

    @pydantic.field_validator("note")
    @classmethod
    def good(cls, value: str) -> str:
        if value.startswith("bad"):
            raise ValueError(f"{value} is not so")
        return value


def refusal(codec: Codec, value: Any) -> PostlineError | None:
    """What writing the value raises, if it does."""
    try:
        codec.encode(value)
    except PostlineError as error:
        return error
    return None


def told(error: BaseException) -> str:
    """All that a log or a dead letter may hold of it."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error)[1:]])


WRONG: list[dict[str, Any]] = [
    {"card": SECRET},
    {"note": [SECRET]},
    {"note": f"{SECRET}\ud800"},
    {"note": f"bad {SECRET}"},
    {"card": 41114111 << 80},
    {"short": SECRET},
    {"share": 1.41114111},
    {"extra": {SECRET: "x"}},
    {"extra": {SECRET: 41114111 << 80}},
    {"rate": float("inf"), "note": SECRET},
    {"key": 5, "note": SECRET},
]


def made(cls: Any, content: dict[str, Any]) -> Any:
    if cls is CardModel:
        return CardModel.model_construct(**{"key": "a", **content})
    value = Card("a")
    for name, each in content.items():
        setattr(value, name, each)
    return value


@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
@pytest.mark.parametrize("cls", [Card, CardModel])
@pytest.mark.parametrize("content", WRONG, ids="-".join)
def test_publishing_tells_no_sensitive_value(content: dict[str, Any], cls: Any, format: FormatName) -> None:
    codec = Reading(cls, "shop.Card", format_named(format)).codec
    error = refusal(codec, made(cls, content))
    if error is None:  # not all of it is wrong in every format
        assert list(content) in (["card"], ["share"], ["extra"], ["rate", "note"])
        return
    assert SECRET not in told(error)
    assert "4111" not in told(error)
    assert error.message.startswith("A shop.Card can't be written: ")


@pytest.mark.parametrize("cls", [Card, CardModel])
@pytest.mark.parametrize(
    "data",
    [
        b'{"key":"a","card":"S3CRET"}',
        b'{"key":"a","note":["S3CRET"]}',
        b'{"key":"a","note":"bad S3CRET"}',
        b'{"key":"a","short":"S3CRET"}',
        b'{"key":"a","share":"S3CRET"}',
        b'{"key":"a","extra":{"S3CRET":"x"}}',
        b'{"note":"S3CRET"}',
        b'{"key":"a","note":"S3CRET\xff"}',
        b'{"key":"a","note":"S3CRET',
    ],
)
def test_reading_tells_no_sensitive_value(data: bytes, cls: Any) -> None:
    reading = Reading(cls, "shop.Card")
    with pytest.raises(PostlineError) as refused:
        Kind(cls, schema=lambda: reading.schema).read(data)
    assert SECRET not in told(refused.value)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of whatever library
        reading.decode(data)
    said, _, cause = reading.fault(raised.value, data)
    assert cause is None
    assert SECRET not in said
    assert said


def test_a_view_that_marks_nothing_tells_no_value_that_its_writer_marks() -> None:
    class View(pydantic.BaseModel):
        key: str
        note: int

    reading, writer = Reading(View, "shop.Card"), Reading(Card, "shop.Card").schema
    data = b'{"key":"a","note":"S3CRET"}'
    with pytest.raises(msgspec.ValidationError) as raised:
        reading.decode(data)
    assert reading.fault(raised.value, data, writer)[0] == "its value is refused - at `$.note`"
    assert "Input should be a valid integer" in reading.fault(raised.value, data)[0]


def test_places_and_kinds_are_still_told() -> None:
    codec = Reading(Card, "shop.Card").codec
    with pytest.raises(PostlineError, match=r"Expected `int`, got `str` - at `\$\.card`"):
        codec.encode(made(Card, {"card": SECRET}))
