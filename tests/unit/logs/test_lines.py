"""Lines as JSON and as text: complete, one line each whatever is logged, and without the secrets of URLs."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postline.errors import UsageError
from postline.logs import EVENTS, Fields, JsonFormatter, TextFormatter, configure, formatter_for, handler_for
from postline.logs.events import event
from postline.logs.values import redacted

AT = 1_777_636_800.042


def line(msg: object = "hello", *args: Any, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.getLogger("shop").makeRecord("shop", level, __file__, 1, msg, args, None, extra=extra)
    made.created, made.msecs = AT, 42.0
    return made


def as_json(record: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_has_time_level_logger_message_and_process() -> None:
    told = as_json(line("%d orders", 3))
    assert told.pop("process") > 0
    assert told == {
        "time": "2026-05-01T12:00:00.042Z",
        "level": "info",
        "logger": "shop",
        "message": "3 orders",
        "thread": "MainThread",
    }


def test_extra_values_stand_beside_and_never_hide_what_is_ours() -> None:
    told = as_json(line(order="a", items=[1, {2.5}], level_=1, time="now"))
    assert (told["order"], told["items"], told["extra"]) == ("a", [1, [2.5]], {"time": "now"})
    assert told["time"].startswith("2026")


def test_events_have_fields_of_their_own() -> None:
    told = as_json(line(**event("partition.lost", subscription="billing", partition=3)))
    assert (told["event"], told["subscription"], told["partition"]) == ("partition.lost", "billing", 3)
    assert "postline_fields" not in told


class Remedied(Exception):
    remedy = "look there"


def test_an_error_is_told_with_its_chain_and_its_stack() -> None:
    record = line()
    try:
        try:
            raise KeyError("k")
        except KeyError as cause:
            raise Remedied("outer") from cause
    except Remedied:
        record.exc_info = sys.exc_info()
    error = as_json(record)["error"]
    assert error["type"].endswith(".Remedied")
    assert (error["message"], error["remedy"]) == ("outer", "look there")
    assert error["causes"] == [{"type": "KeyError", "message": "'k'"}]
    assert "direct cause" in error["stack"]


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    record = line()
    record.exc_info = (ValueError, one, None)
    assert [each["message"] for each in as_json(record)["error"]["causes"]] == ["2"]


def test_the_errors_of_a_group_are_told() -> None:
    record = line()
    group = ExceptionGroup("two", [ValueError("a"), KeyError("b")])
    record.exc_info = (ExceptionGroup, group, None)
    assert [each["type"] for each in as_json(record)["error"]["errors"]] == ["ValueError", "KeyError"]


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("value", [Hostile(), "\ud800", b"\xff", float("nan"), {"a": {("b",): object}}, {Hostile(): 1}])
def test_nothing_that_is_logged_makes_a_line_fail(value: Any) -> None:
    record = line(value, x=value)
    as_json(record)["message"].encode()
    assert TextFormatter().format(record).startswith("2026-05-01T12:00:00.042Z INFO    shop: ")


def test_arguments_that_do_not_fit_make_no_line_fail() -> None:
    assert "%d orders" in as_json(line("%d orders", "many"))["message"]


@given(st.text() | st.binary(), st.recursive(st.none() | st.floats() | st.text(), st.lists))
def test_any_text_and_value_is_one_line(text: Any, value: Any) -> None:
    told = as_json(line(text, x=value))
    assert told["logger"] == "shop"
    for below in TextFormatter().format(line(text)).split("\n")[1:]:
        assert below.startswith("  ")


def test_text_can_not_pass_for_a_line_of_its_own_or_move_the_cursor() -> None:
    shown = TextFormatter().format(line("paid\n2026-05-01T12:00:00.000Z ERROR shop: \x1b[2Jforged\r"))
    assert shown.split("\n")[1] == "  2026-05-01T12:00:00.000Z ERROR shop: \\x1b[2Jforged\\r"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at kafka://user:pw@host:9092/x now", "at kafka://***@host:9092/x now"),
        ("https://h/?a=1&sasl.password=pw&b=2", "https://h/?a=1&sasl.password=***&b=2"),
        ("https://h/?access_token=t", "https://h/?access_token=***"),
        ("postgres://:pw@h/db", "postgres://***@h/db"),
        ("mail a@b.c about https://h/x", "mail a@b.c about https://h/x"),
    ],
)
def test_secrets_of_urls_are_masked(text: str, shown: str) -> None:
    assert redacted(text) == shown
    told = as_json(line(text, url=[text]))
    assert (told["message"], told["url"]) == (shown, [shown])
    assert TextFormatter().format(line(text)).endswith(shown)


def test_a_level_is_coloured_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    record = line(level=logging.ERROR)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31mERROR" in formatter_for("text", Terminal()).format(record)
    assert "\x1b" not in formatter_for("text", io.StringIO()).format(record)
    assert "\x1b" not in formatter_for("json", Terminal()).format(record)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in formatter_for("text", Terminal()).format(record)


def test_other_characters_are_escaped_where_the_stream_has_none() -> None:
    latin, utf8 = io.TextIOWrapper(io.BytesIO(), "latin-1"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    assert '"h\\u00e9"' in formatter_for("json", latin).format(line("hé"))
    assert '"hé"' in formatter_for("json", utf8).format(line("hé"))


def test_a_programs_own_set_up_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "getLogger", lambda name=None: root)
    own = logging.NullHandler()
    root.addHandler(own)
    assert configure("json") is None
    assert root.handlers == [own]


def test_configuring_sets_up_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "getLogger", lambda name=None: root)
    stream = io.StringIO()
    handler = configure("json", level="debug", stream=stream)
    assert root.handlers == [handler]
    root.debug("seen")
    assert json.loads(stream.getvalue())["message"] == "seen"


@pytest.mark.parametrize("options", [{"format": "xml"}, {"level": "loud"}, {"lines_per_second": 0}])
def test_wrong_settings_are_refused_with_what_to_do(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "getLogger", lambda name=None: root)
    with pytest.raises(UsageError) as refused:
        configure(**options)
    assert refused.value.remedy
    assert root.handlers == []


def test_the_parts_fit_a_programs_own_dict_config(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"postline": {"()": "postline.logs.Fields"}},
            "formatters": {"json": {"()": "postline.logs.JsonFormatter"}},
            "handlers": {
                "out": {
                    "class": "logging.StreamHandler",
                    "stream": stream,
                    "formatter": "json",
                    "filters": ["postline"],
                }
            },
            "loggers": {"shop.configured": {"handlers": ["out"], "level": "INFO", "propagate": False}},
        }
    )
    logging.getLogger("shop.configured").info("seen")
    assert json.loads(stream.getvalue())["logger"] == "shop.configured"


def test_outside_handlers_a_line_has_no_place() -> None:
    record = line()
    assert Fields().filter(record)
    assert not hasattr(record, "postline")
    assert isinstance(handler_for("json"), logging.StreamHandler)
    assert EVENTS["app.started"].level == "info"
