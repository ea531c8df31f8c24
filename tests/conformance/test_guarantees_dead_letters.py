"""Dead letters redriven by the many, edited, and grown old: once, in order, whoever owns them, on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec

from postline import Context, DeadLetterPolicy
from postline.monitor import Contents, Letter, Monitor, Picked, Selection
from postline.operations import Disposed, Editing, Pace, with_changes
from postline.runtime.control import ControlOp
from tests.conformance.apps import Billing, OrderPlaced, World, eventually, orders, some_turns
from tests.conformance.harness import Engine

CUSTOMERS = 60


class Failing:
    """Fails every order of some numbers, as long as it is told to."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = set(numbers)

    async def __call__(self, order: OrderPlaced, ctx: Context) -> None:
        """Raise, if there is something to."""
        await some_turns(order, ctx)
        if order.number in self.numbers:
            raise ValueError(f"no {order.number}")


class Operator:
    """Chooses and disposes of the dead letters of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.contents = Contents(world.publisher.schemas)  # type: ignore[arg-type]
        self.monitor = Monitor(world.log, world.engine.clock, self.contents)

    async def picked(self, **chosen: Any) -> AsyncIterator[Picked]:
        """Those that are chosen, for a redrive."""
        async for some in self.monitor.letters.picked(await self.monitor.info("billing"), Selection(**chosen)):
            yield some

    async def letters(self, **chosen: Any) -> list[Letter]:
        """Those that are chosen."""
        info = await self.monitor.info("billing")
        return [each async for page in self.monitor.letters.pages(info, Selection(**chosen)) for each in page]

    async def redrive(self, run: str, limit: int | None = None) -> Disposed:
        """Redrive all that this run has not redriven yet."""
        pace = Pace(limit=limit, wait_seconds=30)
        return await self.world.operations.redrive_many("billing", self.picked(not_of_run=run), run, pace)

    async def edit(self, letter: Letter, change: str, *, redrives: bool) -> None:
        """Change a field of a letter, and wait until that is obeyed."""
        info = await self.monitor.info("billing")
        (opened,) = await self.monitor.letters.opened(info, [letter])
        editing = Editing(self.world.log, self.contents)
        content = with_changes(editing.content(info, opened), [change])
        edited = await editing.checked(info, opened, content, by="ann", reason="a test")
        await self.world.obeyed(await self.world.operations.edit("billing", letter, edited, redrives=redrives))


async def test_many_are_redriven_once_and_in_order_with_what_waits_behind_them(engine: Engine) -> None:
    async with World(engine) as world:
        failing = Failing(0)
        await world.start(Billing(before=failing, after="hold").app)
        published = orders(CUSTOMERS * 3, customers=CUSTOMERS)
        await world.publish(published)
        await world.until_handled(held=CUSTOMERS * 2, dead=CUSTOMERS)
        failing.numbers.clear()
        done = await Operator(world).redrive("first")
        assert (done.asked, done.status) == (CUSTOMERS, "done")
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=CUSTOMERS * 3)


async def test_a_redrive_goes_on_by_its_name_and_runs_nothing_twice(engine: Engine) -> None:
    async with World(engine) as world:
        failing = Failing(0)
        billing = Billing(before=failing, after="continue")
        await world.start(billing.app)
        await world.publish(orders(CUSTOMERS, customers=CUSTOMERS))
        await world.until_handled(dead=CUSTOMERS)
        operator = Operator(world)
        assert (await operator.redrive("first", limit=25)).asked == 25  # which fail again
        await world.until_handled(dead=CUSTOMERS)
        failing.numbers.clear()
        assert (await operator.redrive("first")).asked == CUSTOMERS - 25
        await world.until_handled(dead=25)
        assert {each.entry.redrives for each in await operator.letters()} == {1}
        again = ControlOp(op="redrive", offsets=tuple(range(50)), seen=(0,) * 50, run="other")
        first = (await operator.letters())[0]
        await world.obeyed(await world.operations.ask("billing", [(first.id, again)]))  # what it saw is long over
        await world.until_handled(dead=25)
        await world.balanced(done=CUSTOMERS - 25, dead_lettered=25)


async def test_a_process_killed_amidst_a_redrive_loses_and_doubles_nothing(engine: Engine) -> None:
    async with World(engine) as world:
        failing = Failing(0)
        first = Billing(before=failing, after="hold")
        await world.start(first.app)
        published = orders(CUSTOMERS * 2, customers=CUSTOMERS)
        await world.publish(published)
        await world.until_handled(held=CUSTOMERS, dead=CUSTOMERS)
        failing.numbers.clear()
        await world.operations.redrive("billing", [each.id for each in await Operator(world).letters()])
        await eventually(lambda: len(first.ran) > 5, "some have run again")
        await world.kill(first.app)
        await world.start(Billing(after="hold").app)
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=CUSTOMERS * 2)


async def test_an_edit_is_handled_in_place_of_the_record_by_whoever_owns_it_then(engine: Engine) -> None:
    async with World(engine) as world:
        failing = Failing(1)
        first = Billing(before=failing, after="hold")
        await world.start(first.app)
        await world.publish([OrderPlaced("c0", 0, 5), OrderPlaced("c0", 1, 7)])
        await world.until_handled(dead=1)
        operator = Operator(world)
        (letter,) = await operator.letters()
        await operator.edit(letter, "total=100", redrives=False)
        await world.stop(first.app)
        await world.start(Billing(before=failing, after="hold").app)
        await operator.redrive("a")  # and it fails again, with the edit
        await world.until_handled(dead=1)
        detail = await operator.monitor.dead_letter("billing", letter.id)
        assert detail is not None
        assert detail.edit is not None
        assert detail.record is not None
        assert detail.original is not None
        assert msgspec.json.decode(msgspec.json.encode(detail.record.data))["total"] == 100
        assert msgspec.json.decode(msgspec.json.encode(detail.original.data))["total"] == 7
        failing.numbers.clear()
        await operator.redrive("b")
        await world.until_handled()
        await world.billed_once_and_in_order([OrderPlaced("c0", 0, 5), OrderPlaced("c0", 1, 100)])
        assert await world.log.peek_state("billing", letter.partition, "edits") == []
        await world.balanced(done=2)


async def test_what_is_over_its_age_ends_as_discarded_by_its_owner(engine: Engine) -> None:
    async with World(engine) as world:
        policy = DeadLetterPolicy(max_age=timedelta(milliseconds=300))
        await world.start(Billing(before=Failing(0), after="hold", dead_letters=policy).app)
        published = orders(24)
        await world.publish(published)
        await world.until_handled()
        await world.billed_once_and_in_order([order for order in published if order.number != 0])
        await world.balanced(done=12, discarded=12)


async def test_an_alarm_shows_in_the_view_as_long_as_it_lasts(engine: Engine) -> None:
    async with World(engine) as world:
        failing = Failing(0)
        await world.start(Billing(before=failing, dead_letters=DeadLetterPolicy(alarm_count=3), after="continue").app)
        await world.publish(orders(12))
        await world.until_handled(dead=12)
        assert (await world.view()).dead_letters_alarm == "12 dead letters, more than 3"
        failing.numbers.clear()
        await Operator(world).redrive("first")
        await world.until_handled()
        assert (await world.view()).dead_letters_alarm == ""
        await world.balanced(done=12)
