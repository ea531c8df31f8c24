"""At most so many lines a second of each logger and level, and how many were left out."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from postline.errors import UsageError
from postline.logs import SamplingHandler, per_second


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.closed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def close(self) -> None:
        self.closed = True
        super().close()

    @property
    def said(self) -> list[str]:
        return [f"{each.name} {each.getMessage()}" for each in self.records]


def log(handler: logging.Handler, number: int, at: float, name: str = "a", level: int = logging.INFO) -> None:
    for n in range(number):
        record = logging.LogRecord(name, level, __file__, 1, "line %d", (n,), None)
        record.created = at
        handler.handle(record)


def test_the_first_lines_of_a_second_pass_and_the_others_are_counted() -> None:
    kept = Kept()
    handler = SamplingHandler(kept, 2)
    log(handler, 5, 100.0)
    assert kept.said == ["a line 0", "a line 1"]
    log(handler, 1, 101.5)
    assert kept.said[2:] == ["a suppressed 3 lines", "a line 0"]
    told: Any = kept.records[2]
    assert (told.postline_event, told.postline_fields) == ("log.suppressed", {"suppressed": 3})


def test_a_flood_costs_no_other_logger_and_no_other_level() -> None:
    kept = Kept()
    handler = SamplingHandler(kept, 1)
    log(handler, 100, 100.0)
    log(handler, 1, 100.1, "b")
    log(handler, 1, 100.2, "a", logging.ERROR)
    assert kept.said == ["a line 0", "b line 0", "a line 0"]


def test_what_was_left_out_last_is_told_at_the_end_once() -> None:
    kept = Kept()
    handler = SamplingHandler(kept, 1)
    log(handler, 3, 100.0)
    handler.close()
    assert kept.said == ["a line 0", "a suppressed 2 lines"]
    assert kept.closed
    handler.flush()
    assert len(kept.said) == 2


def test_a_clock_that_is_set_back_silences_nobody() -> None:
    kept = Kept()
    handler = SamplingHandler(kept, 1)
    log(handler, 1, 100.0)
    log(handler, 1, 50.0)
    assert kept.said == ["a line 0", "a line 0"]


@pytest.mark.parametrize(("text", "lines"), [("50/s", 50), ("1", 1), (" 7/s ", 7)])
def test_rates_are_read(text: str, lines: int) -> None:
    assert per_second(text) == lines


@pytest.mark.parametrize("text", ["0/s", "", "-1", "5/m", "1.5/s", "many", "5/s/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no number of lines"):
        per_second(text)
