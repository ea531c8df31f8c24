"""Dead letters in groups, chosen, redriven by the many, edited and exported: unit by unit, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from postline import App, Context, Retry, Topic, UsageError, field
from postline.contracts import Sensitive
from postline.errors import ContractError
from postline.monitor import Contents, Letter, Monitor, Picked, RecordId, Selection
from postline.operations import Edited, Editing, Operations, Pace, with_changes
from postline.runtime.control import ControlOp
from postline.testing import TestApp

orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    number: int
    card: Sensitive[str] = "4711"


class Packing:
    """A service that fails on the numbers that it is told to fail on, in one of two places."""

    def __init__(self, **options: Any) -> None:
        self.failing: set[int] = set()
        self.seen: list[tuple[str, int]] = []
        self.attempts: Counter[int] = Counter()
        self.half = asyncio.Event()
        self.app = App("packing", publishes_to=[orders])
        said: dict[str, Any] = {"start": "earliest", "retry": Retry(immediate=0, delays=()), **options}
        subscription = self.app.subscribe("packing", orders, **said)

        @subscription.on(OrderPlaced)
        async def pack(order: OrderPlaced, ctx: Context) -> None:
            self.attempts[order.number] += 1
            if order.number in self.failing:
                self._find_box(order) if order.number % 2 else self._weigh(order)
            self.seen.append((order.customer, order.number))
            if len(self.seen) == 700:
                self.half.set()

    def _find_box(self, order: OrderPlaced) -> None:
        raise LookupError(f"no box for {order.number}")

    def _weigh(self, order: OrderPlaced) -> None:
        try:
            dict[str, int]()["scales"]
        except KeyError as error:
            raise LookupError(f"no scales for {order.number}") from error


class Desk:
    """What an operator has: a monitor and operations on the log of a test."""

    def __init__(self, t: TestApp, app: App, *, reveal: bool = False) -> None:
        self.t = t
        self.contents = Contents(app.schemas, reveal=reveal)  # type: ignore[arg-type]
        self.monitor = Monitor(t.log, t.clock, self.contents)
        self.operations = Operations(t.log, t.clock, random.Random(1))
        self.letters_of = self.monitor.letters

    async def letters(self, **chosen: Any) -> list[Letter]:
        info = await self.monitor.info("packing")
        return [each async for page in self.monitor.letters.pages(info, Selection(**chosen)) for each in page]

    async def picked(self, **chosen: Any) -> AsyncIterator[Picked]:
        async for some in self.monitor.letters.picked(await self.monitor.info("packing"), Selection(**chosen)):
            yield some

    async def redrive(self, run: str = "r", **chosen: Any) -> int:
        pace = Pace(wait_seconds=0, **{name: chosen.pop(name) for name in ("rate", "limit") if name in chosen})
        picked = self.picked(not_of_run=run, **chosen)
        done = await self.operations.redrive_many("packing", picked, run, pace)
        await self.t.settle()
        return done.asked

    async def edit(self, letter: Letter, *changes: str, redrives: bool = True) -> Edited:
        info = await self.monitor.info("packing")
        (opened,) = await self.monitor.letters.opened(info, [letter])
        editing = Editing(self.t.log, self.contents)
        content = with_changes(editing.content(info, opened), changes)
        edited = await editing.checked(info, opened, content, by="ann@office", reason="a typing error")
        await self.operations.edit("packing", letter, edited, redrives=redrives)
        await self.t.settle()
        return edited


def numbers(letters: list[Letter]) -> list[str]:
    return sorted(each.entry.error.rpartition(" ")[2] for each in letters)


async def published(t: TestApp, count: int, customers: int = 3) -> None:
    await t.publish_many([OrderPlaced(f"c{n % customers}", n) for n in range(count)])
    await t.settle()


async def test_letters_are_grouped_by_exception_and_place() -> None:
    packing = Packing(after="continue")
    packing.failing = {1, 2, 3, 5}
    async with TestApp(packing.app) as t:
        await published(t, 6)
        desk = Desk(t, packing.app)
        groups = await desk.monitor.letters.groups(await desk.monitor.info("packing"), Selection())
        assert [(each.count, each.error_type, each.types) for each in groups] == [
            (3, "LookupError", ["shop.OrderPlaced"]),
            (1, "LookupError", ["shop.OrderPlaced"]),
        ]
        assert "test_dead_letter_acts:Packing._find_box (line" in groups[0].place
        assert numbers(await desk.letters(group=groups[1].group)) == ["2"]


async def test_letters_are_chosen_by_key_type_rule_and_time() -> None:
    packing = Packing(after="continue")
    packing.failing = set(range(6))
    async with TestApp(packing.app) as t:
        await published(t, 3)
        await t.advance(minutes=10)
        middle_ms = t.clock.now_ms() - 60_000
        await t.publish_many([OrderPlaced("c0", 3), OrderPlaced("c1", 4), OrderPlaced("c2", 5)])
        await t.settle()
        desk = Desk(t, packing.app)
        assert numbers(await desk.letters(key="c1")) == ["1", "4"]
        assert numbers(await desk.letters(type="shop.OrderPlaced")) == list("012345")
        assert await desk.letters(type="shop.Other") == []
        assert numbers(await desk.letters(since_ms=middle_ms)) == ["3", "4", "5"]
        assert numbers(await desk.letters(until_ms=middle_ms, key="c2")) == ["2"]
        assert numbers(await desk.letters(rule=(field("number") > 2) & (field("customer") == "c0"))) == ["3"]
        assert numbers(await desk.letters(rule=field("customer.name") == "x")) == []


async def test_a_redrive_keeps_the_order_of_each_key_and_what_waits_behind_comes_after() -> None:
    packing = Packing(after="hold")
    packing.failing = {0, 1}
    async with TestApp(packing.app) as t:
        await published(t, 9)
        packing.failing.clear()
        assert await Desk(t, packing.app).redrive() == 2
        by_key = {name: [n for key, n in packing.seen if key == name] for name in ("c0", "c1", "c2")}
        assert by_key == {"c0": [0, 3, 6], "c1": [1, 4, 7], "c2": [2, 5, 8]}
        assert t.audit()["packing"] == {"done": 9}


async def test_a_limit_takes_the_first_and_a_rate_takes_its_time() -> None:
    packing = Packing(after="continue")
    packing.failing = set(range(40))
    async with TestApp(packing.app) as t:
        await published(t, 40)
        packing.failing.clear()
        desk = Desk(t, packing.app)
        first = await desk.letters()
        assert await desk.redrive(limit=7) == 7
        assert [each.id for each in await desk.letters()] == [each.id for each in first[7:]]

        async def passes(delay_seconds: float) -> None:
            t.clock.move_to(t.clock.monotonic() + delay_seconds)

        t.clock.sleep = passes  # type: ignore[method-assign]
        began = t.clock.monotonic()
        assert await desk.redrive("other", rate=10) == 33
        assert t.clock.monotonic() - began == pytest.approx(3.2)
        assert t.audit()["packing"] == {"done": 40}


async def test_a_redrive_that_goes_on_leaves_alone_what_it_redrove_before() -> None:
    packing = Packing(after="continue")
    packing.failing = set(range(10))
    async with TestApp(packing.app) as t:
        await published(t, 10)
        desk = Desk(t, packing.app)
        assert await desk.redrive("first", limit=4) == 4  # and all of them fail again
        assert await desk.redrive("first") == 6
        assert await desk.redrive("first") == 0
        assert set(packing.attempts.values()) == {2}
        assert await desk.redrive("second") == 10
        assert {view.redrives for view in await desk.monitor.dead_letters("packing")} == {2}
        assert t.audit()["packing"] == {"dead-lettered": 10}


async def test_a_request_that_is_stored_twice_runs_its_records_once(caplog: pytest.LogCaptureFixture) -> None:
    packing = Packing(after="continue")
    packing.failing = {0}
    async with TestApp(packing.app) as t:
        await published(t, 1)
        desk = Desk(t, packing.app)
        (letter,) = await desk.letters()
        op = ControlOp(op="redrive", offsets=(letter.offset,), seen=(0,), run="r")
        for _ in range(2):
            await desk.operations.ask("packing", [(letter.id, op)])
            await t.settle()
        assert packing.attempts[0] == 2
        assert "was redriven since it was seen" in caplog.text


async def test_a_crash_amidst_a_large_redrive_loses_and_doubles_nothing() -> None:
    packing = Packing(after="hold")
    packing.failing = set(range(3_000))
    async with TestApp(packing.app) as t:
        await t.publish_many([OrderPlaced(f"c{n}", n) for n in range(3_000)])
        await t.settle()
        packing.failing.clear()
        desk = Desk(t, packing.app)
        letters = [each.id for each in await desk.letters()]
        assert len(letters) == 3_000
        await desk.operations.redrive("packing", letters)
        await packing.half.wait()
        await t.crash(packing.app)
        done = len(packing.seen)
        assert done < 3_000
        again = Packing(after="hold")
        await t.start(again.app)
        await t.settle()
        assert t.audit()["packing"] == {"done": 3_000}
        assert {n for _, n in packing.seen + again.seen} == set(range(3_000))
        assert await desk.letters() == []


async def test_an_edited_letter_runs_with_the_edit_under_its_own_offset() -> None:
    packing = Packing(after="hold")
    packing.failing = {1}
    async with TestApp(packing.app) as t:
        await published(t, 6)
        desk = Desk(t, packing.app)
        (letter,) = await desk.letters()
        await desk.edit(letter, "number=100")
        assert [n for key, n in packing.seen if key == "c1"] == [100, 4]
        assert t.audit()["packing"] == {"done": 6}
        assert await t.log.peek_state("packing", letter.partition, "edits") == []


async def test_show_tells_the_edit_the_original_the_causes_and_the_conversation() -> None:
    packing = Packing(after="hold")
    packing.failing = {2, 102}
    async with TestApp(packing.app) as t:
        await published(t, 3)
        desk = Desk(t, packing.app, reveal=True)
        (letter,) = await desk.letters()
        await desk.edit(letter, "number=102")
        detail = await desk.monitor.dead_letter("packing", letter.id)
        assert detail is not None
        assert detail.edit is not None
        assert (detail.edit.by, detail.edit.reason) == ("ann@office", "a typing error")
        assert detail.record is not None
        assert detail.original is not None
        assert msgspec.json.decode(msgspec.json.encode(detail.record.data))["number"] == 102
        assert msgspec.json.decode(msgspec.json.encode(detail.original.data))["number"] == 2
        assert (detail.letter.edited, detail.letter.redrives) == (True, 1)
        assert detail.letter.error == "LookupError: no scales for 102"
        assert detail.causes == ["KeyError: 'scales'"]
        assert detail.origin == f"shop.orders/{letter.partition}/{letter.offset}"
        assert [(each.topic, each.id) for each in detail.related] == [("shop.orders", str(letter.id))]


async def test_an_edit_that_is_kept_waits_for_its_redrive() -> None:
    packing = Packing(after="continue")
    packing.failing = {0}
    async with TestApp(packing.app) as t:
        await published(t, 1)
        desk = Desk(t, packing.app)
        (letter,) = await desk.letters()
        edited = await desk.edit(letter, "number=7", redrives=False)
        assert packing.seen == []
        assert await desk.operations.stands("packing", letter, edited)
        await t.crash(packing.app)
        again = Packing(after="continue")
        await t.start(again.app)
        assert await desk.redrive() == 1
        assert again.seen == [("c0", 7)]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("number=many", "'number' is no such value"),
        ("nmuber=3", "it has 'nmuber'"),
        ("customer=bob", "has the key 'bob' in place of 'c0'"),
    ],
)
async def test_an_edit_that_breaks_the_contract_is_refused_before_it_is_asked_for(change: str, complaint: str) -> None:
    packing = Packing(after="continue")
    packing.failing = {0}
    async with TestApp(packing.app) as t:
        await published(t, 1)
        desk = Desk(t, packing.app)
        (letter,) = await desk.letters()
        before = await t.log.bounds("packing.control")
        with pytest.raises(ContractError, match=complaint):
            await desk.edit(letter, change)
        assert await t.log.bounds("packing.control") == before


async def test_an_owner_refuses_an_edit_that_its_handler_can_not_read(caplog: pytest.LogCaptureFixture) -> None:
    packing = Packing(after="continue")
    packing.failing = {0}
    async with TestApp(packing.app) as t:
        await published(t, 1)
        desk = Desk(t, packing.app)
        (letter,) = await desk.letters()
        broken = Edited(b'{"customer": "c0"}', 0, "ann", "careless")
        await desk.operations.edit("packing", letter, broken, redrives=True)
        await t.settle()
        assert "refuses an edit" in caplog.text
        assert not await desk.operations.stands("packing", letter, broken)
        assert packing.attempts[0] == 1
        with pytest.raises(UsageError, match="needs a reason"):
            await desk.operations.edit("packing", letter, broken._replace(reason=" "), redrives=True)


async def test_a_discarded_letter_takes_its_edit_along() -> None:
    packing = Packing(after="hold")
    packing.failing = {0}
    async with TestApp(packing.app) as t:
        await published(t, 1)
        desk = Desk(t, packing.app)
        (letter,) = await desk.letters()
        await desk.edit(letter, "number=7", redrives=False)
        done = await desk.operations.discard_many("packing", desk.picked(), "a test", Pace(wait_seconds=0))
        await t.settle()
        assert done.asked == 1
        assert await t.log.peek_state("packing", letter.partition, "edits") == []
        assert t.audit()["packing"] == {"discarded": 1}


async def test_letters_are_exported_as_events_with_sensitive_fields_masked() -> None:
    packing = Packing(after="continue")
    packing.failing = {1}
    async with TestApp(packing.app) as t:
        await published(t, 2)
        info = await Desk(t, packing.app).monitor.info("packing")
        events = {
            reveal: [
                each async for each in Desk(t, packing.app, reveal=reveal).monitor.letters.export(info, Selection())
            ]
            for reveal in (False, True)
        }
        ((masked,), (plain,)) = events.values()
        assert (masked["specversion"], masked["type"], masked["partitionkey"]) == ("1.0", "shop.OrderPlaced", "c1")
        assert masked["postlineerror"] == "LookupError: no box for 1"
        assert masked["postlineorigin"].startswith("shop.orders/")
        assert msgspec.json.decode(masked["data"])["card"] == "***"
        assert msgspec.json.decode(plain["data"]) == {"customer": "c1", "number": 1, "card": "4711"}
        assert all(name.isalnum() or name == "data_base64" for name in masked)


@pytest.mark.parametrize("pace", [{"rate": 0}, {"rate": -1}, {"limit": 0}])
def test_a_pace_that_is_none_is_refused(pace: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="is none"):
        Pace(**pace)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["number", "=3", "customer.name=x", "a..b=1"])
def test_a_change_of_no_field_is_refused(change: str) -> None:
    with pytest.raises(UsageError, match="changes no field"):
        with_changes({"customer": "c"}, [change])


async def test_what_is_no_dead_letter_any_more_is_refused_clearly() -> None:
    packing = Packing(after="continue")
    packing.failing = {0}
    async with TestApp(packing.app) as t:
        await published(t, 1)
        desk = Desk(t, packing.app)
        (letter,) = await desk.letters()
        packing.failing.clear()
        await desk.redrive()
        with pytest.raises(UsageError, match=f"no dead letter {letter.id}"):
            await desk.operations.redrive("packing", [RecordId.parse(str(letter.id))])
        assert packing.attempts[0] == 2
