"""The keys of maps in the paths of errors, which libraries leave out, and times that name no moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct
from pydantic import BaseModel, NaiveDatetime

from postline.contracts.formats import FormatName, format_named
from postline.contracts.kinds import Kind
from postline.contracts.marks import Sensitive, was
from postline.contracts.reading import Reading
from postline.errors import EncodeError

FORMATS: list[FormatName] = ["json", "avro", "protobuf"]
NOON = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - without a zone


class Stock(Struct):
    by_article: dict[str, int]
    deep: dict[str, list[dict[str, int]]] = {}
    by_number: dict[int, str] = {}


class OldStock(Struct):
    articles: dict[str, int]


class NewStock(Struct):
    by_article: Annotated[dict[str, int], was("articles")]


def reading(cls: Any, name: FormatName = "json") -> Reading:
    return Reading(cls, "shop.Stock", format_named(name))


def refusal(cls: Any, value: Any, name: FormatName = "json") -> str:
    with pytest.raises(EncodeError) as refused:
        reading(cls, name).codec.encode(value)
    return str(refused.value)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_refused_at_publish_is_named_with_the_keys_of_its_maps(name: FormatName) -> None:
    many: Any = {f"a-{number}": number for number in range(100)}
    assert "got `str` - at `$.by_article['a-70']`" in refusal(Stock, Stock(many | {"a-70": "x"}), name)
    deep: Any = {"a": [{}], "b.c": [{"x": 1}, {"y": 1, "z": "2"}]}
    assert "at `$.deep['b.c'][1]['z']`" in refusal(Stock, Stock({}, deep), name)


def test_what_can_not_be_read_is_named_with_the_keys_of_its_maps_in_the_writers_words() -> None:
    for here, writer, data, said in [
        (reading(Stock), None, b'{"by_article":{"a":1,"b":"x"}}', "at `$.by_article['b']`"),
        (reading(Stock), None, b'{"by_article":{},"by_number":{"1":"a","x":"b"}}', "at the key 'x' in `$.by_number`"),
        (reading(NewStock), reading(OldStock).schema, b'{"articles":{"a":1,"b":"x"}}', "at `$.articles['b']`"),
    ]:
        writers = [] if writer is None else [writer]
        decode = here.decoder(writer) if writer else here.decode
        with pytest.raises(msgspec.ValidationError) as failed:
            decode(data)
        assert said in here.fault(failed.value, data, *writers)[0]


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 9), min_size=1), st.data())
def test_whatever_key_is_wrong_is_found(content: dict[str, int], data: st.DataObject) -> None:
    wrong = data.draw(st.sampled_from(sorted(content)))
    written = msgspec.json.encode({"by_article": {**content, wrong: None}})
    with pytest.raises(msgspec.ValidationError) as failed:
        reading(Stock).decode(written)
    assert f"at `$.by_article[{wrong!r:.60}]`" in reading(Stock).fault(failed.value, written)[0]


class Secret(Struct):
    by_name: Sensitive[dict[str, int]]


def test_where_a_field_is_sensitive_no_key_is_told() -> None:
    value: Any = Secret({"ann": "x"})  # type: ignore[dict-item]
    assert "ann" not in refusal(Secret, value)


class Shipped(Struct):
    at: datetime
    others: dict[str, datetime] = {}
    rate: float = 0.0


class ShippedModel(BaseModel):
    at: datetime


@dataclass
class ShippedOne:
    at: datetime | None = None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Shipped(NOON), "at"),
        (Shipped(NOON.replace(tzinfo=UTC, microsecond=5), {"a": NOON}), "others['a']"),
        (ShippedModel(at=NOON.replace(microsecond=5)), "at"),
        (ShippedOne(NOON), "at"),
    ],
)
def test_a_time_without_a_zone_is_refused_at_publish(name: FormatName, value: Any, path: str) -> None:
    said = refusal(type(value), value, name)
    assert path in said
    assert "zone" in said


def test_times_with_zones_are_written_and_those_of_other_programs_without_are_read() -> None:
    here = reading(Shipped)
    value = Shipped(NOON.replace(tzinfo=UTC))
    assert here.decode(here.codec.encode(value)) == value
    assert here.decode(b'{"at":"2026-01-31T12:00:00"}').at == NOON


class Local(Struct):
    at: Annotated[datetime, Meta(tz=False)]


class LocalModel(BaseModel):
    at: NaiveDatetime


@pytest.mark.parametrize("value", [Local(NOON), LocalModel(at=NOON)])
def test_a_class_that_says_that_its_times_have_no_zone_is_taken_at_its_word(value: Any) -> None:
    here = reading(type(value))
    assert here.decode(here.codec.encode(value)) == value


def test_what_is_kept_for_oneself_may_be_without_a_zone() -> None:
    kind = Kind(Shipped)
    assert kind.decode(kind.encode(Shipped(NOON))) == Shipped(NOON)


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "nan"), (float("-inf"), "-inf")])
def test_a_number_that_json_does_not_have_is_called_so(value: float, said: str) -> None:
    moment = NOON.replace(tzinfo=UTC)
    assert f"{said} can't stand in JSON - at `$.rate`" in refusal(Shipped, Shipped(moment, rate=value))
