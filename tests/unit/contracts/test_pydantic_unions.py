"""Unions of pydantic's: a value is read as the type that it was published with, or refused at publish."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pydantic
import pytest

from postline.contracts.formats import FormatName, format_named
from postline.contracts.reading import Reading
from postline.errors import ContractError, EncodeError

VALUES: list[tuple[Any, Any]] = [
    (UUID | str, UUID(int=5)),
    (UUID | str, str(UUID(int=5))),
    (UUID | str, "plain"),
    (date | str, date(2020, 1, 1)),
    (date | str, "2020-01-01"),
    (Decimal | str, Decimal("1.5")),
    (Decimal | str, "1.5"),
    (timedelta | str, "P1D"),
    (datetime | date, date(2020, 1, 1)),
    (date | datetime, datetime(2020, 1, 1, tzinfo=UTC)),
    (bytes | str, b"aa"),
    (bytes | str, "aa"),
    (list[int] | set[int], {1}),
    (int | str, "5"),
    (bool | int, 1),
    (dict[str, UUID | str], {"k": str(UUID(int=5))}),
    (list[date | str], ["x", "2020-01-01"]),
]


@pytest.mark.parametrize("name", ["json", "avro", "protobuf"])
@pytest.mark.parametrize(("hint", "value"), VALUES, ids=str)
def test_a_value_keeps_its_type_or_is_refused(name: FormatName, hint: Any, value: Any) -> None:
    model = pydantic.create_model("S", a=(hint, ...))
    try:
        codec = Reading(model, "t.S", format_named(name)).codec
    except ContractError:
        return  # Avro says that it can't tell them apart
    given = model(a=value)
    try:
        data = codec.encode(given)
    except EncodeError as error:
        said = error.message
    else:
        back = codec.decode(data)
        assert (type(back.a), back) == (type(value), given)
        return
    assert "would be read as a" in said
    assert "$.a" in said


@pytest.mark.parametrize("name", ["json", "avro", "protobuf"])
def test_what_is_told_apart_goes_through(name: FormatName) -> None:
    model = pydantic.create_model("S", a=(date | str, ...), b=(int | None, 3))
    codec = Reading(model, "t.S", format_named(name)).codec
    assert codec.decode(codec.encode(model(a="today", b=None))) == model(a="today", b=None)


def test_text_that_looks_like_a_date_is_text_in_avro() -> None:
    model = pydantic.create_model("S", a=(date | str, ...))
    codec = Reading(model, "t.S", format_named("avro")).codec
    assert codec.decode(codec.encode(model(a="2020-01-01"))).a == "2020-01-01"
