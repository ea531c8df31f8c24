"""Envelopes as CloudEvents headers: round trips, foreign records, and the published conformance data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postline.contracts.cloudevents import OWN_ID, RESERVED, SCHEMA_ID, from_headers, to_headers
from postline.errors import EncodeError
from postline.message import JSON_CONTENT_TYPE, Envelope

YEAR_10000_MS = 253_402_300_800_000
YEAR_1_MS = -62_135_596_800_000

texts = st.text(max_size=20)
own_headers = st.dictionaries(texts.filter(lambda name: name not in RESERVED), texts, max_size=5)
envelopes = st.builds(
    Envelope,
    id=texts,
    source=texts,
    type=texts,
    time_ms=st.integers(YEAR_1_MS, YEAR_10000_MS - 1),
    content_type=texts,
    correlation_id=texts,
    causation_id=texts,
    headers=own_headers,
)
times = st.one_of(
    texts,
    st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[012][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,12})?Z", fullmatch=True),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
)
foreign_headers = st.builds(
    lambda attributes, others, time: others | attributes | time,
    st.dictionaries(st.sampled_from(sorted(RESERVED - {"ce_time", OWN_ID, SCHEMA_ID})), texts.filter(bool)),
    own_headers,
    st.one_of(st.just({}), times.map(lambda text: {"ce_time": text})),
)

WHOLE = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/shop", "ce_type": "shop.OrderPlaced"}


@given(envelopes)
def test_an_envelope_comes_back_equal(envelope):
    assert from_headers(to_headers(envelope)) == envelope


@given(foreign_headers)
@example({"ce_time": "0001-01-01T00:00:00+23:59"})
@example({"ce_time": "2016-12-31T23:59:60Z"})
def test_any_headers_can_be_read_and_written_again_without_loss(headers):
    envelope = from_headers(headers)
    written = to_headers(envelope)
    assert from_headers(written) == envelope
    assert {name: written.get(name) for name in headers if name not in {"ce_time", "ce_specversion"}} == {
        name: value for name, value in headers.items() if name not in {"ce_time", "ce_specversion"}
    }
    assert ("ce_time" in written) == ("ce_time" in headers)
    assert written.get("ce_specversion") == headers.get("ce_specversion", written.get("ce_specversion"))


def test_headers_are_named_and_ordered_as_the_kafka_binding_says():
    envelope = Envelope(
        id="1",
        source="shop",
        type="shop.OrderPlaced",
        time_ms=1_522_900_584_007,
        correlation_id="c",
        causation_id="p",
        headers={"traceparent": "00-a-b-01", "ce_subject": "order/1", "tenant": "north"},
    )
    assert list(to_headers(envelope).items()) == [
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "shop"),
        ("ce_type", "shop.OrderPlaced"),
        ("content-type", JSON_CONTENT_TYPE),
        ("ce_correlationid", "c"),
        ("ce_causationid", "p"),
        ("ce_time", "2018-04-05T03:56:24.007Z"),
        ("traceparent", "00-a-b-01"),
        ("ce_subject", "order/1"),
        ("tenant", "north"),
    ]


def test_a_record_without_headers_is_an_empty_envelope():
    assert from_headers({}) == Envelope(content_type="")
    assert to_headers(Envelope(content_type="")) == {}


def test_a_users_header_cannot_pose_as_an_attribute():
    posing = Envelope(id="1", time_ms=5, headers={"ce_id": "2", "ce_time": "2018-04-05T03:56:24Z", "content-type": "x"})
    assert to_headers(posing) == {
        "ce_id": "1",
        "content-type": JSON_CONTENT_TYPE,
        "ce_time": "1970-01-01T00:00:00.005Z",
    }


def test_what_is_no_whole_event_does_not_call_itself_one():
    assert "ce_specversion" not in to_headers(Envelope(id="1", source="shop"))


@pytest.mark.parametrize("headers", [WHOLE | {"ce_specversion": "0.3"}, {"ce_specversion": "1.0", "ce_id": "1"}])
def test_a_specversion_that_does_not_follow_from_the_event_is_kept(headers):
    assert to_headers(from_headers(headers)) == headers


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2018-04-05T03:56:24Z", 1_522_900_584_000),
        ("2018-04-05t03:56:24.5z", 1_522_900_584_500),
        ("2018-04-05T05:56:24.123+02:00", 1_522_900_584_123),
        ("2018-04-05T03:56:24.120000000Z", 1_522_900_584_120),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_a_time_of_whole_milliseconds_is_a_field_alone(text, time_ms):
    envelope = from_headers({"ce_time": text})
    assert (envelope.time_ms, envelope.headers) == (time_ms, {})


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2018-04-05T03:56:24.123456789Z", 1_522_900_584_123),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1970-01-01T00:00:00Z", 0),
        ("yesterday", 0),
        ("", 0),
        ("2018-04-05T03:56:24", 0),
        ("2018-W14-4T03:56:24Z", 0),
        ("2018-02-30T03:56:24Z", 0),
        ("0000-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00+01:00", 0),
    ],
)
def test_a_time_that_milliseconds_cannot_hold_is_kept_as_written(text, time_ms):
    envelope = from_headers({"ce_time": text, "content-type": "x"})
    assert (envelope.time_ms, envelope.headers) == (time_ms, {"ce_time": text})
    assert to_headers(envelope)["ce_time"] == text


@pytest.mark.parametrize("time_ms", [YEAR_10000_MS, YEAR_1_MS - 1, 1 << 80])
def test_a_time_that_no_calendar_has_is_refused(time_ms):
    with pytest.raises(EncodeError, match="year 10000"):
        to_headers(Envelope(time_ms=time_ms))


def rows_of(table: str) -> dict[str, str]:
    """The cells of a feature's table of two columns, without its heading."""
    rows = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in table.strip().splitlines()]
    return {row[0]: row[1] for row in rows[1:]}


def test_the_kafka_bindings_conformance_scenario_holds(shared_data: Callable[[str], Path]):
    feature = (shared_data("cloudevents_conformance") / "features" / "kafka-protocol-binding.feature").read_text(
        "utf-8"
    )
    scenario = feature.split("Scenario: Binary content mode")[1].split("Scenario Outline")[0]
    headers, attributes = (rows_of(table) for table in re.findall(r"((?:^ *\|.*\n)+)", scenario, re.MULTILINE))
    assert set(headers) > {"ce_id", "ce_time"}
    envelope = from_headers(headers)
    assert envelope == Envelope(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        time_ms=1_522_900_584_000,
        content_type=attributes["datacontenttype"],
    )
    assert to_headers(envelope) == headers | {"ce_time": "2018-04-05T03:56:24.000Z"}


def test_the_attributes_of_googles_events_come_through(shared_data: Callable[[str], Path]):
    files = sorted((shared_data("google_cloudevents") / "examples" / "structured").glob("*/*.json"))
    assert files
    for file in files:
        event = {name: value for name, value in json.loads(file.read_text("utf-8")).items() if name != "data"}
        headers = {f"ce_{name}": value for name, value in event.items() if name != "datacontenttype"}
        headers["content-type"] = event["datacontenttype"]
        envelope = from_headers(headers)
        assert (envelope.id, envelope.source, envelope.type) == (event["id"], event["source"], event["type"])
        assert envelope.headers.get("ce_subject") == event.get("subject")
        assert envelope.time_ms > 1_612_000_000_000
        assert to_headers(envelope) == headers
