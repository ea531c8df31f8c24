"""Two versions of a service on one subscription, with real apps on every engine."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec import Struct

from postline import App, Context, ForeignTopic, Topic
from postline.errors import SubscriptionConflict
from tests.conformance.apps import NEVER, World, eventually
from tests.conformance.harness import Engine

CHANGES = Topic("shop.changes", owner="shop", key="customer", partitions=4)
BOOKINGS = Topic("billing.bookings", owner="billing", key="customer", partitions=4)


@CHANGES.event("shop.Placed")
class Placed(Struct, frozen=True):
    """What both versions know; `channel` is new in version 2."""

    customer: str
    number: int
    channel: str = "web"


@CHANGES.event("shop.Returned")
class Returned(Struct, frozen=True):
    """What only version 2 knows."""

    customer: str
    number: int


@BOOKINGS.event("billing.Booked")
class Booked(Struct, frozen=True):
    """The effect of either."""

    customer: str
    number: int
    what: str


OLD_VIEW = ForeignTopic("shop.changes")


@OLD_VIEW.reads("shop.Placed")
class OldPlaced(Struct, frozen=True):
    """Version 1's picture, from before the field."""

    customer: str
    number: int


def version_1(name: str = "billing") -> App:
    app = App("billing", owns=[BOOKINGS])
    subscription = app.subscribe(name, OLD_VIEW, start="earliest", state=int, retry=NEVER)

    @subscription.on(OldPlaced)
    async def book(placed: OldPlaced, ctx: Context) -> Booked:
        ctx.state.put((ctx.state.get() or 0) + 1)
        return Booked(placed.customer, placed.number, "placed, by version 1")

    return app


def version_2(name: str = "billing", *, aliases: tuple[str, ...] = ()) -> App:
    app = App("billing", owns=[BOOKINGS])
    subscription = app.subscribe(name, CHANGES, start="earliest", state=int, aliases=aliases, retry=NEVER)

    @subscription.on(Placed)
    async def book(placed: Placed, ctx: Context) -> Booked:
        ctx.state.put((ctx.state.get() or 0) + 1)
        return Booked(placed.customer, placed.number, f"placed, by version 2, {placed.channel}")

    @subscription.on(Returned)
    async def book_back(returned: Returned, ctx: Context) -> Booked:
        ctx.state.put((ctx.state.get() or 0) + 1)
        return Booked(returned.customer, returned.number, "returned, by version 2")

    return app


def changes(count: int, *, first: int = 0, returns: bool = True) -> list[Placed | Returned]:
    """Changes of twelve customers in turn; each customer's third is a return."""
    numbered = [(f"c{n % 12}", n // 12) for n in range(first, first + count)]
    return [Returned(*each) if returns and each[1] % 3 == 2 else Placed(*each, channel="shop") for each in numbered]


async def check_bookings(world: World, published: list[Placed | Returned]) -> Counter[str]:
    """Each change is booked once, each customer's in order; gives who booked how many of what."""
    bookings = [each.message for each in await world.read(BOOKINGS)]
    expected = sorted((each.customer, each.number) for each in published)
    assert sorted((each.customer, each.number) for each in bookings) == expected
    for customer in {each.customer for each in published}:
        numbers = [each.number for each in bookings if each.customer == customer]
        assert numbers == sorted(numbers)
    return Counter(each.what for each in bookings)


async def test_a_type_that_only_the_newer_version_handles_waits_for_it_and_its_key_too(engine: Engine) -> None:
    async with World(engine, CHANGES) as world:
        old, new = version_1(), version_2()
        await world.start(old)
        published = changes(12)
        await world.publish(published)
        await world.until_handled()
        await world.start(new)
        await eventually(lambda: new.consumers[0].owned and old.consumers[0].owned, "both have partitions")
        more = changes(96, first=12)
        async with world.audited():
            await world.publish(more)

            async def nothing_flows() -> bool:
                view = await world.view()
                return view.lag_records == 0 and view.held > 0 and view.retrying == 0

            await eventually(nothing_flows, "what the older version can't handle is held")
            view = await world.view()
            assert view.unserved > 0
            assert view.blocked > 0
            await world.stop(old)
            await world.until_handled()
        counts = await check_bookings(world, published + more)
        assert counts["returned, by version 2"] == sum(isinstance(each, Returned) for each in more)
        assert counts["placed, by version 1"] > 12
        assert sum((await world.totals()).values()) == 108
        await world.balanced(done=108)


async def test_the_older_version_comes_back_and_holds_what_it_can_not_handle(engine: Engine) -> None:
    async with World(engine, CHANGES) as world:
        new = version_2()
        await world.start(new)
        await world.publish(changes(36))
        await world.until_handled()
        await world.stop(new)
        old = version_1()
        await world.start(old)
        await world.publish(changes(36, first=36))
        await world.until_handled(held=12)
        assert (await world.view()).unserved == 12
        await world.balanced(done=60, held=12)
        await world.stop(old)
        await world.start(version_2())
        await world.until_handled()
        await check_bookings(world, changes(72))
        await world.balanced(done=72)


async def test_a_type_that_no_version_ever_handled_is_filtered(engine: Engine) -> None:
    async with World(engine, CHANGES) as world:
        await world.start(version_1())
        await world.publish(changes(36))
        await world.until_handled()
        await world.balanced(done=24, filtered=12)


async def test_a_renamed_subscription_goes_on_with_position_and_state_and_the_older_is_refused(engine: Engine) -> None:
    async with World(engine, CHANGES) as world:
        old = version_1()
        await world.start(old)
        published = changes(24)
        await world.publish(published)
        await world.until_handled()
        await world.stop(old)
        more = changes(24, first=24)
        await world.publish(more)
        new = version_2("invoicing", aliases=("billing",))
        await world.start(new)
        await world.until_handled("invoicing")
        counts = await check_bookings(world, published + more)
        assert counts["placed, by version 1"] == 24
        assert sum((await world.totals("invoicing")).values()) == 48
        await world.balanced("invoicing", done=48)
        await world.stop(new)
        with pytest.raises(SubscriptionConflict, match="invoicing"):
            await world.start(version_1())


async def test_a_renamed_subscription_keeps_what_was_held(engine: Engine) -> None:
    async with World(engine, CHANGES) as world:
        known = version_2()
        await world.start(known)
        await eventually(lambda: len(known.consumers[0].owned) == 4, "it has taken up all partitions")
        await world.stop(known)
        old = version_1()
        await world.start(old)
        await world.publish(changes(36))
        await world.until_handled(held=12)
        await world.stop(old)
        await world.start(version_2("invoicing", aliases=("billing",)))
        await world.until_handled("invoicing")
        await check_bookings(world, changes(36))
        await world.balanced("invoicing", done=36)
