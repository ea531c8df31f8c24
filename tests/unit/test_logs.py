"""Log lines: what a handler's own line tells of its record, as text and as JSON, and how many there are."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from postline import App, Context, Retry, Topic
from postline.clock import VirtualClock
from postline.contracts import Sensitive
from postline.logs import AttemptFilter, JsonFormatter, Sampling, TextFormatter
from postline.runtime.attempts import note_attempts
from postline.testing import TestApp

_own = logging.getLogger("shop.billing")


class Order(Struct, frozen=True):
    customer: str
    number: int


class Payment(Struct, frozen=True):
    card: Sensitive[str]
    number: int


ORDERS = Topic("shop.orders", owner="shop", key="customer", partitions=2)
ORDERS.event("shop.Order")(Order)
PAYMENTS = Topic("shop.payments", owner="shop", key="card", partitions=2)
PAYMENTS.event("shop.Payment")(Payment)


class Written(logging.Handler):
    """Keeps lines as a formatter writes them."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(formatter)
        self.addFilter(AttemptFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def json(self) -> list[dict[str, Any]]:
        """The lines as objects."""
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def written() -> Iterator[Written]:
    """What the shop's own logger writes, as JSON."""
    handler = Written(JsonFormatter())
    _own.addHandler(handler)
    _own.setLevel("INFO")
    yield handler
    _own.removeHandler(handler)
    note_attempts(wanted=False)


def shop(topic: Topic, **policy: Any) -> tuple[App, Any]:
    """An app with one subscription."""
    app = App("shop", owns=[topic])
    said = {"start": "earliest", "retry": Retry(immediate=1, delays=()), **policy}
    return app, app.subscribe("billing", topic, **said)


async def test_a_handlers_own_line_tells_its_record(written: Written) -> None:
    app, billing = shop(ORDERS)

    @billing.on(Order)
    async def bill(order: Order, ctx: Context) -> None:
        _own.info("billing %d", order.number, extra={"total": order.number * 2})
        if ctx.attempt == 1:
            raise ValueError("once more")

    async with TestApp(app) as harness:
        (placed,) = [await harness.publish(Order("ann", 1), id="o-1")]
        await harness.settle()
    first, second = written.json
    assert (first["message"], first["total"], first["level"], first["logger"]) == (
        "billing 1",
        2,
        "info",
        "shop.billing",
    )
    place = (first["subscription"], first["topic"], first["partition"], first["offset"])
    assert place == ("billing", "shop.orders", placed.partition, placed.offset)
    assert (first["key"], first["type"], first["id"], first["correlation_id"]) == ("ann", "shop.Order", "o-1", "o-1")
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert "event" not in first, "it is no line of Postline"


async def test_plain_functions_and_tasks_of_a_handler_tell_it_too(written: Written) -> None:
    app, billing = shop(ORDERS)
    returns, returned = shop(PAYMENTS)

    async def aside() -> None:
        _own.info("aside")

    @billing.on(Order)
    async def bill(order: Order) -> None:
        await asyncio.create_task(aside())

    @returned.on(Payment)
    def pay(payment: Payment) -> None:
        _own.info("paying")

    async with TestApp(app) as harness:
        await harness.publish_many([Order("ann", 1), Order("bob", 2)])
        await harness.settle()
    async with TestApp(returns) as harness:
        await harness.publish_many([Payment("4000", number) for number in range(5)])
        await harness.settle()
    assert {(each["message"], each["key"]) for each in written.json[:2]} == {("aside", "ann"), ("aside", "bob")}
    assert [each["offset"] for each in written.json[2:]] == [0, 1, 2, 3, 4]
    assert {each["key"] for each in written.json[2:]} == {"***"}, "the field is sensitive"


async def test_a_batch_tells_its_first_and_last_record(written: Written) -> None:
    app, billing = shop(ORDERS, batch=10)

    @billing.on(Order)
    def bill(orders: list[Order]) -> None:
        _own.info("%d orders", len(orders))

    async with TestApp(app) as harness:
        await harness.publish_many([Order(f"c{number}", number) for number in range(60)])
        await harness.settle()
    spans = [(each["partition"], each["offset"], each.get("last_offset", each["offset"])) for each in written.json]
    assert [each["message"] for each in written.json] == [f"{last - first + 1} orders" for _, first, last in spans]
    assert sum(last - first + 1 for _, first, last in spans) == 60
    assert any(first < last for _, first, last in spans)


async def test_lines_outside_of_handlers_and_after_them_tell_no_record(written: Written) -> None:
    app, billing = shop(ORDERS)
    left: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    async def later() -> None:
        await over.wait()
        _own.info("later")

    @billing.on(Order)
    async def bill(order: Order) -> None:
        left.append(asyncio.create_task(later()))

    async with TestApp(app) as harness:
        await harness.publish(Order("ann", 1))
        await harness.settle()
        over.set()
        await asyncio.gather(*left)
        _own.info("outside")
    assert all("offset" not in each for each in written.json)
    assert [each["message"] for each in written.json] == ["later", "outside"]


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    """The line as JSON."""
    found: dict[str, Any] = json.loads(JsonFormatter().format(record))
    return found


def made(name: str, level: int, message: str, *arguments: Any, **more: Any) -> logging.LogRecord:
    """A line, as `logging` makes it."""
    return logging.getLogger(name).makeRecord(name, level, "f.py", 1, message, arguments, **{"exc_info": None, **more})


def test_an_error_tells_its_stack_and_its_causes() -> None:
    try:
        try:
            raise KeyError("a")
        except KeyError as cause:
            raise ValueError("two\nlines") from cause
    except ValueError as error:
        text = JsonFormatter().format(made("shop", 40, "no", exc_info=(type(error), error, None)))
    assert "\n" not in text
    found = json.loads(text)["error"]
    assert (found["type"], found["message"], found["causes"]) == ("ValueError", "two\nlines", ["KeyError: 'a'"])
    assert "raise ValueError" in found["stack"]


def test_postlines_own_lines_have_an_event_that_does_not_change_with_their_values() -> None:
    found = line_of(made("postline.runtime", 30, "subscription %s lost partition %d", "billing", 3))
    assert (found["event"], found["message"]) == (
        "subscription %s lost partition %d",
        "subscription billing lost partition 3",
    )


def test_whatever_extra_holds_is_written_somehow() -> None:
    record = made("shop", 20, "said", extra={"what": object, "set": {1}})
    assert line_of(record)["what"] == "<class 'object'>"


def test_text_for_people_names_the_record_behind_the_line() -> None:
    record = made("shop", 20, "billing")
    record.created, record.msecs = 1_777_636_800.042, 42.0
    record.postline = {
        "subscription": "billing", "topic": "shop.orders", "partition": 3, "offset": 7, "key": "ann", "attempt": 2,
        "correlation_id": "o-1",
    }  # fmt: skip
    said = (
        "2026-05-01T12:00:00.042Z INFO    shop: billing [billing shop.orders 3:7 key=ann attempt=2 correlation_id=o-1]"
    )
    assert TextFormatter().format(record) == said
    assert "\x1b[36mINFO\x1b[0m" in TextFormatter(colours=True).format(record)


def test_a_flood_is_cut_to_its_rate_and_how_much_was_left_out_is_told() -> None:
    clock = VirtualClock()
    sampling = Sampling(2, clock)
    passed = [sampling.filter(made("shop", 20, "n")) for _ in range(5)]
    assert passed == [True, True, False, False, False]
    assert sampling.filter(made("other", 20, "n")), "each logger has its own"
    assert sampling.filter(made("shop", 40, "n")), "errors pass"
    clock.move_to(1.0)
    record = made("shop", 20, "more of %s", "it")
    assert sampling.filter(record)
    assert record.getMessage() == "more of it (3 lines of this logger were left out)"
