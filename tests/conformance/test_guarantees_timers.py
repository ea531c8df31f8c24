"""Guarantee 9 on every engine: delayed messages and periodic schedules are durable, cancellable, and happen once."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from msgspec import Struct

from postline import App, Context, Run, Topic
from postline.runtime.entries import TIMERS
from tests.conformance.apps import ORDERS, OrderPlaced, World, eventually, orders
from tests.conformance.harness import Engine

REMINDERS = Topic("reminding.reminders", owner="reminding", key="customer", partitions=4)


@REMINDERS.event("reminding.Reminder")
class Reminder(Struct, frozen=True):
    """What leaves later."""

    customer: str
    number: int
    token: str = ""


class Reminding:
    """A service that reminds of each order after a while, and tells the token at once."""

    def __init__(self, seconds: float, *, schedules: bool = False) -> None:
        self.app = App("reminding", owns=[REMINDERS], schedules=schedules)
        subscription = self.app.subscribe("reminding", ORDERS, start="earliest")

        @subscription.on(OrderPlaced)
        async def placed(order: OrderPlaced, ctx: Context) -> Reminder:
            token = ctx.publish(Reminder(order.customer, order.number), delay=seconds)
            return Reminder(order.customer, order.number, token)


class Told:
    """What lies in the reminders' topic: tokens, and reminders that have left."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def tokens(self) -> dict[tuple[str, int], str]:
        """By order, the token of its reminder."""
        found = [each.message for each in await self._world.read(REMINDERS)]
        return {(each.customer, each.number): each.token for each in found if each.token}

    async def left(self) -> list[tuple[str, int]]:
        """The reminders that have left."""
        found = [each.message for each in await self._world.read(REMINDERS)]
        return [(each.customer, each.number) for each in found if not each.token]

    async def waiting(self, subscription: str = "reminding") -> int:
        """How many wait in state."""
        count = 0
        for info in await self._world.log.partitions(subscription):
            count += len(await self._world.log.peek_state(subscription, info.partition, TIMERS))
        return count

    async def until_left(self, number: int, subscription: str = "reminding") -> list[tuple[str, int]]:
        """Wait until so many have left and nothing waits."""

        async def all_left() -> bool:
            return len(await self.left()) >= number and not await self.waiting(subscription)

        await eventually(all_left, f"{number} reminders have left")
        return await self.left()


async def test_what_waits_survives_the_death_of_its_owner_and_leaves_once(engine: Engine) -> None:
    async with World(engine) as world:
        told, first = Told(world), Reminding(2)
        await world.start(first.app)
        published = orders(24)
        await world.publish(published)
        await world.until_handled("reminding")
        assert await told.waiting() + len(await told.left()) == 24
        await world.kill(first.app)
        await world.start(Reminding(2).app)
        assert Counter(await told.until_left(24)) == Counter((each.customer, each.number) for each in published)
        await world.balanced("reminding", done=24)


async def test_it_leaves_once_while_partitions_change_hands(engine: Engine) -> None:
    async with World(engine) as world:
        told, apps = Told(world), [Reminding(0.2 + n / 2).app for n in range(4)]
        published = orders(240)
        await world.start(apps[0])
        await world.publish(published[:120])
        await world.start(apps[1])
        await world.publish(published[120:])
        await world.kill(apps[0])
        await world.start(apps[2])
        await world.start(apps[3])
        await world.stop(apps[1])
        await world.until_handled("reminding")
        assert Counter(await told.until_left(240)) == Counter((each.customer, each.number) for each in published)
        await world.balanced("reminding", done=240)


async def test_a_cancelled_one_never_leaves_and_what_has_left_is_not_cancelled(engine: Engine) -> None:
    async with World(engine) as world:
        told = Told(world)
        await world.start(Reminding(1.5).app)
        await world.publish(orders(24))
        await world.until_handled("reminding")
        tokens = await told.tokens()
        chosen = [each for each in sorted(tokens) if each[1] == 0]
        for each in chosen:
            request = await world.operations.cancel(tokens[each])
            await world.obeyed(request)
        cancelled = [each for each in chosen if await world.operations.cancelled(tokens[each])]
        # The others are due at the same time or later, so that a cancelled one would be here by then.
        left = await told.until_left(24 - len(cancelled))
        assert Counter(left) == Counter(each for each in tokens if each not in cancelled)
        gone = next(iter(left))
        await world.obeyed(await world.operations.cancel(tokens[gone]))
        assert not await world.operations.cancelled(tokens[gone])


async def test_what_is_delayed_at_the_edge_leaves_once_and_can_be_cancelled(engine: Engine) -> None:
    async with World(engine) as world:
        told, service = Told(world), Reminding(0, schedules=True)
        await world.start(service.app)
        first = await service.app.publish(Reminder("ann", 1), delay=1, id="ann-1")
        again = await service.app.publish(Reminder("ann", 1), delay=1, id="ann-1")
        other = await service.app.publish(Reminder("bob", 1), delay=timedelta(hours=1))
        assert first.token
        assert await service.app.cancel(other.token, wait=30) is True
        assert await told.until_left(1, "reminding.schedules") == [("ann", 1)]
        assert await service.app.cancel(again.token, wait=30) is False
        assert await told.left() == [("ann", 1)]


class Ticking:
    """A service with a schedule that runs each second."""

    def __init__(self) -> None:
        self.app = App("reminding", owns=[REMINDERS])

        @self.app.every(1, name="tick", missed="all")
        async def tick(run: Run) -> Reminder:
            return Reminder("tick", int(run.planned_at.timestamp()))


async def test_a_schedule_has_one_run_for_each_planned_time_whoever_dies(engine: Engine) -> None:
    async with World(engine) as world:
        told, apps = Told(world), [Ticking().app for _ in range(3)]
        await world.start(apps[0])
        await world.start(apps[1])

        async def ran(times: int) -> None:
            async def so_often() -> bool:
                return len(await told.left()) >= times

            await eventually(so_often, f"it ran {times} times")

        await ran(2)
        await world.kill(apps[0])
        await ran(4)
        await world.start(apps[2])
        await world.stop(apps[1])
        await ran(6)
        planned = [number for _, number in await told.left()]
        assert planned == list(range(planned[0], planned[0] + len(planned)))
