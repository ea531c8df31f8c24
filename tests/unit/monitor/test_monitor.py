"""The read model shows what is there: positions, lag in records and seconds, held records, dead letters, the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from postline import App, Context, Retry, Topic, UsageError
from postline.clock import VirtualClock
from postline.errors import UnknownSubscription, UnknownTopic
from postline.log.port import Append, Assignment, GroupSpec, PartitionCommit, StartAt, TopicSpec
from postline.log.sqlite import SqliteLog
from postline.message import Envelope
from postline.monitor import Monitor, RecordId, key_text
from postline.runtime.entries import DEAD, HELD, DeadEntry, HeldEntry, encode_entry, offset_key
from postline.runtime.outcomes import Outcome, empty_counts
from postline.runtime.progress import Progress
from postline.testing import TestApp

orders = Topic("shop.orders", owner="shop", key="customer", partitions=1)


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int


def service(**options: Any) -> App:
    app = App("billing", publishes_to=[orders])
    billing = app.subscribe("billing", orders, start="earliest", **options)

    @billing.on(OrderPlaced)
    async def bill(order: OrderPlaced, ctx: Context) -> None:
        if order.total < 0:
            raise ValueError("negative")

    return app


async def test_a_subscription_that_has_read_everything_has_no_lag() -> None:
    async with TestApp(service()) as t:
        await t.publish_many([OrderPlaced("ann", 1), OrderPlaced("bob", 2)])
        await t.settle()
        view = await Monitor(t.log, t.clock).subscription("billing")
        assert (view.status, view.lag_records, view.lag_seconds) == ("ok", 0, 0.0)
        assert (view.partitions[0].position, view.partitions[0].end) == (2, 2)
        assert view.members[0].partitions == [0]
        assert view.partitions[0].owner == view.members[0].member


async def test_lag_counts_records_and_the_age_of_the_oldest() -> None:
    app = service()
    async with TestApp(app) as t:
        await t.publish(OrderPlaced("ann", 1))
        await t.settle()
        await t.stop(app)
        await t.publish(OrderPlaced("ann", 2))
        await t.advance(seconds=90)
        await t.publish(OrderPlaced("ann", 3))
        await t.advance(seconds=30)
        view = await Monitor(t.log, t.clock).subscription("billing")
        assert (view.status, view.lag_records, view.lag_seconds) == ("no member", 2, 120.0)
        assert view.members == []


async def test_retrying_and_blocked_records_are_no_lag_but_held_and_their_next_attempt_is_known() -> None:
    async with TestApp(service(retry=Retry(immediate=0, delays=(60,), jitter=0))) as t:
        await t.publish_many([OrderPlaced("ann", -1), OrderPlaced("ann", 2), OrderPlaced("bob", 3)])
        await t.settle()
        monitor = Monitor(t.log, t.clock)
        view = await monitor.subscription("billing")
        assert (view.lag_records, view.retrying, view.blocked, view.held, view.dead_letters) == (0, 1, 1, 2, 0)
        assert view.next_attempt_ms == t.clock.now_ms() + 60_000
        held = await monitor.held("billing")
        assert [(each.id, each.status, each.key) for each in held] == [
            ("0:0", "retrying", "ann"),
            ("0:1", "blocked", "ann"),
        ]
        assert held[0].error == "ValueError: negative"
        assert held[0].attempts == 1
        audit = await monitor.audit("billing")
        assert (audit.handled, audit.outcomes["held"], audit.outcomes["done"]) == (3, 2, 1)
        assert (audit.partitions[0].held_entries, audit.balanced) == (2, True)


async def test_a_dead_letter_is_shown_with_its_record_error_and_stack() -> None:
    async with TestApp(service(retry=Retry(immediate=0, delays=()))) as t:
        await t.publish_many([OrderPlaced("bob", -5), OrderPlaced("ann", -1), OrderPlaced("ann", 2)])
        await t.settle()
        monitor = Monitor(t.log, t.clock)
        assert [(each.id, each.blocked) for each in await monitor.dead_letters("billing")] == [("0:0", 0), ("0:1", 1)]
        assert [each.id for each in await monitor.dead_letters("billing", key="ann")] == ["0:1"]
        detail = await monitor.dead_letter("billing", RecordId(0, 1))
        assert detail is not None
        assert detail.record is not None
        assert isinstance(detail.record.data, msgspec.Raw)
        assert msgspec.json.decode(detail.record.data) == {"customer": "ann", "total": -1}
        assert detail.stack is not None
        assert 'raise ValueError("negative")' in detail.stack
        assert await monitor.dead_letter("billing", RecordId(0, 2)) is None


async def test_topics_know_their_readers_and_which_are_internal() -> None:
    async with TestApp(service()) as t:
        await t.publish(OrderPlaced("ann", 1))
        await t.settle()
        monitor = Monitor(t.log, t.clock)
        views = {view.name: view for view in await monitor.topics()}
        assert views["shop.orders"].subscriptions == ["billing"]
        assert (views["shop.orders"].records, views["shop.orders"].internal) == (1, False)
        assert views["billing.dead-letters"].internal
        assert views["billing.control"].internal
        with pytest.raises(UnknownTopic, match=r"shop\.nothing"):
            await monitor.topic("shop.nothing")
        for ask in (monitor.subscription, monitor.audit, monitor.held, monitor.dead_letters):
            with pytest.raises(UnknownSubscription):
                await ask("nobody")


# Partitions in states that take a fault, or long, to come about: written by hand.


class _Nobody:
    def __init__(self) -> None:
        self.has_some = asyncio.Event()
        self.assignments: Sequence[Assignment] = ()

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        self.assignments = assignments
        self.has_some.set()

    async def revoked(self, assignments: Any) -> None: ...

    def lost(self, assignments: Any) -> None: ...


class Handmade:
    """A log in memory with one subscription, whose partition is written as a test wants it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.log = SqliteLog(None, clock=self.clock)
        self.monitor = Monitor(self.log, self.clock)

    async def __aenter__(self) -> Handmade:
        await self.log.start()
        await self.log.create_topic(TopicSpec(name="events", partitions=1, owner="me"))
        spec = GroupSpec(subscription="mine", topic="events", service="me", start=StartAt("earliest"))
        self.owner = _Nobody()
        self.membership = await self.log.join(spec, self.owner)
        await self.owner.has_some.wait()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.membership.leave()
        await self.log.close()

    async def append(self, number: int, value: bytes | None = b"{}", **envelope: Any) -> None:
        await self.log.append(
            [Append("events", 0, None, value, Envelope(id=str(i), **envelope)) for i in range(number)]
        )

    async def commit(self, position: int, progress: Progress, *, held: Any = (), dead: Any = ()) -> None:
        puts = [(HELD, offset_key(offset), encode_entry(entry)) for offset, entry in held]
        puts += [(DEAD, offset_key(offset), encode_entry(entry)) for offset, entry in dead]
        (assignment,) = self.owner.assignments
        assert await self.membership.commit([PartitionCommit(assignment, position, progress.encode(), puts=puts)]) == []


