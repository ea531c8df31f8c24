"""What an own id was first used for: which commands are the same one, and for how long that is known."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from pydantic import BaseModel

from postline import App, CommandTopic, HandlerFault, RequestIdReused, Schemas
from postline.commands import Accepted, finding
from postline.contracts import Partitioner
from postline.testing import TestApp


class Line(Struct, frozen=True):
    """Part of an order."""

    item: str


class Jobs:
    """A service with one command, and its client."""

    def __init__(self, command: type, name: str = "jobs.Do", aliases: tuple[str, ...] = (), **options: Any) -> None:
        self.topic = CommandTopic("jobs", owner="worker", key="site", partitions=4, **options)
        self.topic.command(name, aliases=aliases)(command)
        self.ran: list[Any] = []
        self.worker = App("worker", owns=[self.topic], schedules=True)
        self.client = App("client", owns=[], publishes_to=[self.topic], schedules=True)

        @self.worker.serve(self.topic).on(command)
        async def do(command: Any) -> None:
            self.ran.append(command)


class Order(Struct, frozen=True):
    """A command whose value can lie in memory in several ways."""

    site: str
    prices: dict[str, int]
    codes: frozenset[int] = frozenset()
    lines: frozenset[Line] = frozenset()


async def test_the_same_content_is_the_same_command_in_whatever_order_it_lies() -> None:
    jobs = Jobs(Order)
    first, again = Order("a", {"x": 1, "y": 2}, frozenset([0, 8])), Order("a", {"y": 2, "x": 1}, frozenset([8, 0]))
    assert list(first.codes) != list(again.codes)
    async with TestApp(jobs.worker, jobs.client):
        for each in (first, again):
            await jobs.client.request(each, request_id="r-1")
        assert jobs.ran == [first]
        with pytest.raises(RequestIdReused, match="another content"):
            await jobs.client.request(Order("a", {"x": 1}), request_id="r-1")


async def test_where_content_has_no_order_command_and_key_are_compared_alone() -> None:
    jobs = Jobs(Order)
    lines = frozenset([Line("x"), Line("y")])
    async with TestApp(jobs.worker, jobs.client):
        await jobs.client.request(Order("a", {}, lines=lines), request_id="r-1")
        await jobs.client.request(Order("a", {"x": 1}, lines=lines), request_id="r-1")
        with pytest.raises(RequestIdReused, match="another key"):
            await jobs.client.request(Order("b", {}, lines=lines), request_id="r-1")
        assert len(jobs.ran) == 1


class Modelled(BaseModel):
    """A command as a pydantic model."""

    site: str
    codes: frozenset[int]


async def test_pydantic_models_are_compared_by_their_fields() -> None:
    jobs = Jobs(Modelled)
    async with TestApp(jobs.worker, jobs.client):
        for codes in ([0, 8], [8, 0]):
            await jobs.client.request(Modelled(site="a", codes=frozenset(codes)), request_id="r-1")
        with pytest.raises(RequestIdReused, match="another content"):
            await jobs.client.request(Modelled(site="a", codes=frozenset([1])), request_id="r-1")
        assert len(jobs.ran) == 1


class Do(Struct, frozen=True):
    """A command."""

    site: str
    number: int = 0


class DoMore(Struct, frozen=True):
    """The same in a newer version."""

    site: str
    number: int = 0
    note: str = ""


@pytest.mark.parametrize("framed", [False, True])
async def test_a_client_of_a_newer_version_repeats_what_the_older_one_sent(*, framed: bool) -> None:
    schemas = Schemas(evolution="BACKWARD_TRANSITIVE", framed=framed)
    old, new = Jobs(Do, schemas=schemas), Jobs(DoMore, name="jobs.DoMore", aliases=("jobs.Do",), schemas=schemas)
    async with TestApp(old.worker, old.client) as t:
        ticket = await old.client.send(Do("a", 1), request_id="r-1")
        await ticket.outcome()
        await t.stop(old.client)
        await t.start(new.client)
        await new.client.request(DoMore("a", 1, "new"), request_id="r-1")
        with pytest.raises(RequestIdReused, match=r"first used for a 'jobs.Do'.* for a 'jobs.DoMore' with another key"):
            await new.client.request(DoMore("b", 1), request_id="r-1")
        assert old.ran == [Do("a", 1)]


async def test_a_command_that_leaves_later_has_its_id_at_once() -> None:
    jobs = Jobs(Do)
    async with TestApp(jobs.worker, jobs.client) as t:
        await jobs.client.send(Do("a"), request_id="r-1", delay=60)
        with pytest.raises(RequestIdReused):
            await jobs.client.send(Do("b"), request_id="r-1")
        await t.advance(seconds=61)
        await t.settle()
        assert jobs.ran == [Do("a")]


async def test_nothing_is_known_of_an_id_once_its_note_is_gone() -> None:
    jobs = Jobs(Do, tickets_kept=timedelta(hours=1))
    place = Partitioner(4).partition_of
    assert place(b"a") == place(b"b")
    elsewhere = next(each for each in "cdefghij" if place(each.encode()) != place(b"a"))
    async with TestApp(jobs.worker, jobs.client) as t:
        await jobs.client.request(Do("a"), request_id="r-1")
        await t.advance(minutes=50)
        with pytest.raises(RequestIdReused):
            await jobs.client.request(Do("b"), request_id="r-1")
        await t.advance(hours=3)
        await t.log.run_maintenance()
        with pytest.raises(HandlerFault, match="OutcomeGone"):  # its mark is known still, in this partition
            await jobs.client.request(Do("b"), request_id="r-1")
        await t.advance(hours=3)
        await t.log.run_maintenance()
        await jobs.client.request(Do(elsewhere), request_id="r-1")
        assert jobs.ran == [Do("a"), Do(elsewhere)]


async def test_an_id_that_was_made_belongs_to_its_command_once_that_is_answered() -> None:
    jobs = Jobs(Do)
    async with TestApp(jobs.worker, jobs.client):
        ticket = await jobs.client.send(Do("a"))
        await ticket.outcome()
        await jobs.client.request(Do("b"), request_id=ticket.request_id)
        assert jobs.ran == [Do("a")]


@pytest.mark.parametrize("priorities", [None, {"high": 0, "normal": 0}])
async def test_what_is_accepted_for_others_is_the_first_with_its_fingerprint(priorities: dict[str, int] | None) -> None:
    jobs = Jobs(Do) if priorities is None else Jobs(Do, priorities=priorities)
    accepted = Accepted(command="jobs.Do", principal="eve", fingerprint=b"1")
    async with TestApp(jobs.worker, jobs.client) as t:
        first = await jobs.client.accept(jobs.topic, Do("a"), "r-1", accepted, "high" if priorities else None)
        await t.advance(seconds=5)
        assert await jobs.client.accept(jobs.topic, Do("a"), "r-1", accepted) == first
        with pytest.raises(RequestIdReused, match="with another body"):
            await jobs.client.accept(jobs.topic, Do("b"), "r-1", msgspec.structs.replace(accepted, fingerprint=b"2"))
        await t.settle()
        assert jobs.ran == [Do("a")]


@pytest.mark.parametrize("forgets", [False, True])
async def test_once_the_first_note_is_gone_the_next_one_is_the_first(
    monkeypatch: pytest.MonkeyPatch, *, forgets: bool
) -> None:
    jobs = Jobs(Do, tickets_kept=timedelta(hours=1))

    async def accepted_as(mark: bytes) -> None:
        note = Accepted(command="jobs.Do", principal="eve", fingerprint=mark)
        await jobs.client.accept(jobs.topic, Do("a"), "r-1", note)

    async with TestApp(jobs.worker, jobs.client) as t:
        await accepted_as(b"1")
        with pytest.raises(RequestIdReused):
            await accepted_as(b"2")
        await t.advance(hours=3)
        await t.log.run_maintenance()
        await accepted_as(b"3")
        if forgets:
            monkeypatch.setattr(finding, "_FORGET_RECORDS", 0)
        with pytest.raises(RequestIdReused):
            await accepted_as(b"4")
        await accepted_as(b"3")


async def test_the_error_says_what_to_do_and_is_copied_whole() -> None:
    jobs = Jobs(Do)
    async with TestApp(jobs.worker, jobs.client):
        await jobs.client.send(Do("a"), request_id="r-1")
        with pytest.raises(RequestIdReused) as refused:
            await jobs.client.send(Do("b"), request_id="r-1")
    error = refused.value
    assert error.request_id == "r-1"
    assert "'client'" in error.message
    assert "app.ticket('r-1')" in error.remedy
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (copied.message, copied.remedy, copied.request_id) == (error.message, error.remedy, "r-1")
