"""Splits and aggregates: parts know their place, wait in state until they are complete, and leave as one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from postline import App, Context, ContractError, Retry, Topic, UsageError, field
from postline.routing import After, Count, Part, Predicate, Whole
from postline.routing.gathering import Gathered
from postline.testing import TestApp
from tests.unit.routing.shop import Item, Line, OrderPlaced, Total, lines, orders, totals

NEVER = Retry(immediate=0, delays=())


def cut(order: OrderPlaced) -> list[Line]:
    return [Line(order.order, item.sku, item.price) for item in order.items]


def total_of(parts: list[Line]) -> Total:
    return Total(parts[0].order, sum(each.price for each in parts), [each.sku for each in parts])


def order(name: str, *prices: int) -> OrderPlaced:
    return OrderPlaced(name, "ann", items=[Item(f"sku{n}", price) for n, price in enumerate(prices)])


def line(name: str, price: int, sku: str = "x") -> Line:
    return Line(name, sku, price)


def gathering(**options) -> App:
    """An app that adds lines up to totals."""
    app = App("desk", owns=[lines, totals])
    app.aggregate("adding", lines, **{"start": "earliest", "into": total_of, "retry": NEVER, **options})
    return app


# -- splitting ------------------------------------------------------------------------------------


async def test_a_message_is_split_into_parts_that_know_their_place():
    app = App("desk", owns=[lines])
    app.split("cutting", orders, into=cut, start="earliest")
    async with TestApp(app) as t:
        await t.publish(order("1", 5, 7, 9), headers={"tenant": "t1"})
        await t.settle()
        found = {envelope.headers["ce_splitindex"]: (each, envelope.headers) for each, envelope in t.envelopes(Line)}
        assert [found[str(n)][0].price for n in range(3)] == [5, 7, 9]
        assert {(headers["ce_splitcount"], headers["tenant"]) for _, headers in found.values()} == {("3", "t1")}
        assert len({headers["ce_splitgroup"] for _, headers in found.values()}) == 1


async def test_nothing_comes_of_a_split_into_nothing():
    app = App("desk", owns=[lines])
    app.split("cutting", orders, into=cut, start="earliest")
    async with TestApp(app) as t:
        await t.publish(order("1"))
        await t.settle()
        assert t.published(Line) == []
        assert t.audit()["cutting"] == {"done": 1}


async def test_a_split_into_no_list_is_a_failure():
    app = App("desk", owns=[lines])
    app.split("cutting", orders, into=lambda order: Line("1", "x", 1), start="earliest", retry=NEVER)
    async with TestApp(app) as t:
        await t.publish(order("1", 5))
        await t.settle()
        assert "splits into a list" in t.dead_letters("cutting")[0].error


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ce_splitgroup": "g", "ce_splitindex": "2", "ce_splitcount": "2"},
        {"ce_splitgroup": "g", "ce_splitindex": "-1", "ce_splitcount": "2"},
        {"ce_splitgroup": "g", "ce_splitindex": "9" * 5_000, "ce_splitcount": "9" * 5_001},
        {"ce_splitgroup": "", "ce_splitindex": "0", "ce_splitcount": "2"},
        {"ce_splitgroup": "g", "ce_splitindex": "0"},
    ],
)
def test_headers_that_make_no_part_are_none(headers):
    assert Part.read(headers) is None


def test_a_part_is_read_from_its_own_headers():
    assert Part.read(Part("g", 1, 3).headers) == Part("g", 1, 3)


# -- gathering ------------------------------------------------------------------------------------


async def test_parts_of_a_split_are_gathered_in_their_order_when_all_are_there():
    app = gathering(complete=Whole())
    app.split("cutting", orders, into=cut, start="earliest")
    async with TestApp(app) as t:
        await t.publish_many([order("1", 5, 7, 9), order("2", 1)])
        await t.settle()
        found = {each.order: each for each in t.published(Total)}
        assert found == {"1": Total("1", 21, ["sku0", "sku1", "sku2"]), "2": Total("2", 1, ["sku0"])}
        t.audit()


async def test_results_can_stand_for_parts():
    checked = Topic("desk.checked", owner="desk", key="sku")

    @checked.event("desk.Checked")
    class Checked(Struct):
        order: str
        sku: str
        price: int

    app = App("desk", owns=[lines, totals, checked])
    app.split("cutting", orders, into=cut, start="earliest")
    checking = app.subscribe("checking", lines, start="earliest")

    @checking.on(Line)
    async def check(line: Line, ctx: Context) -> None:
        part = Part.of(ctx)
        assert part is not None
        ctx.publish(Checked(line.order, line.sku, line.price * 10), headers=part.headers)

    app.aggregate("adding", checked, start="earliest", complete=Whole(), into=total_of)
    async with TestApp(app) as t:
        await t.publish(order("1", 3, 4))
        await t.settle()
        assert t.published(Total) == [Total("1", 70, ["sku0", "sku1"])]


async def test_so_many_parts_of_a_key_are_one_aggregate_and_the_next_begin_another():
    async with TestApp(gathering(complete=Count(2), key="order")) as t:
        await t.publish_many([line("1", 1), line("2", 10), line("1", 2), line("1", 4), line("2", 20), line("1", 8)])
        await t.settle()
        assert sorted(each.total for each in t.published(Total)) == [3, 12, 30]
        assert t.state("adding.parts", "1") is None


async def test_a_rule_on_the_newest_part_completes():
    async with TestApp(gathering(complete=Predicate(field("price") == 0), key="order")) as t:
        await t.publish_many([line("1", 1), line("1", 2), line("1", 0), line("1", 4)])
        await t.settle()
        assert [each.total for each in t.published(Total)] == [3]
        assert len(t.state("adding.parts", "1").parts) == 1


async def test_a_function_of_all_parts_completes():
    complete = Predicate(lambda parts: sum(each.price for each in parts) >= 10)
    async with TestApp(gathering(complete=complete, key=lambda line: line.order)) as t:
        await t.publish_many([line("1", 4), line("1", 4), line("1", 4), line("1", 4)])
        await t.settle()
        assert [each.total for each in t.published(Total)] == [12]


async def test_a_result_may_be_nothing_several_or_awaited():
    async def into(parts: list[Line]) -> list[Total] | None:
        return [total_of(parts), total_of(parts)] if parts[0].order == "1" else None

    async with TestApp(gathering(complete=Count(1), key="order", into=into)) as t:
        await t.publish_many([line("1", 4), line("2", 4)])
        await t.settle()
        assert len(t.published(Total)) == 2
        assert t.audit()["adding.parts"] == {"done": 2}


async def test_types_of_a_topic_are_gathered_together():
    both = Topic("desk.both", owner="desk", key="order")

    @both.event("desk.Asked")
    class Asked(Struct):
        order: str

    @both.event("desk.Answered")
    class Answered(Struct):
        order: str
        price: int

    app = App("desk", owns=[both, totals])
    app.aggregate(
        *("joining", both),
        of=[Asked, Answered],
        start="earliest",
        key="order",
        complete=Predicate(lambda parts: {type(each) for each in parts} == {Asked, Answered}),
        into=lambda parts: Total("1", sum(each.price for each in parts if isinstance(each, Answered))),
    )
    async with TestApp(app) as t:
        await t.publish_many([Asked("1"), Asked("1"), Answered("1", 5)])
        await t.settle()
        assert t.published(Total) == [Total("1", 5)]


# -- time -----------------------------------------------------------------------------------------


async def test_a_time_after_the_first_part_completes_with_what_is_there():
    async with TestApp(gathering(complete=After(timedelta(minutes=5)), key="order")) as t:
        await t.publish(line("1", 1))
        await t.advance(minutes=4)
        await t.publish(line("1", 2))
        await t.settle()
        assert t.published(Total) == []
        await t.advance(minutes=1)
        assert [each.total for each in t.published(Total)] == [3]
        assert t.state("adding.parts", "1") is None


async def test_whatever_completes_first_counts_and_an_old_time_never_ends_the_next_aggregate():
    complete = [Count(2), After(timedelta(minutes=5))]
    async with TestApp(gathering(complete=complete, key="order")) as t:
        await t.publish_many([line("1", 1), line("1", 2)])
        await t.advance(minutes=3)
        await t.publish(line("1", 4))
        await t.advance(minutes=3)
        assert [each.total for each in t.published(Total)] == [3]
        await t.advance(minutes=3)
        assert [each.total for each in t.published(Total)] == [3, 4]


async def test_an_aggregate_that_expires_becomes_what_is_said_for_it():
    options = {"expires": timedelta(hours=1), "incomplete": lambda parts: Total(parts[0].order, -len(parts))}
    async with TestApp(gathering(complete=Count(3), key="order", **options)) as t:
        await t.publish_many([line("1", 1), line("1", 2)])
        await t.advance(hours=2)
        assert [each.total for each in t.published(Total)] == [-2]
        assert t.state("adding.parts", "1") is None
        assert t.dead_letters("adding.parts") == []


async def test_parts_of_an_aggregate_that_expired_are_forgotten_after_its_retention(caplog: pytest.LogCaptureFixture):
    options = {"expires": timedelta(hours=1), "retention": timedelta(days=2)}
    async with TestApp(gathering(complete=Count(2), key="order", **options)) as t:
        await t.publish(line("1", 5))
        await t.advance(hours=2)
        await t.publish(line("2", 5))
        await t.advance(hours=46)
        assert len(t.state("adding.parts", "1").parts) == 1
        await t.advance(hours=2)
        assert t.state("adding.parts", "1") is None
        assert "1 parts of a key were not complete" in caplog.text
        await t.publish(line("2", 7))  # completes what came later
        await t.settle()
        assert t.published(Total) == [Total("2", 12, ["x", "x"])]
        await t.advance(days=3)
        assert t.state("adding.parts", "2") is None


async def test_an_aggregate_that_expires_is_a_dead_letter_and_can_still_be_completed():
    async with TestApp(gathering(complete=Whole(), expires=timedelta(hours=1))) as t:
        await t.publish(line("1", 1), headers=Part("g", 0, 2).headers)
        await t.advance(hours=2)
        (letter,) = t.dead_letters("adding.parts")
        assert "'g' has 1 parts and was not complete in time" in letter.error
        await t.publish(line("1", 2), headers=Part("g", 1, 2).headers)
        await t.settle()
        assert [each.total for each in t.published(Total)] == [3]
        await t.redrive("adding.parts")
        await t.settle()
        assert t.dead_letters("adding.parts") == []
        assert len(t.published(Total)) == 1


async def test_a_completed_key_is_remembered_as_long_as_parts_are_kept():
    options = {"late": "dead-letter", "retention": timedelta(days=1)}
    async with TestApp(gathering(complete=Count(1), key="order", **options)) as t:
        await t.publish(line("1", 1))
        await t.settle()
        await t.publish(line("1", 2))
        await t.settle()
        assert len(t.dead_letters("adding.parts")) == 1
        await t.advance(days=1)
        assert t.state("adding.parts", "1") is None
        await t.publish(line("1", 4))
        await t.settle()
        assert [each.total for each in t.published(Total)] == [1, 4]


async def test_a_time_that_passes_while_nobody_works_counts_at_the_next_start():
    app = gathering(complete=After(timedelta(minutes=5)), key="order")
    async with TestApp(app) as t:
        await t.publish_many([line("1", 1), line("2", 2)])
        await t.settle()
        await t.crash(app)
        await t.advance(minutes=10)
        await t.start(app)
        await t.advance(seconds=1)
        assert sorted(each.total for each in t.published(Total)) == [1, 2]


# -- what goes wrong ------------------------------------------------------------------------------


async def test_a_part_that_comes_twice_counts_once():
    app = gathering(complete=Count(3), key="order")
    async with TestApp(app) as t:
        await t.publish_many([line("1", 1), line("1", 2)])
        await t.settle()
        parts = app.subscriptions["adding.parts"].topic
        kind = next(each for each in parts.classes if each.__name__ == "Part")
        found: list[Any] = t.published(kind)
        for part in found:
            await t.publish(part)  # as a replay of the first subscription would
        await t.settle()
        assert t.published(Total) == []
        await t.publish(line("1", 4))
        await t.settle()
        assert [each.total for each in t.published(Total)] == [7]


async def test_a_part_of_a_split_that_comes_twice_counts_once():
    async with TestApp(gathering(complete=Whole())) as t:
        first, second = Part("g", 0, 2), Part("g", 1, 2)
        for part, price in ((first, 1), (first, 1), (second, 2)):
            await t.publish(line("1", price), headers=part.headers)
        await t.settle()
        assert [each.total for each in t.published(Total)] == [3]


async def test_a_late_part_is_a_dead_letter_if_asked_for_and_a_repeated_one_is_not():
    app = gathering(complete=Whole(), late="dead-letter")
    async with TestApp(app) as t:
        for number in (0, 1, 1):
            await t.publish(line("1", 1), headers=Part("g", number, 2).headers)
        await t.settle()
        assert len(t.published(Total)) == 1
        assert t.dead_letters("adding.parts") == []
        await t.publish(line("1", 1), headers=Part("g", 2, 3).headers)
        await t.settle()
        (letter,) = t.dead_letters("adding.parts")
        assert "was complete before" in letter.error
        assert len(t.published(Total)) == 1


async def test_a_part_without_its_place_or_key_is_a_dead_letter():
    async with TestApp(gathering(complete=Whole())) as t:
        await t.publish(line("1", 1))
        await t.settle()
        assert "no headers of a split" in t.dead_letters("adding")[0].error
    async with TestApp(gathering(complete=Count(2), key=lambda line: None)) as t:
        await t.publish_many([line("1", 1), line("1", 1)])
        await t.settle()
        assert ["no usable aggregate key" in each.error for each in t.dead_letters("adding")] == [True, True]


async def test_an_aggregate_is_bounded_and_what_is_too_much_is_a_dead_letter():
    app = gathering(complete=Predicate(field("price") == 0), key="order", parts_max=3)
    async with TestApp(app) as t:
        await t.publish_many([line("1", n) for n in (1, 2, 3, 4, 5)])
        await t.settle()
        assert ["has 3 parts" in each.error for each in t.dead_letters("adding.parts")] == [True] * 2
        await t.publish(line("1", 0))
        await t.settle()
        assert [each.total for each in t.published(Total)] == [6]


async def test_parts_too_large_to_keep_are_dead_letters():
    app = App("desk", owns=[totals])
    app.aggregate("adding", orders, start="earliest", key="order", complete=Count(3), into=lambda orders: None)
    async with TestApp(app) as t:
        await t.publish_many([OrderPlaced("1", "ann", 1, "x" * size) for size in (600_000, 600_000, 1)])
        await t.settle()
        (letter,) = t.dead_letters("adding.parts")
        assert "too large" in letter.error
        assert len(t.state("adding.parts", "1").parts) == 2


async def test_a_result_that_fails_leaves_the_parts_and_can_be_redriven():
    broken = True

    def into(parts: list[Line]) -> Total:
        if broken:
            raise ValueError("broken")
        return total_of(parts)

    async with TestApp(gathering(complete=Count(2), key="order", into=into)) as t:
        await t.publish_many([line("1", 1), line("1", 2)])
        await t.settle()
        assert len(t.state("adding.parts", "1").parts) == 1
        broken = False
        await t.redrive("adding.parts")
        await t.settle()
        assert [each.total for each in t.published(Total)] == [3]


async def test_a_restart_and_a_crash_lose_and_double_no_part():
    app = gathering(complete=Count(3), key="order")
    async with TestApp(app) as t:
        await t.publish(line("1", 1))
        await t.settle()
        await t.crash(app)
        await t.publish(line("1", 2))
        await t.start(app)
        await t.settle()
        assert isinstance(t.state("adding.parts", "1"), Gathered)
        await t.stop(app)
        await t.start(app)
        await t.publish(line("1", 4))
        await t.settle()
        assert [each.total for each in t.published(Total)] == [7]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"complete": 3, "key": "order"}, UsageError, "can't be complete by .3"),
        ({"complete": [], "key": "order"}, UsageError, "can't be complete by"),
        ({"complete": Count(2)}, UsageError, "needs a key"),
        ({"complete": After(timedelta(1))}, UsageError, "needs a key"),
        ({"complete": Count(2), "key": "order", "incomplete": total_of}, UsageError, "never expires"),
        ({"complete": Whole(), "key": "order"}, UsageError, "needs a key, or Whole"),
        ({"complete": Count(2), "key": "ordre"}, ContractError, "no 'ordre'"),
        ({"complete": Predicate(field("prize") == 0), "key": "order"}, ContractError, "no field 'prize'"),
        ({"complete": Count(2), "key": "order", "of": Total}, ContractError, "declares no message type Total"),
        ({"complete": Count(2), "key": "order", "parts_min": 3}, UsageError, "given parts_min"),
        ({"complete": Count(2_000), "key": "order"}, UsageError, "parts_max"),
        ({"complete": Count(2), "key": "order", "late": "never"}, UsageError, "late"),
    ],
)
def test_aggregates_that_can_not_be_are_refused_when_they_are_declared(options, error, said):
    with pytest.raises(error, match=said):
        gathering(**options)


def test_a_count_of_nothing_is_refused():
    with pytest.raises(UsageError, match="0 parts"):
        Count(0)
    with pytest.raises(UsageError, match="above 0"):
        After(timedelta())