def counts(**numbers: int) -> list[int]:
    found = empty_counts()
    for name, number in numbers.items():
        found[Outcome[name.upper()]] = number
    return found


async def test_the_audit_finds_a_record_without_an_outcome() -> None:
    async with Handmade() as made:
        await made.append(5)
        await made.commit(5, Progress(counts=counts(done=4)))
        audit = await made.monitor.audit("mine")
        assert (audit.balanced, audit.missing, audit.partitions[0].missing) == (False, 1, 1)


async def test_the_audit_finds_a_held_record_that_state_has_lost() -> None:
    async with Handmade() as made:
        await made.append(5)
        await made.commit(5, Progress(counts=counts(done=3, held=2)), held=[(1, HeldEntry(b"k"))])
        audit = await made.monitor.audit("mine")
        assert (audit.missing, audit.partitions[0].held_entries, audit.balanced) == (0, 1, False)


async def test_the_audit_balances_with_gaps_and_every_outcome() -> None:
    async with Handmade() as made:
        await made.append(12)
        every = counts(
            done=2, filtered=1, duplicate=1, superseded=1, expired=1, dead_lettered=1, discarded=1, lost=1, held=1
        )
        await made.commit(12, Progress(counts=every, gaps=2), held=[(3, HeldEntry(b"k")), (13, HeldEntry(b"l"))])
        audit = await made.monitor.audit("mine")
        assert audit.balanced
        assert audit.outcomes["lost to retention"] == 1
        assert sum(audit.outcomes.values()) + audit.gaps == audit.handled


