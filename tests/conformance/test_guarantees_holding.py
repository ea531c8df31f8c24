"""What waits and what is given up: bounds, copies, discards, and delays that outlive a process, on every engine."""

from __future__ import annotations

from datetime import timedelta

import pytest

from postline import Context, DeadLetter, Discard, Retry, RetryLater
from postline.contracts import Partitioner
from postline.errors import UsageError
from postline.monitor import RecordId
from tests.conformance.apps import (
    INVOICES,
    ORDERS,
    Billing,
    OrderPlaced,
    World,
    all_records,
    eventually,
    order_of_keys,
    orders,
    some_turns,
)
from tests.conformance.harness import Engine

HOUR_MS = 3_600_000


class Moody:
    """Raises what it is told to for a customer's order, as long as it is told."""

    def __init__(self, **errors: BaseException) -> None:
        self.errors = errors

    async def __call__(self, order: OrderPlaced, ctx: Context) -> None:
        """Raise, if there is something to."""
        await some_turns(order, ctx)
        if error := self.errors.get(f"{order.customer}_{order.number}") or self.errors.get(order.customer):
            raise error


def neighbours() -> tuple[str, str, str]:
    """Two customers of one partition, and one of another."""
    partition_of = Partitioner(ORDERS.partitions).partition_of
    places = {f"c{n}": partition_of(f"c{n}".encode()) for n in range(12)}
    second = next(name for name, place in places.items() if name != "c0" and place == places["c0"])
    return "c0", second, next(name for name, place in places.items() if place != places["c0"])


