"""Structured mode, batches and HTTP: round trips, the published conformance features, the official SDK, bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings import http as sdk_http
from cloudevents.core.bindings import kafka as sdk_kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from postline.contracts.cloudevents_http import batch_message, event_message, read_events
from postline.contracts.cloudevents_json import STRUCTURED, Parts, read_batch, read_structured, to_batch, to_structured
from postline.errors import DecodeError, EncodeError

REQUIRED = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/shop", "ce_type": "shop.OrderPlaced"}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
attributes = st.dictionaries(
    st.from_regex("[a-z0-9]{1,10}", fullmatch=True)
    .filter(lambda name: name not in ("data", "datacontenttype", "specversion", "id", "source", "type"))
    .map("ce_{}".format),
    texts,
    max_size=4,
)
json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
#: Content types with data that goes with them; whether data is there at all.
contents = st.one_of(
    st.tuples(st.sampled_from(["application/json", "application/vnd.shop+json; charset=utf-8"]), json_data),
    st.tuples(st.sampled_from(["application/avro", "text/plain", "application/json"]), st.binary(max_size=20)),
    st.tuples(st.just("text/plain"), texts.map(str.encode)),
)
events = st.builds(
    lambda extra, ids, content: Parts(
        {**REQUIRED, **extra, "ce_id": ids[0], "ce_source": ids[1], "content-type": content[0]}, content[1]
    ),
    attributes,
    st.tuples(texts, texts),
    contents,
)


@given(events)
def test_a_structured_event_comes_back_equal(event: Parts):
    document, beside = to_structured(event)
    assert (read_structured(document), beside) == (event, {})


@given(st.lists(events, max_size=3))
def test_a_batch_comes_back_equal_and_in_order(batch: list[Parts]):
    assert read_batch(to_batch(batch)) == batch


@given(events, st.sampled_from(["binary", "structured"]))
def test_an_event_comes_back_equal_over_http(event: Parts, mode: Any):
    headers, body = event_message(event, mode)
    assert all(name.isascii() and value.isascii() and value.isprintable() for name, value in headers.items())
    found = read_events({name.title(): value for name, value in headers.items()}, body)
    # HTTP has no difference between no body and an empty one.
    assert found == [event] if event.data or mode == "structured" else [Parts(event.headers, None)]


@given(st.lists(events, max_size=3))
def test_a_batch_comes_back_equal_over_http(batch: list[Parts]):
    assert read_events(*batch_message(batch)) == batch


def test_headers_that_are_no_attributes_travel_beside_the_document():
    event = Parts({**REQUIRED, "traceparent": "00-a-b-01", "ce_Odd-Name": "x", "ce_subject": "o-1"}, b"{}")
    document, beside = to_structured(event)
    assert beside == {"traceparent": "00-a-b-01", "ce_Odd-Name": "x"}
    assert json.loads(document)["subject"] == "o-1"


def test_attributes_with_capitals_are_those_in_lower_case_in_every_mode():
    event = {"SpecVersion": "1.0", "ID": "1", "source": "/shop", "type": "shop.OrderPlaced", "methodName": "get"}
    structured = read_structured(json.dumps(event).encode())
    (binary,) = read_events({f"CE-{name}": value for name, value in event.items()}, b"")
    assert structured == binary == Parts({**REQUIRED, "ce_methodname": "get"}, None)


def test_headers_of_kafka_with_capitals_are_written_as_the_attributes_that_they_can_be():
    event = Parts({**REQUIRED, "ce_traceId": "a", "ce_Seq": "1", "ce_seq": "2", "content-type": "text/plain"}, b"x")
    document, beside = to_structured(event)
    assert (json.loads(document)["traceid"], json.loads(document)["seq"], beside) == ("a", "2", {})
    for mode in ("binary", "structured"):
        (found,) = read_events(*event_message(event, mode))
        assert (found.headers["ce_traceid"], found.headers["ce_seq"]) == ("a", "2")


def test_over_http_the_trace_goes_along_in_every_mode_and_nothing_else_that_is_no_attribute():
    event = Parts({**REQUIRED, "traceparent": "00-a-b-01", "host": "evil", "tenant": "north"}, b"{}")
    for mode in ("binary", "structured"):
        headers, body = event_message(event, mode)
        assert "host" not in headers
        assert "tenant" not in headers
        assert [parts.headers.get("traceparent") for parts in read_events(headers, body)] == ["00-a-b-01"]


def test_what_is_not_ascii_is_escaped_as_the_binding_says():
    event = Parts({**REQUIRED, "ce_subject": 'Euro € 😀 "100%"'}, None)
    assert event_message(event).headers["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80%20%22100%25%22"


def test_a_header_in_double_quotes_is_read_without_them():
    headers = {name.replace("_", "-"): value for name, value in REQUIRED.items()} | {
        "ce-subject": r'"a \"b\" %E2%82%AC"'
    }
    assert read_events(headers, b"")[0].headers["ce_subject"] == 'a "b" €'


def test_attributes_may_be_booleans_integers_and_null_and_data_may_stand_without_a_content_type():
    others = b'"on":true,"n":-7,"gone":null,"data_base64":null,"data":{"a": 1.0}'
    document = b'{"specversion":"1.0","id":"1","source":"/s","type":"t",' + others + b"}"
    headers = {**REQUIRED, "ce_source": "/s", "ce_type": "t", "ce_on": "true", "ce_n": "-7"}
    assert read_structured(document) == Parts({**headers, "content-type": "application/json"}, b'{"a": 1.0}')


EVENT = '"specversion":"1.0","id":"1","source":"/s","type":"t"'


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"\xff\xfe", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b"{}", "it has no specversion, id, source, type"),
        (b'{"specversion":"1.0","id":"","source":"/s","type":"t"}', "it has no id"),
        (b'{"specversion":"0.3","id":"1","source":"/s","type":"t"}', "version '0.3'"),
        (b'{"specversion":"1.0","id":5,"source":"/s","type":"t"}', "attribute id is no text"),
        (b'{"specversion":"1.0","id":false,"source":"/s","type":"t"}', "attribute id is no text"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":5}', "attribute subject is no text"),
        (b'{"specversion":"1.0","id":"1","source":"/s","type":"t","tenant":[]}', "attribute tenant is neither text"),
        (f'{{{EVENT},"big":99999999999}}'.encode(), "attribute big"),
        (f'{{{EVENT},"part":1.5}}'.encode(), "attribute part"),
        (f'{{{EVENT},"deep":{{}}}}'.encode(), "attribute deep"),
        (f'{{{EVENT},"up-per":"x"}}'.encode(), "'up-per' can't be an attribute's name"),
        (f'{{{EVENT},"ID":"2"}}'.encode(), "'ID' is there in another case"),
        (f'{{{EVENT},"traceId":"x","TraceID":"x"}}'.encode(), "'TraceID' is there in another case"),
        (f'{{{EVENT},"Data":"x"}}'.encode(), "'Data' is there in another case, too, or is no attribute's name"),
        (f'{{{EVENT},"data":1,"data_base64":"MQ=="}}'.encode(), "data twice"),
        (f'{{{EVENT},"data_base64":"?"}}'.encode(), "data_base64 is none"),
        (f'{{{EVENT},"data_base64":5}}'.encode(), "data_base64 is none"),
        (f'{{{EVENT},"data":}}'.encode(), "no JSON object"),
        (f'{{{EVENT},"data":'.encode() + b"[" * 100_000, "no JSON object"),
    ],
)
def test_what_is_no_event_is_refused_with_its_reason(document: bytes, why: str):
    with pytest.raises(DecodeError, match=re.escape(why)):
        read_structured(document)


def test_a_bad_event_in_a_batch_is_named_by_its_place():
    with pytest.raises(DecodeError, match=r"Event 1 of the batch: .*no specversion"):
        read_batch(f"[{{{EVENT}}}, {{}}]".encode())
    with pytest.raises(DecodeError, match="no JSON array"):
        read_batch(b"{}")


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"content-type": "application/json"}, "no ce-specversion, ce-id, ce-source, ce-type"),
        ({"ce-specversion": "0.3", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}, "version '0.3'"),
        ({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "%FF"}, "header ce-type is no text"),
        ({"content-type": "application/cloudevents+avro"}, "application/cloudevents[+]avro can't be read"),
    ],
)
def test_a_request_that_is_no_event_is_refused_with_its_reason(headers: dict[str, str], why: str):
    with pytest.raises(DecodeError, match=why):
        read_events(headers, b"{}")


def test_a_message_without_an_identity_is_no_event():
    with pytest.raises(EncodeError, match="no CloudEvent"):
        to_structured(Parts({"ce_type": "t"}, b"{}"))


# -- the published documents --------------------------------------------------------------------------


def scenarios(text: str) -> Iterator[tuple[str, str]]:
    """The scenarios of a feature with each content type of their examples put in."""
    for scenario in re.split(r"\n\s*Scenario", text)[1:]:
        types = re.findall(r"^ *\| (application/\S+?(?:; \S+)?) +\|$", scenario.split("Examples:")[-1], re.MULTILINE)
        for content_type in types if "<contentType>" in scenario else [""]:
            yield content_type, scenario.split("Examples:")[0].replace("<contentType>", content_type)


def tables(scenario: str) -> list[dict[str, str]]:
    found = re.findall(r"((?:^ *\|.*\n?)+)", scenario, re.MULTILINE)
    rows = [
        [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in t.strip().splitlines()] for t in found
    ]
    return [dict(table[1:]) for table in rows]


def blocks(scenario: str) -> list[str]:
    """Texts in triple quotes, without their indentation."""
    found = re.findall(r'"""\n(.*?)\n *"""', scenario, re.DOTALL)
    return ["\n".join(line.strip() for line in block.splitlines()) for block in found]


def told(parts: Parts) -> dict[str, str]:
    names = {"content-type": "datacontenttype"}
    return {names.get(name, name.removeprefix("ce_")): value for name, value in parts.headers.items()}


def test_the_http_bindings_conformance_scenarios_hold(shared_data: Callable[[str], Path]):
    feature = shared_data("cloudevents_conformance") / "features" / "http-protocol-binding.feature"
    seen = []
    for content_type, scenario in scenarios(feature.read_text("utf-8")):
        request, data = blocks(scenario)
        head, _, body = request.partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
        (parts,) = read_events(headers, body.encode())
        assert told(parts) == tables(scenario)[-1]
        assert json.loads(parts.data or b"") == json.loads(data)
        seen.append(content_type)
    assert len(seen) == 4


def test_the_kafka_bindings_structured_scenarios_hold(shared_data: Callable[[str], Path]):
    feature = shared_data("cloudevents_conformance") / "features" / "kafka-protocol-binding.feature"
    found = [scenario for content_type, scenario in scenarios(feature.read_text("utf-8")) if content_type]
    assert len(found) == 2
    for scenario in found:
        payload, data = blocks(scenario)
        parts = read_structured(payload.encode())
        assert told(parts) == tables(scenario)[-1]
        assert json.loads(parts.data or b"") == json.loads(data)


def test_googles_structured_events_come_through(shared_data: Callable[[str], Path]):
    files = sorted((shared_data("google_cloudevents") / "examples" / "structured").glob("*/*.json"))
    assert len(files) == 3
    for file in files:
        document, beside = to_structured(read_structured(file.read_bytes()))
        assert beside == {}
        # One has `methodName`, which Google documents as `methodname` and sends so in binary mode.
        sent = {name if name == "data" else name.lower(): each for name, each in json.loads(file.read_bytes()).items()}
        assert json.loads(document) == sent


@given(events)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_valid_by_the_published_schema(shared_data: Callable[[str], Path], event: Parts):
    schema = json.loads(
        (shared_data("cloudevents_conformance") / "spec/cloudevents/formats/cloudevents.json").read_bytes()
    )
    document = json.loads(to_structured(event)[0])
    problems = [error.message for error in Draft7Validator(schema).iter_errors(document)]
    assert problems == []


# -- the official SDK ---------------------------------------------------------------------------------


def sdk_event(data: Any = None, **more: str) -> SdkEvent:
    said = {"id": "1", "source": "/shop", "type": "shop.OrderPlaced", "specversion": "1.0", "subject": "Zürich 100%"}
    return SdkEvent(said | {"datacontenttype": "application/json"} | more, {"order": "ö"} if data is None else data)


def as_sdk(event: SdkEvent) -> dict[str, Any]:
    return {name: value for name, value in event.get_attributes().items() if name not in ("time", "datacontenttype")}


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_what_the_sdk_sends_over_http_is_read(mode: str):
    event = sdk_event()
    sent = sdk_http.to_binary(event, JSONFormat()) if mode == "binary" else sdk_http.to_structured(event, JSONFormat())
    (parts,) = read_events(sent.headers, sent.body)
    assert {name: value for name, value in told(parts).items() if name in as_sdk(event)} == as_sdk(event)
    assert json.loads(parts.data or b"") == {"order": "ö"}


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize(
    ("content_type", "data"), [("application/json", b'{"order":"\xc3\xb6"}'), ("x/y", b"\x00\xff")]
)
def test_what_we_send_over_http_is_read_by_the_sdk(mode: Any, content_type: str, data: bytes):
    event = Parts({**REQUIRED, "ce_subject": "Zürich 100%", "content-type": content_type}, data)
    headers, body = event_message(event, mode)
    found = sdk_http.from_http(sdk_http.HTTPMessage(headers, body), JSONFormat())
    assert (found.get_id(), found.get_source(), found.get_type()) == ("1", "/shop", "shop.OrderPlaced")
    assert found.get_subject() == "Zürich 100%"
    assert found.get_datacontenttype() == content_type
    assert found.get_data() == (json.loads(data) if content_type.endswith("json") else data)


def test_what_the_sdk_writes_to_kafka_as_a_whole_is_read_and_the_other_way_round():
    event = sdk_event()
    sent = sdk_kafka.to_structured(event, JSONFormat())
    parts = read_structured(sent.value)
    assert {name: value for name, value in told(parts).items() if name in as_sdk(event)} == as_sdk(event)
    document, _ = to_structured(parts)
    back = sdk_kafka.from_structured(sdk_kafka.KafkaMessage(sent.headers, None, document), JSONFormat())
    assert (back.get_attributes(), back.get_data()) == (event.get_attributes(), event.get_data())


@pytest.mark.parametrize(
    ("name", "value"),
    [("time", "x"), ("time", "5"), ("time", "2026-01-31T12:00:00"), ("subject", ""), ("dataschema", "")],
)
def test_attributes_that_are_none_are_refused_over_http(name: str, value: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", name: value}
    with pytest.raises(DecodeError, match=f"event's {name}"):
        read_events({"content-type": STRUCTURED}, json.dumps(event).encode())
    with pytest.raises(DecodeError, match=f"event's {name}"):
        read_events({f"ce-{key}": each for key, each in event.items()}, b"")
    good = event | {name: "2026-01-31T12:00:00.5+02:00" if name == "time" else "a"}
    assert len(read_events({"content-type": STRUCTURED}, json.dumps(good).encode())) == 1