async def test_a_commit_while_the_audit_reads_does_not_unbalance_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Handmade() as made:
        await made.append(5)
        await made.commit(5, Progress(counts=counts(done=4, held=1)), held=[(1, HeldEntry(b"k"))])
        peek, commits = made.log.peek_state, [Progress(counts=counts(done=3, held=2))]

        async def peek_late(*arguments: Any, **options: Any) -> list[tuple[bytes, bytes]]:
            if commits:
                await made.commit(5, commits.pop(), held=[(2, HeldEntry(b"l"))])
            return await peek(*arguments, **options)

        monkeypatch.setattr(made.log, "peek_state", peek_late)
        audit = await made.monitor.audit("mine")
        assert (audit.partitions[0].held_entries, audit.outcomes["held"], audit.balanced) == (2, 2, True)


async def test_what_is_done_ahead_is_no_lag() -> None:
    async with Handmade() as made:
        await made.append(10)
        made.clock.move_to(made.clock.monotonic() + 60)
        await made.append(1)
        done = int(Outcome.DONE)
        await made.commit(0, Progress(ahead=[(1, 3, done), (5, 9, done)]))
        view = (await made.monitor.subscription("mine")).partitions[0]
        assert (view.lag_records, view.ahead, view.lag_seconds) == (3, 8, 60.0)
        await made.commit(4, Progress(counts=counts(done=4), ahead=[(5, 9, done)]))
        view = (await made.monitor.subscription("mine")).partitions[0]
        assert (view.lag_records, view.ahead) == (2, 5)


async def test_a_ready_record_is_told_from_a_blocked_and_an_unserved_one() -> None:
    async with Handmade() as made:
        await made.append(6)
        dead = DeadEntry(b"c", b"c", "T", "E", "E: no", 1, 0, True)
        held = [
            (1, HeldEntry(b"a")),
            (2, HeldEntry(b"a")),
            (3, HeldEntry(b"b", unserved=True)),
            (4, HeldEntry(None)),
            (5, HeldEntry(b"c")),
        ]
        await made.commit(6, Progress(counts=counts(dead_lettered=1, held=5)), held=held, dead=[(0, dead)])
        assert [view.status for view in await made.monitor.held("mine")] == [
            "ready",
            "blocked",
            "unserved",
            "ready",
            "blocked",
        ]


async def test_a_record_is_shown_as_a_cloud_event() -> None:
    async with Handmade() as made:
        await made.append(
            1, b'{"n":12345678901234567890.5}', source="me", type="a.B", correlation_id="c", headers={"x": "y"}
        )
        await made.append(1, b"\xff\x00", content_type="application/octet-stream")
        await made.append(1, b"not json")
        await made.append(1, None)
        views = await made.monitor.read("events", {0: 0})
        event, binary, broken, tombstone = msgspec.json.decode(msgspec.json.encode(views))
        assert b'"data":{"n":12345678901234567890.5}' in msgspec.json.encode(views[0])
        assert {name: event[name] for name in ("specversion", "id", "source", "type", "correlationid", "headers")} == {
            "specversion": "1.0",
            "id": "0",
            "source": "me",
            "type": "a.B",
            "correlationid": "c",
            "headers": {"x": "y"},
        }
        assert event["timestamp"] == "2023-11-14T22:13:20.000Z"
        assert (binary["data_base64"], broken["data_base64"]) == ("/wA=", "bm90IGpzb24=")
        assert "data" not in tombstone
        assert "data_base64" not in tombstone


async def test_reading_several_partitions_goes_by_time_and_goes_on_where_it_ended() -> None:
    clock = VirtualClock()
    log = SqliteLog(None, clock=clock)
    await log.start()
    await log.create_topic(TopicSpec(name="two", partitions=2, owner="me"))
    for number in range(6):
        clock.move_to(clock.monotonic() + 1)
        await log.append([Append("two", number % 2, str(number).encode(), b"1", Envelope(id=str(number)))])
    monitor, offsets = Monitor(log, clock), {0: 0, 1: 0}
    pages = [[view.key for view in await monitor.read("two", offsets, 4)] for _ in range(3)]
    assert pages == [["0", "1", "2", "3"], ["4", "5"], []]
    await log.close()


def test_records_are_named_by_partition_and_offset() -> None:
    assert RecordId.parse("3:1042") == RecordId(3, 1042)
    assert str(RecordId(3, 1042)) == "3:1042"
    for text in ("", "3", "3:", ":4", "a:b", "-1:4", "3:4:5", "³:4", "1 :2"):
        with pytest.raises(UsageError, match="names no record"):
            RecordId.parse(text)


def test_keys_are_shown_as_text_or_hexadecimal() -> None:
    assert [key_text(key) for key in (None, b"ann", b"", "ä".encode(), b"\xff\x01")] == [None, "ann", "", "ä", "0xff01"]