async def test_a_partition_that_holds_too_much_pauses_until_its_dead_letter_is_settled(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    sick, neighbour, elsewhere = neighbours()
    moody = Moody(**{f"{sick}_0": ValueError("no")})
    async with World(engine) as world:
        await world.start(Billing(before=moody, after="hold", held_records_max=10).app)
        published = [OrderPlaced(sick, n) for n in range(12)]
        await world.publish(published)
        await world.until_handled(held=11, dead=1)
        assert "so it pauses" in caplog.text
        more = [OrderPlaced(neighbour, n) for n in range(3)]
        others = [OrderPlaced(elsewhere, n) for n in range(30)]
        await world.publish([*more, *others])

        async def others_are_billed() -> bool:
            return len(order_of_keys(await world.read(INVOICES)).get(elsewhere, [])) == 30

        await eventually(others_are_billed, "the other partition flows")
        assert neighbour not in order_of_keys(await world.read(INVOICES))
        assert (await world.view()).lag_records >= 3
        moody.errors.clear()
        await world.redrive_all()
        await world.until_handled()
        await world.billed_once_and_in_order([*published, *more, *others])
        await world.balanced(done=45)


async def test_the_bound_still_holds_after_a_restart(engine: Engine) -> None:
    sick, neighbour, _ = neighbours()
    moody = Moody(**{f"{sick}_0": ValueError("no")})
    async with World(engine) as world:
        first = Billing(before=moody, after="hold", held_records_max=5)
        await world.start(first.app)
        published = [OrderPlaced(sick, n) for n in range(7)]
        await world.publish(published)
        await world.until_handled(held=6, dead=1)
        await world.stop(first.app)
        more = [OrderPlaced(neighbour, n) for n in range(3)]
        await world.publish(more)
        second = Billing(before=moody, after="hold", held_records_max=5)
        await world.start(second.app)
        request = await world.operations.resume("billing")  # an operator's word is not what the bound waits for
        await world.obeyed(request)
        assert second.ran == []
        assert (await world.view()).lag_records >= 3
        (letter,) = await world.letters()
        await world.obeyed(await world.operations.discard("billing", [RecordId.parse(letter.id)], "a test"))
        await world.until_handled()
        await world.billed_once_and_in_order([*published[1:], *more])
        await world.balanced(done=9, discarded=1)


async def test_a_dead_letter_is_copied_whole_with_its_error_and_origin(engine: Engine) -> None:
    async with World(engine) as world:
        await world.start(Billing(before=Moody(c1_0=ValueError("no money")), after="continue").app)
        published = orders(24)
        await world.publish(published)
        await world.until_handled(dead=1)
        (letter,) = await world.letters()
        assert (letter.key, letter.holds, letter.attempts, letter.error) == ("c1", False, 1, "ValueError: no money")
        ((_, copy),) = await all_records(world.log, "billing.dead-letters")
        (source,) = await world.log.read_offsets(ORDERS.name, letter.partition, [letter.offset])
        assert copy[2:5] == source[2:5]
        envelope, original = world.log.envelope(copy), world.log.envelope(source)
        assert (envelope.id, envelope.source, envelope.time_ms) == (original.id, original.source, original.time_ms)
        assert envelope.headers["postline-origin"] == f"{ORDERS.name}/{letter.partition}/{letter.offset}"
        assert envelope.headers["postline-subscription"] == "billing"
        assert "no money" in envelope.headers["postline-error-stack"]
        detail = await world.monitor.dead_letter("billing", RecordId.parse(letter.id))
        assert detail is not None
        assert detail.record is not None
        assert "no money" in (detail.stack or "")
        await world.billed_once_and_in_order([order for order in published if order != OrderPlaced("c1", 0, 2)])
        await world.balanced(done=23, dead_lettered=1)


async def test_each_way_to_give_a_record_up_is_counted_as_what_it_is(engine: Engine) -> None:
    errors = {"c0_1": Discard("a test"), "c1_0": DeadLetter("a test"), "c2_0": KeyError("never again")}
    async with World(engine) as world:
        retry = Retry(immediate=3, delays=(0.01,), never=(KeyError,))
        await world.start(Billing(before=Moody(**errors), after="continue", retry=retry).app)
        published = orders(36)
        await world.publish(published)
        await world.until_handled(dead=2)
        assert sorted(letter.attempts for letter in await world.letters()) == [1, 1]
        given_up = {("c0", 1), ("c1", 0), ("c2", 0)}
        await world.billed_once_and_in_order(
            [order for order in published if (order.customer, order.number) not in given_up]
        )
        await world.balanced(done=33, discarded=1, dead_lettered=2)


async def test_dead_letters_are_discarded_and_what_is_none_is_refused(engine: Engine) -> None:
    async with World(engine) as world:
        billing = Billing(before=Moody(c0=ValueError("no"), c1=ValueError("no")), after="hold")
        await world.start(billing.app)
        published = orders(36)
        await world.publish(published)
        await world.until_handled(held=4, dead=2)
        await world.stop(billing.app)
        letters = await world.letters()
        with pytest.raises(UsageError, match="has no dead letter"):
            await world.operations.redrive("billing", [RecordId(letters[0].partition, letters[0].offset + 1)])
        first = [RecordId.parse(letter.id) for letter in letters]
        behind = [RecordId.parse(each.id) for each in await world.monitor.held("billing")]
        # In this order: what waits behind a dead letter flows, and is handled, as soon as that is gone.
        request = await world.operations.discard("billing", [*behind, *first], "a test")
        again = Billing(after="hold")
        await world.start(again.app)
        await world.obeyed(request)
        await world.until_handled()
        assert await world.operations.missed(request) == []
        assert again.ran == []
        await world.billed_once_and_in_order([order for order in published if order.customer not in {"c0", "c1"}])
        await world.balanced(done=30, discarded=6)


async def test_a_delay_that_a_handler_chose_survives_a_restart_and_ends_when_it_was_to(engine: Engine) -> None:
    moody = Moody(c3_0=RetryLater(timedelta(hours=1), "the bank is closed"))
    async with World(engine) as world:
        first = Billing(before=moody, retry=Retry(immediate=0, delays=(1, 1)))
        await world.start(first.app)
        published = orders(36)
        await world.publish(published)
        await world.until_handled(held=3)
        view = await world.view()
        assert (view.retrying, view.blocked) == (1, 2)
        due_ms = view.next_attempt_ms
        assert due_ms is not None
        assert HOUR_MS / 2 < due_ms - engine.clock.now_ms() <= HOUR_MS
        await world.stop(first.app)
        moody.errors.clear()
        second = Billing(before=moody)
        await world.start(second.app)
        more = orders(24, first=36)
        await world.publish(more)
        await world.until_handled(held=5)
        assert (await world.view()).next_attempt_ms == due_ms
        assert "c3" not in {order.customer for order in second.ran}
        await world.balanced(done=55, held=5)
        await world.stop(second.app)
        engine.clock.ahead_ms += HOUR_MS
        third = Billing(before=moody)
        await world.start(third.app)
        await world.until_handled()
        assert [order.number for order in third.ran] == [0, 1, 2, 3, 4]
        await world.billed_once_and_in_order([*published, *more])
        await world.balanced(done=60)


async def test_what_waits_for_its_next_attempt_is_attempted_when_an_operator_asks(engine: Engine) -> None:
    moody = Moody(c3_0=ConnectionError("the bank is away"), c4_0=ConnectionError("the bank is away"))
    async with World(engine) as world:
        billing = Billing(before=moody, retry=Retry(immediate=0, delays=(HOUR_MS / 1000,)))
        await world.start(billing.app)
        published = orders(36)
        await world.publish(published)
        await world.until_handled(held=6)
        moody.errors.clear()
        await world.obeyed(await world.operations.pause("billing"))
        await world.obeyed(await world.operations.retry("billing"))
        assert (await world.view()).held == 6  # a pause is one
        await world.obeyed(await world.operations.resume("billing"))
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=36)


async def test_one_record_alone_is_attempted_when_an_operator_names_it(engine: Engine) -> None:
    moody = Moody(c3_0=ConnectionError("the bank is away"), c4_0=ConnectionError("the bank is away"))
    async with World(engine) as world:
        billing = Billing(before=moody, retry=Retry(immediate=0, delays=(HOUR_MS / 1000, HOUR_MS / 1000)))
        await world.start(billing.app)
        published = orders(36)
        await world.publish(published)
        await world.until_handled(held=6)
        del moody.errors["c3_0"]
        held = await world.monitor.held("billing")
        heads = [each for each in held if each.attempts]
        assert len(heads) == 2
        named = next(each for each in heads if each.key == "c3")
        await world.obeyed(await world.operations.retry("billing", [RecordId.parse(named.id)]))
        await world.until_handled(held=3)
        assert {each.key for each in await world.monitor.held("billing")} == {"c4"}
        moody.errors.clear()
        await world.obeyed(await world.operations.retry("billing"))
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        await world.balanced(done=36)
