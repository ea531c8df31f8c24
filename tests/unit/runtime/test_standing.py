"""What owners tell beside the position: right in every commit, and missing rather than stale after an older version."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from postline import App, Context
from postline.monitor import Monitor
from postline.operations import Operations, ResetTarget
from postline.runtime.entries import DeadEntry, HeldEntry
from postline.runtime.outcomes import empty_counts
from postline.runtime.progress import Progress, Run, Standing
from postline.runtime.standing import HeldCounts, sampled
from postline.testing import TestApp
from tests.unit.monitor.test_monitor import Handmade, OrderPlaced, counts, orders


class ProgressOfBefore(msgspec.Struct, array_like=True):
    """As versions had it that know of no standing."""

    format: int = 1
    generation: int = 0
    start: int = 0
    counts: list[int] = msgspec.field(default_factory=empty_counts)
    gaps: int = 0
    ahead: list[Run] = []
    discarded_by_resets: int = 0


def test_a_version_of_before_reads_the_progress_and_its_commit_drops_the_standing() -> None:
    new = Progress(gaps=3, start=2, standing=Standing(retrying=4, pauses=["operator"], samples=[(1, 2)]))
    old = msgspec.msgpack.decode(new.encode(), type=ProgressOfBefore)
    assert (old.gaps, old.start) == (3, 2)
    again = Progress.decode(msgspec.msgpack.encode(old), 0)
    assert (again.gaps, again.standing) == (3, None)


async def test_what_a_version_of_before_did_not_tell_is_counted() -> None:
    async with Handmade() as made:
        await made.append(9)
        held = [(1, HeldEntry(b"a", 1, 5_000)), (2, HeldEntry(b"a")), (3, HeldEntry(b"b", unserved=True))]
        dead = [(0, DeadEntry(b"c", b"c", "T", "E", "E: no", 1, 0, True))]
        await made.commit(4, Progress(counts=counts(dead_lettered=1, held=3)), held=held, dead=dead)
        view = await made.monitor.subscription("mine")
        assert (view.retrying, view.blocked, view.unserved, view.dead_letters, view.holding) == (1, 1, 1, 1, 1)
        assert view.next_attempt_ms == 5_000


async def test_what_owners_tell_is_not_counted_again() -> None:
    async with Handmade() as made:
        await made.append(9)
        told = Standing(retrying=1_000_000, dead_letters=7, next_attempt_ms=5)
        await made.commit(4, Progress(counts=counts(held=4), standing=told), held=[(1, HeldEntry(b"a"))])
        view = await made.monitor.subscription("mine")
        assert (view.retrying, view.dead_letters, view.next_attempt_ms) == (1_000_000, 7, 5)


entries = st.builds(
    HeldEntry,
    st.sampled_from([b"a", b"b", None]),
    due_ms=st.integers(0, 5),
    unserved=st.booleans(),
    size=st.integers(0, 9),
    redrives=st.integers(0, 1),
    attempts=st.integers(0, 1),
)


@given(st.lists(st.tuples(st.integers(0, 8), st.none() | entries)))
def test_counts_are_those_of_what_is_held_whatever_came_and_went(changes: list[tuple[int, HeldEntry | None]]) -> None:
    kept: dict[int, HeldEntry] = {}
    held = HeldCounts()
    for offset, entry in changes:
        if entry is None:
            kept.pop(offset, None)
            held.drop(offset)
        else:
            kept[offset] = entry
            held.hold(offset, entry)
        told = held.standing(set(), [])
        assert told.held == len(kept)
        assert [offset in held for offset in range(9)] == [offset in kept for offset in range(9)]
        # What was redriven is bounded by what is at hand, until it fails again.
        assert held.records == sum(not each.redrives or each.attempts > 0 for each in kept.values())
        assert told.unserved == sum(each.unserved for each in kept.values())
        assert told.next_attempt_ms == min((each.due_ms for each in kept.values() if each.due_ms), default=0)
        assert held.size_bytes == sum(each.size for each in kept.values())


def test_dead_letters_are_counted_and_their_oldest_is_a_lower_bound_until_there_are_none() -> None:
    held, changes = HeldCounts(), []
    held.dead_letters_changed = lambda: changes.append(held.dead_letters)
    held.bury(20, holds=True)
    held.bury(10, holds=False)
    told = held.standing(set(), [])
    assert (told.dead_letters, told.holding, told.oldest_failed_ms) == (2, 1, 10)
    held.exhume(1, holding=0)
    assert held.standing(set(), []).oldest_failed_ms == 10
    held.exhume(1, holding=1)
    told = held.standing(set(), [])
    assert (told.dead_letters, told.holding, told.oldest_failed_ms) == (0, 0, 0)
    assert changes == [1, 2, 1, 0]


def test_samples_are_few_and_begin_anew_with_a_clock_that_was_set_back() -> None:
    samples: list[tuple[int, int]] = []
    for number in range(20):
        samples = sampled(samples, number, number * 10)
    assert samples == [(number, number * 10) for number in range(14, 20)]
    assert sampled(samples, 16, 500) == [(14, 140), (15, 150), (16, 500)]


# Causes, as an operator sees them at the first look.


class Slow:
    """A service whose handler takes as long as it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.app = App("billing", publishes_to=[orders])
        billing = self.app.subscribe("billing", orders, start="earliest", after="hold")

        @billing.on(OrderPlaced)
        async def bill(order: OrderPlaced, ctx: Context) -> None:
            if self.seconds:
                await self.clock.sleep(self.seconds)

    def testing(self) -> TestApp:
        found = TestApp(self.app)
        self.clock = found.clock
        return found


