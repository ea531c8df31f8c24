"""Tasks that are unique until done: one of equal calls is under way, the others get its outcome."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from postline import App, Context, HandlerFault, Refused, RequestTimeout, Retry, UsageError
from postline.commands import underway
from postline.commands.answering import PartitionAnswers
from postline.commands.writing import PROGRESS
from postline.contracts.cloudevents import REQUEST_ID
from postline.contracts.replies import AlreadyUnderWay
from postline.monitor import Monitor, Tasks
from postline.runtime.control import ControlOp
from postline.runtime.entries import HELD, offset_of
from postline.testing import TestApp
from postline.testing.ledger import entries, instantly

ONCE = Retry(immediate=0, delays=())


class Indexer:
    """A service with one unique task, whose runs stay until they are let go."""

    def __init__(self, *, retry: Retry = ONCE, partitions: int = 2, concurrency: int = 64) -> None:
        self.app = App("images", schedules=True)
        queue = self.app.queue("work", retry=retry, partitions=partitions, concurrency=concurrency)
        self.begun: list[str] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.open = asyncio.Event()
        self.failing: set[str] = set()

        @self.app.task(queue=queue, unique="until-done", unique_by=lambda path, why: path)
        async def index(path: str, why: str = "") -> int:
            self.begun.append(path)
            self.running[path] += 1
            self.most[path] = max(self.most[path], self.running[path])
            try:
                await self.open.wait()
            finally:
                self.running[path] -= 1
            if path in self.failing:
                raise RuntimeError("no such picture")
            return self.begun.count(path)

        @self.app.task(queue=queue)
        async def other() -> None:
            return None

        @self.app.task(queue=queue)
        async def relay(ctx: Context, path: str) -> None:
            ctx.send(index.message(path, "relayed"))

        self.index, self.other, self.relay = index, other, relay

    async def until_begun(self, number: int) -> None:
        """Wait until so many runs have begun."""
        while len(self.begun) < number:
            await asyncio.sleep(0)

    def audit(self, t: TestApp) -> dict[str, int]:
        return t.audit()["images.work"]


@pytest.fixture
def images() -> Indexer:
    return Indexer()


async def test_calls_that_equal_one_under_way_get_its_result_and_later_ones_run(images: Indexer) -> None:
    async with TestApp(images.app) as t:
        tickets = [await images.index.send("cat", str(each)) for each in range(3)]
        tickets.append(await images.index.send("dog"))
        await images.until_begun(2)
        tickets.append(await images.index.send("cat", "while it runs"))
        images.open.set()
        assert [await ticket.result() for ticket in tickets] == [1, 1, 1, 1, 1]
        assert await images.index.request("cat") == 2
        await t.settle()
        assert Counter(images.begun) == {"cat": 2, "dog": 1}
        assert images.audit(t) == {"done": 3, "duplicate": 3}


async def test_each_ticket_is_its_own_and_says_what_it_waits_for(images: Indexer) -> None:
    async with TestApp(images.app) as t, client(t) as sending:
        await t.crash(images.app)
        first, second = await sending.index.send("cat"), await sending.index.send("cat")
        await t.start(images.app)
        await images.until_begun(1)
        await until(lambda: bool(notes(t)), t)
        status = await second.status()
        assert (status.state, status.note) == ("open", f"waits for the outcome of the equal call {first.request_id}")
        assert first.request_id != second.request_id
        tasks = Tasks(t.log, Monitor(t.log, t.clock))
        (queue,) = await tasks.queues()
        assert (queue.open, queue.joined) == (1, 1)
        shown = [(each.task.state, each.task.same_as) for each in await tasks.find("images.work", second.request_id)]
        assert shown == [("open", first.request_id)]
        images.open.set()
        assert await sending.index.ticket(second.request_id).result() == 1


async def test_calls_far_behind_in_the_backlog_belong_to_the_one_under_way_when_they_were_sent() -> None:
    images = Indexer(partitions=1, concurrency=1)
    images.open.set()
    async with TestApp(images.app) as t, client(t) as sending:
        await t.crash(images.app)
        tickets = [await sending.index.send("cat")]
        await sending.other.send_many(sending.other.message() for _ in range(9_000))
        tickets.append(await sending.index.send("cat"))
        await t.start(images.app)
        await t.settle()
        assert [await ticket.result() for ticket in tickets] == [1, 1]
        assert images.begun == ["cat"]
        assert await sending.index.request("cat") == 2
        assert kept(t, "unique") == kept(t, "joined") == 0


@pytest.mark.parametrize("how", ["fault", "expiry", "discard"])
async def test_whatever_it_ends_in_is_everybodys_outcome_and_then_a_new_call_runs(how: str) -> None:
    images = Indexer(retry=Retry(immediate=0, delays=(600,)))
    images.open.set()
    async with TestApp(images.app) as t, client(t) as sending:
        if how == "expiry":
            await t.crash(images.app)
        else:
            images.failing.add("cat")
        first = await sending.index.options(expires=60 if how == "expiry" else None).send("cat")
        second = await sending.index.send("cat")
        if how == "expiry":
            await t.advance(minutes=2)
            await t.start(images.app)
        await t.settle()
        if how == "discard":
            ((partition, offset),) = held(t)
            await t.control("images.work", ControlOp(op="discard", offset=offset, reason="enough"), partition)
            await t.settle()
        if how == "fault":
            await t.advance(minutes=20)
        expected = RequestTimeout if how == "expiry" else HandlerFault
        for ticket in (first, second):
            with pytest.raises(expected):
                await ticket.result()
        images.failing.clear()
        before = len(images.begun)
        assert await sending.index.request("cat") == before + 1
        await t.settle()
        assert kept(t, "unique") == kept(t, "joined") == 0


async def test_a_call_that_waits_for_another_can_be_cancelled_alone(images: Indexer) -> None:
    async with TestApp(images.app) as t:
        first = await images.index.send("cat")
        second = await images.index.send("cat")
        await images.until_begun(1)
        await second.cancel()
        await until(lambda: kept_in_memory(images) == 0)
        images.open.set()
        assert await first.result() == 1
        with pytest.raises(Refused, match="Cancelled"):
            await second.result()
        await t.settle()
        assert kept(t, "joined") == 0


async def test_cancelling_the_first_does_not_take_others_along() -> None:
    images = Indexer(partitions=1, concurrency=1)
    async with TestApp(images.app) as t, client(t) as sending:
        await images.index.send("busy")
        await images.until_begun(1)
        first, second = await sending.index.send("cat"), await sending.index.send("cat")
        await until(lambda: kept_in_memory(images) == 1)
        await first.cancel()
        alone = await sending.index.send("dog")
        await alone.cancel()
        await until(lambda: cancelled(images) == 2)
        images.open.set()
        assert [await first.result(), await second.result()] == [1, 1]
        with pytest.raises(Refused, match="Cancelled"):
            await alone.result()
        early = Indexer(partitions=1)
        await t.crash(images.app)
        first, second = await sending.index.send("cat"), await sending.index.send("cat")
        await first.cancel()
        early.open.set()
        await t.start(early.app)
        with pytest.raises(Refused, match="Cancelled"):
            await first.result()
        assert await second.result() == 1


async def test_a_call_that_would_wait_for_another_is_cancelled_before_it_comes(images: Indexer) -> None:
    async with TestApp(images.app) as t, client(t) as sending:
        await t.crash(images.app)
        first, second = await sending.index.send("cat"), await sending.index.send("cat")
        await second.cancel()
        await t.start(images.app)
        images.open.set()
        with pytest.raises(Refused, match="Cancelled"):
            await second.result()
        assert await first.result() == 1


async def test_a_redriven_dead_letter_is_under_way_again_or_gets_the_outcome_of_the_one_that_is(
    images: Indexer,
) -> None:
    images.failing.add("cat")
    images.open.set()
    async with TestApp(images.app) as t:
        first = await images.index.send("cat")
        await t.settle()
        images.failing.clear()
        images.open.clear()
        second = await images.index.send("cat")
        await images.until_begun(2)
        await t.redrive("images.work")
        await until(lambda: kept_in_memory(images) == 1)
        images.open.set()
        assert await second.result() == 2
        await t.settle()
        assert images.begun == ["cat", "cat"]
        assert (await images.index.ticket(first.request_id).status()).state == "succeeded"
        assert images.audit(t) == {"done": 1, "duplicate": 1}


async def test_equal_calls_join_a_redriven_one(images: Indexer) -> None:
    images.failing.add("cat")
    images.open.set()
    async with TestApp(images.app) as t:
        await images.index.send("cat")
        await t.settle()
        images.failing.clear()
        images.open.clear()
        await t.redrive("images.work")
        await images.until_begun(2)
        second = await images.index.send("cat")
        await until(lambda: kept_in_memory(images) == 1)
        images.open.set()
        assert await second.result() == 2
        assert images.begun == ["cat", "cat"]


async def test_more_than_may_wait_are_refused_and_told_what_is_under_way(
    images: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(underway, "JOINED_MAX", 2)
    async with TestApp(images.app):
        tickets = [await images.index.send("cat") for _ in range(4)]
        await images.until_begun(1)
        images.open.set()
        assert [await ticket.result() for ticket in tickets[:3]] == [1, 1, 1]
        with pytest.raises(Refused) as refused:
            await tickets[3].result()
        assert refused.value.refusal == AlreadyUnderWay("images", tickets[0].request_id)


async def test_a_handler_that_sends_and_a_delayed_call_are_equal_too() -> None:
    images = Indexer(partitions=8)
    async with TestApp(images.app) as t:
        await images.index.options(delay=60).send("cat")
        await t.settle()
        t.clock.move_to(t.clock.monotonic() + 61)
        await images.until_begun(1)
        await images.relay.send("cat")
        await until(lambda: kept_in_memory(images) == 1, t)
        images.open.set()
        await t.settle()
        assert images.begun == ["cat"]


async def test_a_reset_tells_those_that_wait_and_will_not_be_read_again() -> None:
    images = Indexer(retry=Retry(immediate=0, delays=(600,)), partitions=1)
    images.failing.add("cat")
    images.open.set()
    async with TestApp(images.app) as t:
        tickets = [await images.index.send("cat"), await images.index.send("cat")]
        await t.settle()
        await t.control("images.work", ControlOp(op="reset", offset=2))
        await t.settle()
        for ticket in tickets:
            with pytest.raises(HandlerFault, match="Discarded"):
                await ticket.result()
        images.failing.clear()
        assert await images.index.request("cat") == 2


@pytest.mark.parametrize("seed", range(12))
async def test_whenever_a_worker_dies_one_of_equal_calls_runs_at_a_time_and_each_has_one_outcome(seed: int) -> None:
    """Crashes fall between an end and its commit as well: both are lost then, or neither."""
    choose = random.Random(seed)
    images = Indexer(partitions=2, concurrency=choose.choice([1, 3, 64]), retry=Retry(immediate=0, delays=(1,)))
    images.open.set()
    async with TestApp(images.app, seed=seed) as t, client(t) as sending:
        tickets: list[tuple[str, int, Any]] = []
        for _ in range(60):
            match choose.randrange(8):
                case 0:
                    await t.crash(images.app)
                    await t.start(images.app)
                case 1:
                    images.open.clear()
                case 2:
                    images.open.set()
                case 3:
                    images.failing ^= {choose.choice("abc")}
                case 4:
                    await asyncio.sleep(0)
                case _:
                    path = choose.choice("abc")
                    tickets.append((path, images.begun.count(path), await sending.index.send(path)))
            for _ in range(choose.randrange(6)):
                await asyncio.sleep(0)
        images.open.set()
        await t.advance(minutes=5)
        outcomes = [await ticket.ended() for _, _, ticket in tickets]
        assert len(outcomes) == len(tickets)
        assert all(most == 1 for most in images.most.values())
        replies = Counter(envelope.headers[REQUEST_ID] for _, envelope in t.log_records("images.work.replies"))
        assert set(replies) == {ticket.request_id for _, _, ticket in tickets}
        assert set(replies.values()) == {1}
        for (path, before, _), outcome in zip(tickets, outcomes, strict=True):
            # Nobody gets the result of a run that had ended, as all could see, before the call was sent.
            if outcome.state == "succeeded":
                assert outcome.reply.value >= min(before, 1), (path, before)
        assert kept(t, "unique") == kept(t, "joined") == 0


def test_uniqueness_that_is_none_is_refused() -> None:
    app = App("images")
    with pytest.raises(UsageError, match="can't be unique='for-ever'"):

        @app.task(unique="for-ever")  # type: ignore[call-overload]
        async def one() -> None: ...


# -- what they share --------------------------------------------------------------------------------


@asynccontextmanager
async def client(t: TestApp) -> AsyncIterator[Indexer]:
    """A process that sends, and works on nothing."""
    sending = Indexer(partitions=len(instantly(t.log.bounds("images.work.commands"))))
    await sending.app.start(t.environment(), consume=False)
    try:
        yield sending
    finally:
        await sending.app.stop()


async def until(holds: Callable[[], bool], t: TestApp | None = None) -> None:
    """Wait for a condition, for so many turns of the loop at most; time passes in `t`, so that it commits."""
    for turn in range(10_000):
        if holds():
            return
        if t is not None and turn % 100 == 99:
            t.clock.move_to(t.clock.monotonic() + 0.05)
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


def notes(t: TestApp) -> list[str]:
    return [envelope.type for _, envelope in t.log_records("images.work.tickets") if envelope.type == PROGRESS]


def answers_of(images: Indexer) -> list[PartitionAnswers]:
    owned = [each for consumer in images.app.consumers for each in consumer.owned.values()]
    return [each.answers for each in owned if isinstance(each.answers, PartitionAnswers)]


def kept_in_memory(images: Indexer) -> int:
    """How many calls wait for others."""
    return sum(each._underway._all_joined for each in answers_of(images))


def cancelled(images: Indexer) -> int:
    """How many wishes that a call not be begun are known."""
    return sum(len(each._cancelled) for each in answers_of(images))


def kept(t: TestApp, namespace: str) -> int:
    """How many entries a namespace has, all partitions together."""
    infos = instantly(t.log.partitions("images.work"))
    return sum(len(list(entries(t.log, "images.work", info.partition, namespace))) for info in infos)


def held(t: TestApp) -> list[tuple[int, int]]:
    return [
        (info.partition, offset_of(key))
        for info in instantly(t.log.partitions("images.work"))
        for key, _ in entries(t.log, "images.work", info.partition, HELD)
    ]
