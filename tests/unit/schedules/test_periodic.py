"""Periodic schedules: one run for each planned time, what is missed, what changes, what fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from postline import App, Retry, Run, Topic, UsageError
from postline.testing import TestApp

START = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
LOG = Topic("shop.log", owner="shop", key="name", partitions=2)


@LOG.event("shop.Ran")
class Ran(msgspec.Struct, frozen=True):
    """What a run leaves."""

    name: str
    at: str


class Shop:
    """A service with some schedules, and what they ran."""

    def __init__(self, **schedules: Any) -> None:
        self.app = App("shop", owns=[LOG])
        self.ran: list[tuple[str, str]] = []
        for name, said in schedules.items():
            options = dict(said)
            fails = options.pop("fails", 0)
            every = options.pop("every", None)
            declare = (
                self.app.cron(options.pop("cron"), name=name, **options)
                if every is None
                else self.app.every(every, name=name, **options)
            )
            declare(self._function(fails))

    def _function(self, fails: int) -> Callable[[Run], Any]:
        async def run(run: Run) -> Ran:
            self.ran.append((run.name, f"{run.planned_at:%d %H:%M}"))
            if run.attempt <= fails:
                raise ValueError("not yet")
            return Ran(run.name, run.planned_at.isoformat())

        return run

    def times(self, name: str) -> list[str]:
        """The planned times of the attempts that one schedule had."""
        return [at for each, at in self.ran if each == name]


def shop_with(missed: str = "once", **said: Any) -> Shop:
    return Shop(tick={"every": timedelta(minutes=10), "missed": missed, **said})


async def test_a_schedule_runs_at_each_planned_time() -> None:
    shop = Shop(tick={"every": timedelta(minutes=10)}, nightly={"cron": "0 3 * * *", "tz": "Europe/Berlin"})
    async with TestApp(shop.app, start_ms=START_MS) as t:
        await t.advance(minutes=35)
        assert shop.times("tick") == ["01 12:10", "01 12:20", "01 12:30"]
        await t.advance(days=1)
        assert shop.times("nightly") == ["02 03:00"]
        assert len(t.published(Ran)) == len(shop.ran)
        assert t.audit()["shop.schedules"] == {"done": len(shop.ran)}


async def test_two_processes_have_one_run_between_them() -> None:
    first, second = shop_with(), shop_with()
    async with TestApp(first.app, second.app, start_ms=START_MS) as t:
        await t.advance(hours=1)
        assert sorted(first.times("tick") + second.times("tick")) == [f"01 12:{n}0" for n in range(1, 6)] + ["01 13:00"]


async def test_schedules_go_on_where_a_crashed_owner_left() -> None:
    first, second = shop_with(), shop_with()
    async with TestApp(first.app, start_ms=START_MS) as t:
        await t.advance(minutes=25)
        await t.crash(first.app)
        await t.start(second.app)
        await t.advance(minutes=20)
        assert (first.times("tick"), second.times("tick")) == (["01 12:10", "01 12:20"], ["01 12:30", "01 12:40"])


@pytest.mark.parametrize(
    ("missed", "made_up"),
    [
        ("once", ["01 14:40"]),
        ("skip", []),
        ("all", [f"01 13:{m}0" for m in range(6)] + [f"01 14:{m}0" for m in range(5)]),
    ],
)
async def test_runs_that_were_missed_are_made_up_for_by_policy(missed: str, made_up: list[str]) -> None:
    first, second = shop_with(missed), shop_with(missed)
    async with TestApp(first.app, start_ms=START_MS) as t:
        await t.advance(minutes=50)
        await t.stop(first.app)
        t.clock.move_to(t.clock.monotonic() + 115 * 60)
        await t.start(second.app)
        await t.settle()
        assert second.times("tick") == made_up
        await t.advance(minutes=10)
        assert second.times("tick") == [*made_up, "01 14:50"]


async def test_a_run_that_is_a_little_late_is_not_missed() -> None:
    first, second = shop_with("skip"), shop_with("skip")
    async with TestApp(first.app, start_ms=START_MS) as t:
        await t.advance(minutes=9)
        await t.stop(first.app)
        t.clock.move_to(t.clock.monotonic() + 60)
        await t.start(second.app)
        await t.settle()
        assert second.times("tick") == ["01 12:10"]


async def test_a_failing_run_is_retried_and_holds_up_no_other_schedule() -> None:
    shop = Shop(bad={"every": timedelta(minutes=10), "fails": 99}, good={"every": timedelta(minutes=10)})
    shop.app.subscriptions["shop.schedules"].policy = _policy(shop, Retry(immediate=0, delays=(60.0, 60.0)))
    async with TestApp(shop.app, start_ms=START_MS) as t:
        await t.advance(minutes=21)
        assert shop.times("good") == ["01 12:10", "01 12:20"]
        assert shop.times("bad") == ["01 12:10"] * 3 + ["01 12:20"] * 2
        (letter,) = t.dead_letters("shop.schedules")
        assert letter.error == "ValueError: not yet"


def _policy(shop: Shop, retry: Retry) -> Any:
    from dataclasses import replace

    return replace(shop.app.subscriptions["shop.schedules"].policy, retry=retry)


async def test_a_schedule_that_is_taken_out_of_the_code_stops() -> None:
    first, second = Shop(tick={"every": 600}, tock={"every": 600}), Shop(tock={"every": 600})
    async with TestApp(first.app, start_ms=START_MS) as t:
        await t.advance(minutes=10)
        await t.stop(first.app)
        await t.start(second.app)
        await t.advance(minutes=30)
        assert (second.times("tick"), len(second.times("tock"))) == ([], 3)
        await t.stop(second.app)
        await t.start((third := Shop(tick={"every": 600})).app)
        await t.settle()
        assert third.ran == []
        await t.advance(minutes=10)
        assert third.times("tick") == ["01 12:50"]


async def test_a_schedule_under_another_rule_begins_anew() -> None:
    first, second = Shop(tick={"every": 600}), Shop(tick={"every": 3600})
    async with TestApp(first.app, start_ms=START_MS) as t:
        await t.advance(minutes=10)
        await t.stop(first.app)
        await t.start(second.app)
        await t.advance(hours=2)
        assert second.times("tick") == ["01 13:00", "01 14:00"]


@pytest.mark.parametrize("years", [-10, 10])
async def test_a_clock_that_was_wrong_for_a_while_neither_doubles_a_run_nor_stops_a_schedule(years: int) -> None:
    shop = shop_with()
    async with TestApp(shop.app, start_ms=START_MS) as t:
        await t.advance(minutes=20)
        t.clock.jump_wall(years * 365 * 86_400)
        await t.advance(minutes=20)
        t.clock.jump_wall(-years * 365 * 86_400)
        before = len(shop.ran)
        await t.advance(minutes=40)
        assert [at for _, at in shop.ran[before:]][-3:] == ["01 13:00", "01 13:10", "01 13:20"]
        assert len(set(t.published(Ran))) == len(t.published(Ran)) == len(shop.ran)


async def test_plain_functions_and_those_without_a_parameter_run_too() -> None:
    app, ran = App("shop", owns=[LOG]), []

    @app.every(60, name="plain")
    def plain(run: Run) -> None:
        run.publish(Ran("plain", str(run.planned_at)))
        ran.append("plain")

    @app.every(60, name="bare")
    async def bare() -> None:
        ran.append("bare")

    @app.every(60, name="later")
    async def later(run: Run) -> None:
        token = run.publish(Ran("later", "now"), delay=5)
        if run.planned_at.minute % 2:
            run.cancel(token)

    class Called:
        async def __call__(self) -> None:
            ran.append("called")

    app.every(60, name="called")(Called())
    async with TestApp(app, start_ms=START_MS) as t:
        await t.advance(seconds=149)
        assert sorted(ran) == ["bare"] * 2 + ["called"] * 2 + ["plain"] * 2
        assert [each.name for each in t.published(Ran)].count("later") == 1


def test_what_is_no_schedule_is_refused() -> None:
    app = App("shop")
    with pytest.raises(UsageError, match="missed='never'"):
        app.every(60, name="tick", missed="never")(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="can't be called"):
        app.every(60, name="tick")(lambda one, two: None)
    app.every(60, name="tick")(lambda: None)
    with pytest.raises(UsageError, match="two schedules named 'tick'"):
        app.every(60, name="tick")(lambda: None)
