"""Lines of a handler's own logger: whatever it is, wherever it logs, they know the record; and tell no secrets."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import queue
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from postline import App, Context, Retry, Topic
from postline.contracts import Sensitive
from postline.logs import Fields, JsonFormatter, fields
from postline.logs.formatting import line_of
from postline.testing import TestApp
from tests.unit.runtime.shop import Order, build, running, spread

log = logging.getLogger("the.users.own")


class Lines(logging.Handler):
    """Keeps lines as data, as they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        JsonFormatter().format(record)
        self.told.append(line_of(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    handler.addFilter(Fields())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def own(lines: Lines) -> list[dict[str, Any]]:
    return [each for each in lines.told if each["logger"] == "the.users.own"]


async def test_a_line_of_a_handler_knows_its_record(lines: Lines) -> None:
    async def bill(order: Order, ctx: Context) -> None:
        await asyncio.sleep(0)
        log.info("billing %s", order.id)

    async with running(build(bill)) as t:
        published = await t.publish(Order("1", "anna"))
        await t.settle()
    (told,) = own(lines)
    place = (told["topic"], told["partition"], told["offset"])
    assert place == (published.topic, published.partition, published.offset)
    assert (told["subscription"], told["key"], told["attempt"]) == ("sub", "anna", 1)
    assert told["handler"].endswith("bill")
    assert told["message_id"] == told["correlation_id"] == published.id


async def test_many_at_once_are_not_mixed_up(lines: Lines) -> None:
    async def bill(order: Order, ctx: Context) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            log.info(order.customer)

    async with running(build(bill)) as t:
        await t.publish_many(spread(20, 3))
        await t.settle()
    assert len(own(lines)) == 180
    assert all(each["message"] == each["key"] for each in own(lines))


async def test_each_attempt_has_its_number(lines: Lines) -> None:
    async def bill(order: Order, ctx: Context) -> None:
        log.info("try")
        if ctx.attempt < 4:
            raise ValueError("not yet")

    async with running(build(bill, retry=Retry(immediate=1, delays=(10, 10), jitter=0))) as t:
        await t.publish(Order("1", "anna"))
        await t.advance(minutes=1)
    assert [each["attempt"] for each in own(lines)] == [1, 2, 3, 4]
    events = [each.get("event") for each in lines.told if each["logger"] == "postline.runtime"]
    assert events == ["record.held", "record.held", "record.released"]


async def test_a_line_of_a_plain_handler_in_a_thread_knows_its_record(lines: Lines) -> None:
    def bill(order: Order) -> None:
        log.info(order.id)

    async with running(build(bill)) as t:
        await t.publish_many(spread(3, 20))
        await t.settle()
    assert len(own(lines)) == 60
    assert {each["thread"] for each in own(lines)} != {"MainThread"}
    for customer in ("c0", "c1", "c2"):
        of_one = [each for each in own(lines) if each["key"] == customer]
        assert [each["message"] for each in of_one] == [f"{customer[1]}-{n}" for n in range(20)]
        assert [each["offset"] for each in of_one] == sorted({each["offset"] for each in of_one})


async def test_tasks_and_threads_that_a_handler_waits_for_know_it_too(lines: Lines) -> None:
    async def child(name: str) -> None:
        await asyncio.sleep(0)
        log.info(name)

    async def bill(order: Order) -> None:
        await asyncio.gather(child(order.customer), asyncio.to_thread(log.info, order.customer))

    async with running(build(bill)) as t:
        await t.publish_many(spread(4, 2))
        await t.settle()
    assert len(own(lines)) == 16
    assert all(each["message"] == each["key"] for each in own(lines))


async def test_a_task_that_outlives_its_handler_never_names_another_message(lines: Lines) -> None:
    later: list[asyncio.Task[None]] = []
    go_on = asyncio.Event()

    async def outlives(order: Order) -> None:
        await go_on.wait()
        log.info(order.id)

    async def bill(order: Order) -> None:
        later.append(asyncio.create_task(outlives(order)))

    async with running(build(bill)) as t:
        ids = {}
        for order in spread(2, 10):
            ids[(await t.publish(order)).id] = order.id
            await t.settle()
            if order.id == "1-0":
                go_on.set()
                await asyncio.gather(*later)
                go_on.clear()
        go_on.set()
        await asyncio.gather(*later)
    first, rest = own(lines)[:2], own(lines)[2:]
    assert [each.get("message_id") for each in first] == [None, None]  # nobody had logged so before
    assert [each["subscription"] for each in first] == ["sub", "sub"]
    assert len(rest) == 18
    assert all(ids[each["message_id"]] == each["message"] for each in rest)


async def test_a_line_of_middleware_knows_the_record(lines: Lines) -> None:
    async def around(call_next: Any, message: Any, ctx: Context) -> Any:
        log.info("before")
        return await call_next(message, ctx)

    def bill(order: Order) -> None:
        log.info("within")

    async with running(build(bill, middleware=[around])) as t:
        await t.publish(Order("1", "anna"))
        await t.settle()
    assert [(each["message"], each["key"]) for each in own(lines)] == [("before", "anna"), ("within", "anna")]


@pytest.mark.parametrize("plain", [False, True])
async def test_a_line_of_a_batch_handler_knows_the_first_and_the_last(lines: Lines, plain: bool) -> None:
    def together(orders: list[Order], ctx: Context) -> None:
        log.info("%d", len(orders))

    async def awaited(orders: list[Order], ctx: Context) -> None:
        together(orders, ctx)

    async with running(build(together if plain else awaited, batch=50)) as t:
        await t.publish_many(spread(1, 10))
        await t.settle()
    assert sum(each.get("records", 1) for each in own(lines)) == 10
    for each in own(lines):
        assert int(each["message"]) == each.get("records", 1)
        if "records" in each:
            assert each["last_offset"] - each["offset"] == each["records"] - 1
            assert "key" not in each


async def test_lines_of_postline_itself_carry_what_they_are_about_alone(lines: Lines) -> None:
    async def bill(order: Order) -> None:
        logging.getLogger("postline.any").info("own")

    async with running(build(bill)) as t:
        await t.publish(Order("1", "anna"))
        await t.settle()
    (told,) = [each for each in lines.told if each["logger"] == "postline.any"]
    assert "offset" not in told


async def test_other_loggers_can_ask_for_the_fields(lines: Lines) -> None:
    found: list[dict[str, Any]] = []

    async def bill(order: Order, ctx: Context) -> None:
        found.append(fields())
        assert fields() == ctx.log_fields()

    async with running(build(bill)) as t:
        await t.publish(Order("1", "anna"))
        await t.settle()
    assert found[0]["key"] == "anna"
    assert fields() == {}


async def test_a_filter_in_front_of_a_queue_keeps_the_fields_for_the_thread_behind_it() -> None:
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    before = logging.handlers.QueueHandler(waiting)
    before.addFilter(Fields())
    log.addHandler(before)
    try:

        async def bill(order: Order) -> None:
            log.warning("billing")

        async with running(build(bill)) as t:
            await t.publish(Order("1", "anna"))
            await t.settle()
    finally:
        log.removeHandler(before)
    assert line_of(waiting.get_nowait())["key"] == "anna"


class Patient(Struct, frozen=True):
    name: Sensitive[str]
    ward: str
    number: Sensitive[int] = 4711


def hospital(key: Any) -> tuple[App, Topic]:
    patients = Topic("hospital.patients", owner="hospital", key=key)
    patients.event("hospital.Patient")(Patient)
    return App("hospital", owns=[patients]), patients


@pytest.mark.parametrize("key", ["name", lambda patient: f"of {patient.name}"])
async def test_sensitive_keys_fields_and_errors_are_masked(lines: Lines, key: Any) -> None:
    app, patients = hospital(key)

    @app.subscribe("admit", patients, start="earliest").on(Patient)
    async def admit(patient: Patient) -> None:
        log.info("admitting %s", patient, extra={"patient": patient.name, "n": patient.number, "ward": [patient.ward]})
        try:
            raise ValueError(f"no bed for {patient.name}")
        except ValueError as error:
            raise_from = RuntimeError(patient.name)
            raise_from.__cause__ = error
            log.error("no bed", exc_info=raise_from)

    async with TestApp(app) as t:
        await t.publish(Patient("Anna Maier", "7b"))
        await t.settle()
    info, error = own(lines)
    assert "Anna" not in str(lines.told)
    assert "4711" not in str(lines.told)
    assert (info["ward"], info["patient"], info["n"]) == (["7b"], "***", "***")
    assert "***" in info["key"]
    assert error["error"]["causes"] == [{"type": "ValueError", "message": "no bed for ***"}]


async def test_a_batch_masks_what_any_of_its_records_has(lines: Lines) -> None:
    app, patients = hospital("ward")

    @app.subscribe("admit", patients, start="earliest", batch=10).on(Patient)
    async def admit(several: list[Patient]) -> None:
        log.info("%s", [each.name for each in several])

    async with TestApp(app) as t:
        await t.publish_many([Patient("Anna", "1"), Patient("Berta", "1")])
        await t.settle()
    assert "Anna" not in str(lines.told)
    assert "Berta" not in str(lines.told)


async def test_the_life_of_a_subscription_is_told_once_each_and_no_message(lines: Lines) -> None:
    async def bill(order: Order) -> None: ...

    async with running(build(bill)) as t:
        await t.publish_many(spread(50, 4))
        await t.settle()
    events = [each.get("event") for each in lines.told if each["logger"].startswith("postline")]
    assert events == [
        "subscription.joined",
        "app.started",
        "partitions.assigned",
        "app.stopping",
        "partitions.revoked",
        "subscription.left",
        "app.stopped",
    ]
