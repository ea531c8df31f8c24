"""Dead letters that grow old end as discarded, and are said aloud when they are too many or too old: once each time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from postline import App, DeadLetterPolicy, Retry, SettingsError
from postline.log.port import Record
from postline.monitor import Monitor
from postline.runtime.holding import Holding
from postline.testing import TestApp
from tests.unit.runtime.shop import Order, orders


class Shop:
    def __init__(self, policy: DeadLetterPolicy, **options: Any) -> None:
        self.broken = True
        self.done: list[str] = []
        self.app = App("shop", owns=[orders])
        said = {"start": "earliest", "retry": Retry(immediate=0, delays=()), "dead_letters": policy, **options}
        subscription = self.app.subscribe("sub", orders, **said)

        @subscription.on(Order)
        async def handle(order: Order) -> None:
            if self.broken and order.id.startswith("bad"):
                raise ValueError(order.id)
            self.done.append(order.id)


def alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(":")[0] for record in caplog.records if "alarm" in record.getMessage()]


async def test_a_letter_over_its_age_is_discarded_and_its_key_flows() -> None:
    shop = Shop(DeadLetterPolicy(max_age=timedelta(days=2)), after="hold")
    async with TestApp(shop.app) as t:
        await t.publish_many([Order("bad-1", "c"), Order("2", "c")])
        await t.advance(days=1)
        await t.publish(Order("bad-3", "d"))
        await t.advance(hours=23, minutes=59)
        assert shop.done == []
        await t.advance(minutes=2)
        assert shop.done == ["2"]
        assert t.audit()["sub"] == {"done": 1, "dead-lettered": 1, "discarded": 1}
        await t.advance(days=1)
        assert t.audit()["sub"] == {"done": 1, "discarded": 2}


async def test_the_age_outlives_the_worker_and_counts_from_the_last_failure() -> None:
    policy = DeadLetterPolicy(max_age=timedelta(days=2))
    shop = Shop(policy, after="continue")
    async with TestApp(shop.app) as t:
        await t.publish_many([Order("bad-1", "c"), Order("bad-2", "d")])
        await t.advance(days=1)
        (first, _) = t.dead_letters("sub")
        await t.redrive("sub", first)
        await t.settle()
        await t.crash(shop.app)
        await t.advance(hours=20)
        again = Shop(policy, after="continue")
        await t.start(again.app)
        await t.advance(hours=5)
        assert t.audit()["sub"] == {"dead-lettered": 1, "discarded": 1}
        (left,) = t.dead_letters("sub")
        assert left.offset == first.offset
        assert left.partition == first.partition


async def test_a_letter_that_comes_of_age_while_it_is_redriven_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(DeadLetterPolicy(max_age=timedelta(days=2)), after="continue")
    at_hand = Holding.at_hand
    async with TestApp(shop.app) as t:

        async def late(holding: Holding, letters: Mapping[int, bytes]) -> dict[int, Record]:
            records = await at_hand(holding, letters)
            t.clock.move_to(t.clock.monotonic() + timedelta(days=3).total_seconds())
            for _ in range(100):  # whoever looks for what is too old gets its turns
                await asyncio.sleep(0)
            return records

        monkeypatch.setattr(Holding, "at_hand", late)
        await t.publish(Order("bad-1", "c"))
        await t.settle()
        shop.broken = False
        await t.redrive("sub")
        await t.settle()
        assert shop.done == ["bad-1"]
        assert t.audit()["sub"] == {"done": 1}


async def test_an_alarm_by_count_is_said_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop(DeadLetterPolicy(alarm_count=2), after="continue")
    async with TestApp(shop.app) as t:
        monitor = Monitor(t.log, t.clock)
        await t.publish_many([Order(f"bad-{n}", f"c{n}") for n in range(2)])
        await t.settle()
        assert alarms(caplog) == []
        assert (await monitor.subscription("sub")).dead_letters_alarm == ""
        await t.publish_many([Order(f"bad-{n}", f"c{n}") for n in range(2, 6)])
        await t.settle()
        assert alarms(caplog) == ["alarm"]
        assert (await monitor.subscription("sub")).dead_letters_alarm == "6 dead letters, more than 2"
        shop.broken = False
        await t.redrive("sub")
        await t.settle()
        assert alarms(caplog) == ["alarm", "the alarm is over"]
        assert (
            "the alarm is over: subscription sub has 2 dead letters in this process, no more than 2" in caplog.messages
        )
        assert (await monitor.subscription("sub")).dead_letters_alarm == ""


async def test_an_alarm_by_age_ends_with_the_letter_that_was_too_old(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(DeadLetterPolicy(alarm_age=timedelta(hours=1)), after="continue")
    async with TestApp(shop.app) as t:
        monitor = Monitor(t.log, t.clock)
        await t.publish(Order("bad-1", "c"))
        await t.advance(minutes=50)
        await t.publish(Order("bad-2", "c"))
        await t.settle()
        assert alarms(caplog) == []
        await t.advance(minutes=11)
        assert alarms(caplog) == ["alarm"]
        assert "older than" in (await monitor.subscription("sub")).dead_letters_alarm
        await t.discard("sub", t.dead_letters("sub")[0])
        await t.advance(seconds=2)
        assert alarms(caplog) == ["alarm", "the alarm is over"]
        over = "the alarm is over: subscription sub has no dead letter older than 1:00:00 in this process"
        assert over in caplog.messages
        await t.advance(hours=1)
        assert alarms(caplog) == ["alarm", "the alarm is over", "alarm"]


@pytest.mark.parametrize(
    "policy",
    [
        DeadLetterPolicy(max_age=timedelta()),
        DeadLetterPolicy(alarm_age=timedelta(seconds=-1)),
        DeadLetterPolicy(alarm_count=-1),
        DeadLetterPolicy(alarm_age=timedelta(days=2), max_age=timedelta(days=1)),
    ],
)
async def test_a_policy_that_contradicts_itself_is_refused_at_start(policy: DeadLetterPolicy) -> None:
    with pytest.raises(SettingsError, match="dead letters"):
        async with TestApp(Shop(policy).app):
            pass
