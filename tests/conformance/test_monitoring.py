"""The survey, and what operators are told of a subscription, on every engine."""

from __future__ import annotations

import asyncio

from postline import Context, DeadLetter, Retry
from postline.log.port import Log
from postline.monitor import Monitor
from tests.conformance.apps import Billing, OrderPlaced, World, eventually, orders
from tests.conformance.harness import Engine, appended, joined, settled, topic


async def test_a_survey_tells_of_everything_what_single_reads_tell(log: Log) -> None:
    await log.create_topic(topic(partitions=2))
    await log.create_topic(topic("shop.other"))
    membership, owner = await joined(log, 2, instance="host-1")
    await appended(log, b"0", b"1", b"2")
    await membership.commit([settled(owner.owned[0], 2, progress=b"so far")])
    survey = await log.survey()
    assert [spec.name for spec in survey.topics] == [spec.name for spec in await log.topics()]
    assert survey.bounds == {spec.name: await log.bounds(spec.name) for spec in survey.topics}
    (group,) = survey.groups
    assert [group.info] == list(await log.subscriptions())
    assert group.members == await log.members("billing")
    assert group.partitions == await log.partitions("billing")
    assert group.partitions[0].progress == b"so far"
    some = await log.survey(["billing", "nobody"])
    assert some.groups == [group]
    assert [spec.name for spec in some.topics] == list(some.bounds) == ["shop.orders"]
    nothing = await log.survey([])
    assert (nothing.topics, nothing.bounds, nothing.groups) == ([], {}, [])


async def test_a_survey_of_an_empty_log_is_empty(log: Log) -> None:
    survey = await log.survey()
    assert (survey.topics, survey.bounds, survey.groups) == ([], {}, [])


async def test_a_survey_tells_what_has_changed_since_the_last_one(log: Log) -> None:
    await log.create_topic(topic(retention_ms=3_600_000))
    assert [spec.retention_ms for spec in (await log.survey()).topics] == [3_600_000]
    await log.alter_topic(topic(retention_ms=7_200_000))
    assert [spec.retention_ms for spec in (await log.survey()).topics] == [7_200_000]
    await log.create_topic(topic("shop.bills", partitions=2))
    membership, owner = await joined(log, 2, subscription="archive", topic="shop.bills")
    await appended(log, b"0", b"1", topic="shop.bills", partition=1)
    survey = await log.survey()
    assert survey.topics == await log.topics()
    assert survey.bounds == {spec.name: await log.bounds(spec.name) for spec in survey.topics}
    assert [len(group.members) for group in survey.groups] == [1]
    await membership.commit([settled(owner.owned[1], 2)])
    assert [each.position for each in (await log.survey()).groups[0].partitions] == [0, 2]
    await membership.leave()

    async def nobody_is_there() -> bool:
        return not (await log.survey()).groups[0].members

    await eventually(nobody_is_there, "the member is gone")
    await log.remove_subscription("archive")
    assert (await log.survey()).groups == []


class Troubled:
    """Every fifth order is given up, every fifth other one waits; all of them are mended at once."""

    def __init__(self) -> None:
        self.mended = False

    async def __call__(self, order: OrderPlaced, ctx: Context) -> None:
        """Fail as the number says."""
        if not self.mended and order.total % 5 == 0:
            raise DeadLetter("a test")
        if not self.mended and order.total % 5 == 1:
            raise ConnectionError("away")


async def test_what_is_told_of_held_records_and_dead_letters_is_what_lies_in_state(engine: Engine) -> None:
    async with World(engine) as world:
        troubled = Troubled()
        billing = Billing(before=troubled, retry=Retry(immediate=0, delays=(0.5,) * 40), after="hold")
        await world.start(billing.app)
        await world.publish(orders(120))

        async def stands() -> bool:
            view = await world.view()
            return view.lag_records == 0 and view.held + view.dead_letters > 12

        await eventually(stands, "all is settled or held")
        await _told_rightly(world)
        view = await world.view()
        assert view.status == "held by a key"
        assert "redrive or discard" in view.reason
        await world.stop(billing.app)
        await _told_rightly(world)
        assert (await world.view()).status == "no member"
        troubled.mended = True
        await world.start(Billing(before=troubled, retry=Retry(immediate=0, delays=(0.5,)), after="hold").app)
        await world.redrive_all()
        await world.until_handled()
        view = await world.view()
        assert (view.held, view.dead_letters, view.holding, view.status) == (0, 0, 0, "ok")
        await world.balanced(done=120)


async def test_history_tells_of_work_and_of_lag_that_grew_while_nobody_was_there(engine: Engine) -> None:
    async with World(engine) as world:
        first = Billing()
        await world.start(first.app)
        await world.publish(orders(24))
        await world.until_handled()
        await world.stop(first.app)
        engine.clock.ahead_ms += 20 * 60_000
        await world.publish(orders(24))
        engine.clock.ahead_ms += 20 * 60_000
        monitor = Monitor(world.log, engine.clock)
        told = await monitor.history("billing", span_ms=60 * 60_000, points=6)
        lags = [each.lag_records for each in told.points]
        assert lags[0] is None, "nobody was there yet"
        assert lags[2] == 0
        assert all(lag is not None and lag >= 24 for lag in lags[4:])
        assert [each.handled_per_second for each in told.points[3:]] == [0.0] * 3
        await world.start(Billing().app)
        await world.until_handled()
        told = await monitor.history("billing", span_ms=60_000, points=1)
        assert told.points[0].lag_records == 0
        assert (told.points[0].handled_per_second or 0) > 0
        await world.balanced(done=48)


async def _told_rightly(world: World) -> None:
    """Compared until nothing was committed in between: retries go on meanwhile."""
    monitor = Monitor(world.log, world.engine.clock)
    while True:
        view = await monitor.subscription("billing")
        held, letters = await monitor.held("billing"), await monitor.dead_letters("billing")
        again = await monitor.subscription("billing")
        if _counts(view) == _counts(again):
            break
        await asyncio.sleep(0)
    assert view.held == len(held)
    assert view.retrying == sum(each.status in ("retrying", "ready") for each in held)
    assert view.dead_letters == len(letters)
    assert view.holding == sum(each.holds for each in letters)
    assert view.next_attempt_ms == min((each.next_attempt_ms for each in held if each.next_attempt_ms), default=None)


def _counts(view: object) -> object:
    return [(each.position, each.ahead, each.next_attempt_ms, each.held) for each in view.partitions]  # type: ignore[attr-defined]