async def test_a_handler_that_hangs_is_stalled_at_the_first_look_and_no_longer_once_it_goes_on() -> None:
    slow = Slow()
    async with slow.testing() as t:
        for _ in range(3):
            await t.publish(OrderPlaced("ann", 1))
            await t.advance(seconds=10)
        slow.seconds = 80
        await t.publish(OrderPlaced("ann", 2))
        await t.advance(seconds=15)
        assert (await Monitor(t.log, t.clock).subscription("billing")).status == "ok"
        await t.advance(seconds=60)
        view = await Monitor(t.log, t.clock).subscription("billing")
        assert view.status == "stalled"
        assert view.reason == "1 records wait, the oldest for 75 s; none is settled"
        await t.advance(seconds=10)
        assert (await Monitor(t.log, t.clock).subscription("billing")).status == "ok"


async def test_a_position_that_was_reset_is_rewound_until_it_is_there_again() -> None:
    slow = Slow()
    async with slow.testing() as t:
        await t.publish_many([OrderPlaced("ann", 1), OrderPlaced("bob", 2)])
        await t.settle()
        monitor, operations = Monitor(t.log, t.clock), Operations(t.log, t.clock, random.Random(1))
        assert (await monitor.subscription("billing")).status == "ok"
        slow.seconds = 10
        await operations.reset(await operations.plan_reset("billing", ResetTarget(offset=0)))
        await t.advance(seconds=1)
        view = await monitor.subscription("billing")
        assert (view.status, view.reason) == ("rewound", "its position went back; 2 records to read again")
        await t.advance(seconds=10)
        assert (await monitor.subscription("billing")).status == "ok"


async def test_more_than_is_settled_is_growing_at_the_first_look() -> None:
    async with Handmade() as made:
        begin = made.clock.now_ms()
        samples = []
        for number in range(4):
            await made.append(100 + 50 * number)
            samples.append((made.clock.now_ms(), 50 * number))
            made.clock.move_to(made.clock.monotonic() + 30)
        assert samples[0][0] == begin
        await made.commit(200, Progress(counts=counts(done=200), standing=Standing(samples=samples)))
        view = await made.monitor.subscription("mine")
        assert (view.status, view.lag_records) == ("growing", 500)
