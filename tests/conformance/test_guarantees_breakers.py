"""Breakers on every engine: a backend that is away fills no dead letters, and everybody sees what waits for it."""

from __future__ import annotations

from postline import App, Breaker, CommandTopic, Retry
from postline.monitor import CauseView
from tests.conformance.apps import ORDERS, OrderPlaced, World, eventually, orders, some_turns
from tests.conformance.harness import Engine

LADDER = Retry(immediate=0, delays=(0.01, 0.01))


class Booking:
    """A process whose handler needs a backend that may be away; each order is booked there once it is back."""

    def __init__(self, *, away: bool = True, breaker: Breaker | None = None) -> None:
        self.away = away
        self.booked: list[OrderPlaced] = []
        self.asked = 0
        self.app = App("billing")
        breaker = breaker or Breaker(failures=3, probe_seconds=0.02, probe_seconds_max=0.05)
        subscription = self.app.subscribe("billing", ORDERS, start="earliest", retry=LADDER)

        @subscription.on(OrderPlaced, breaker=breaker)
        async def book(order: OrderPlaced) -> None:
            await self._ask(order)

    async def _ask(self, order: OrderPlaced) -> None:
        self.asked += 1
        await some_turns(order, None)  # type: ignore[arg-type]
        if self.away:
            raise ConnectionError("nobody is there")
        self.booked.append(order)


async def causes(world: World) -> list[CauseView]:
    """What is said to stand in its way."""
    return (await world.view()).causes


async def test_records_wait_for_a_backend_that_is_away_and_none_is_given_up(engine: Engine) -> None:
    async with World(engine) as world:
        service = Booking()
        await world.start(service.app)
        sent = orders(120)
        await world.publish(sent)

        async def seen() -> bool:
            return bool(await causes(world))

        await eventually(seen, "the breaker is seen to be open")
        (cause,) = await causes(world)
        assert (cause.kind, cause.name) == ("breaker", "shop.OrderPlaced")
        assert cause.detail == "ConnectionError: nobody is there"
        asked = service.asked
        await eventually(lambda: service.asked > asked + 3, "it looks again and again")
        service.away = False
        await world.until_handled()
        assert len(service.booked) == 120, "once each"
        by_customer = {
            order.customer: [each.number for each in service.booked if each.customer == order.customer]
            for order in sent
        }
        assert all(numbers == sorted(numbers) for numbers in by_customer.values())

        async def over() -> bool:
            return not await causes(world)

        await eventually(over, "nothing stands in its way any more")
        assert (await world.monitor.audit("billing")).balanced


async def test_who_takes_over_looks_at_once_and_burns_no_attempts(engine: Engine) -> None:
    async with World(engine) as world:
        never_again = Breaker(failures=3, probe_seconds=3_600, probe_seconds_max=3_600)
        first = Booking(breaker=never_again)
        await world.start(first.app)
        await world.publish(orders(40))

        async def everywhere() -> bool:
            found = await causes(world)
            return bool(found) and len(found[0].partitions) == 4

        await eventually(everywhere, "all partitions tell of the breaker")
        since = (await causes(world))[0].since_ms
        await world.abort(first.app)
        second = Booking(breaker=never_again)
        await world.start(second.app)
        await eventually(lambda: second.asked, "the successor looks")
        await eventually(everywhere, "all partitions tell of the breaker still")
        assert (await causes(world))[0].since_ms == since, "open for as long as it has been"
        assert second.asked == 1, "with one record"
        await world.abort(second.app)
        third = Booking(away=False, breaker=never_again)
        await world.start(third.app)
        await world.until_handled()
        assert len(third.booked) == 40


async def test_commands_and_tasks_wait_for_their_backend(engine: Engine) -> None:
    ledger = CommandTopic("ledger", owner="ledger", key="customer", partitions=2)
    ledger.command("ledger.Book")(OrderPlaced)
    away = True
    breaker = Breaker(failures=3, probe_seconds=0.02, probe_seconds_max=0.05)
    app = App("ledger", owns=[ledger])
    served = app.serve(ledger, retry=LADDER)

    async def ask() -> None:
        if away:
            raise ConnectionError("nobody is there")

    @served.on(OrderPlaced, breaker=breaker)
    async def book(command: OrderPlaced) -> None:
        await ask()

    @app.task(breaker=breaker, retry=LADDER)
    async def remind(number: int) -> int:
        await ask()
        return number

    async with World(engine) as world:
        await world.start(app)
        commands = [await app.send(order) for order in orders(10)]
        tasks = [await remind.send(number) for number in range(10)]

        async def seen() -> bool:
            return all([(await world.view(name)).causes for name in ("ledger", "ledger.tasks")])

        await eventually(seen, "both breakers are seen to be open")
        away = False
        for ticket in commands:
            await ticket.outcome()
        assert [await ticket.outcome() for ticket in tasks] == list(range(10))
