"""Request ids on every engine: one that was used for a command is refused to any other, whoever asks or died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from msgspec import Struct

from postline import App, CommandTopic, RequestIdReused
from postline.commands.first_sent import FIRST_SENT
from postline.log.port import Log
from tests.conformance.apps import NEVER, Gate, World, all_records
from tests.conformance.harness import Engine

LEDGER = CommandTopic("ledger", owner="ledger", key="customer", partitions=4)


class Paid(Struct, frozen=True):
    """The reply to a payment: how many there were before it."""

    customer: str
    number: int


@LEDGER.command("ledger.Pay", reply=Paid)
class Pay(Struct, frozen=True):
    """A payment."""

    customer: str
    amount: int


@LEDGER.command("ledger.Refund", reply=Paid)
class Refund(Struct, frozen=True):
    """The same, back."""

    customer: str
    amount: int


class Ledger:
    """The service that handles the commands."""

    def __init__(self, ran: list[Pay | Refund], gate: Gate | None = None) -> None:
        self.app = App("ledger", owns=[LEDGER])
        served = self.app.serve(LEDGER, retry=NEVER)

        @served.on(Pay)
        @served.on(Refund)
        async def pay(command: Pay | Refund) -> Paid:
            if gate is not None:
                await gate.pass_through()
            ran.append(command)
            return Paid(command.customer, len(ran))


class Trial:
    """A ledger, and the processes of a client that ask it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ran: list[Pay | Refund] = []
        self._clients: list[App] = []

    async def serve(self, gate: Gate | None = None) -> App:
        """Start a process of the service."""
        app = Ledger(self.ran, gate).app
        await self.world.start(app)
        return app

    async def client(self, log: Log | None = None) -> App:
        """Start a process of the client, perhaps with its own handle of the log."""
        app = App("shop", publishes_to=[LEDGER])
        await app.start(self.world._environment(log or self.world.log), consume=False)
        self._clients.append(app)
        return app

    async def stored(self) -> int:
        """How many commands there are in the log."""
        return len(await all_records(self.world.log, LEDGER.commands.name))

    async def close(self) -> None:
        """Stop the clients."""
        for app in self._clients:
            await app.stop()


@pytest.fixture
async def trial(engine: Engine) -> AsyncIterator[Trial]:
    """A log on which nothing was asked yet."""
    async with World(engine) as world:
        made = Trial(world)
        yield made
        await made.close()


OTHERS = [
    pytest.param(Pay("bob", 5), "with another key", id="key"),
    pytest.param(Pay("anna", 6), "with another content", id="content"),
    pytest.param(Refund("anna", 5), "'ledger.Refund': this one was not sent", id="command"),
]


@pytest.mark.parametrize(("other", "said"), OTHERS)
async def test_another_command_under_a_used_id_is_refused_and_not_stored(
    trial: Trial, other: Pay | Refund, said: str
) -> None:
    await trial.serve()
    asking = await trial.client()
    # While the first waits, when it is answered, and from another process.
    ticket = await asking.send(Pay("anna", 5), request_id="order-17")
    for each in (asking, asking, await trial.client()):
        with pytest.raises(RequestIdReused, match=said) as refused:
            await each.request(other, request_id="order-17")
        assert "'order-17'" in refused.value.message
        assert "'ledger.Pay'" in refused.value.message
        assert await ticket.outcome(60) == Paid("anna", 1)
    assert trial.ran == [Pay("anna", 5)]
    assert await trial.stored() == 1


async def test_the_same_again_gets_the_first_outcome_and_stores_nothing_once_there_is_one(trial: Trial) -> None:
    asking, other = await trial.client(), await trial.client()
    sent = [await each.send(Pay("anna", 5), request_id="order-17") for each in (asking, asking, other)]
    await trial.serve()
    assert {(await each.outcome(60)).number for each in sent} == {1}
    before = await trial.stored()
    for each in (asking, other):
        assert await each.request(Pay("anna", 5), request_id="order-17") == Paid("anna", 1)
    assert await trial.stored() == before
    assert trial.ran == [Pay("anna", 5)]
    # Ids are each client's own, and another one is another request.
    assert await asking.request(Pay("bob", 5), request_id="order-18") == Paid("bob", 2)


async def test_of_two_commands_sent_at_once_under_one_id_exactly_one_runs(trial: Trial) -> None:
    await trial.serve()
    apps = [await trial.client(), await trial.client(await trial.world._another_handle())]
    numbers = range(12)
    asked = [
        each.request(Pay(customer, n), request_id=f"r-{n}", timeout=60)
        for n in numbers
        for each, customer in zip(apps, ("anna", "bob"), strict=True)
    ]
    ended = await asyncio.gather(*asked, return_exceptions=True)
    for n in numbers:
        both = ended[2 * n : 2 * n + 2]
        assert sorted(type(each).__name__ for each in both) == ["Paid", "RequestIdReused"], both
    assert sorted(each.amount for each in trial.ran) == list(numbers)


async def test_one_that_is_answered_while_another_looks_is_compared_all_the_same(trial: Trial) -> None:
    await trial.serve()
    first = await trial.client()
    log = _LooksTooEarly(await trial.world._another_handle(), lambda: first.request(Pay("anna", 5), request_id="r-1"))
    late = await trial.client(log)  # type: ignore[arg-type]
    with pytest.raises(RequestIdReused, match="another key"):
        await late.request(Pay("bob", 5), request_id="r-1")
    assert log.looked
    assert trial.ran == [Pay("anna", 5)]


async def test_the_same_command_sent_at_once_by_two_processes_runs_once_and_both_have_its_outcome(
    trial: Trial,
) -> None:
    await trial.serve()
    apps = [await trial.client(), await trial.client(await trial.world._another_handle())]
    asked = [each.request(Pay("anna", n), request_id=f"r-{n}", timeout=60) for n in range(12) for each in apps]
    ended = await asyncio.gather(*asked)
    assert ended[::2] == ended[1::2]
    assert sorted(each.amount for each in trial.ran) == list(range(12))


@pytest.mark.parametrize(("other", "said"), OTHERS)
async def test_a_client_that_died_knows_its_ids_when_it_comes_back(
    trial: Trial, other: Pay | Refund, said: str
) -> None:
    asking = await trial.client()
    await asking.send(Pay("anna", 5), request_id="order-17")
    await asking.abort()
    again = await trial.client()
    with pytest.raises(RequestIdReused, match=said):
        await again.send(other, request_id="order-17")
    ticket = await again.send(Pay("anna", 5), request_id="order-17")
    await trial.serve()
    assert await ticket.outcome(60) == Paid("anna", 1)
    assert trial.ran == [Pay("anna", 5)]


async def test_a_client_that_died_between_note_and_command_can_only_go_on_with_the_same(trial: Trial) -> None:
    await trial.serve()
    log = _DiesAfterNote(await trial.world._another_handle())
    with pytest.raises(ConnectionError):
        await (await trial.client(log)).send(Pay("anna", 5), request_id="order-17")  # type: ignore[arg-type]
    assert await trial.stored() == 0
    again = await trial.client()
    with pytest.raises(RequestIdReused, match="another key"):
        await again.send(Pay("bob", 5), request_id="order-17")
    assert await again.request(Pay("anna", 5), request_id="order-17") == Paid("anna", 1)
    assert trial.ran == [Pay("anna", 5)]


async def test_a_server_that_died_changes_nothing_of_it(trial: Trial) -> None:
    gate = Gate()
    gate.shut()
    first = await trial.serve(gate)
    asking = await trial.client()
    ticket = await asking.send(Pay("anna", 5), request_id="order-17")
    await gate.until_somebody_waits()
    await trial.world.kill(first)
    for other in (Pay("bob", 5), Pay("anna", 6)):
        with pytest.raises(RequestIdReused):
            await asking.send(other, request_id="order-17")
    await asking.send(Pay("anna", 5), request_id="order-17")
    gate.open()
    await trial.serve()
    assert await ticket.outcome(60) == Paid("anna", 1)
    await trial.world.until_handled("ledger")
    assert trial.ran == [Pay("anna", 5)]
    with pytest.raises(RequestIdReused):
        await asking.send(Pay("bob", 5), request_id="order-17")


async def test_ids_that_postline_makes_leave_no_note(trial: Trial) -> None:
    await trial.serve()
    asking = await trial.client()
    for number in range(3):
        await asking.request(Pay("anna", number))
    kinds = [record[3] for _, record in await all_records(trial.world.log, LEDGER.tickets.name)]
    assert len(kinds) == 3
    assert FIRST_SENT not in kinds


class _DiesAfterNote:
    """A log whose process stores one record and no more."""

    def __init__(self, log: Log) -> None:
        self._log, self._left = log, 1

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def append(self, appends: object) -> object:
        """Store the first, refuse what follows."""
        if not self._left:
            raise ConnectionError("the process is gone")
        self._left -= 1
        return await self._log.append(appends)  # type: ignore[arg-type]


class _LooksTooEarly:
    """A log in which something happens right after its process has first read tickets."""

    def __init__(self, log: Log, then: Callable[[], Awaitable[object]]) -> None:
        self._log, self._then, self.looked = log, then, False

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def read(self, topic: str, *args: object, **options: object) -> object:
        """What there was before it happened."""
        found = await self._log.read(topic, *args, **options)  # type: ignore[arg-type]
        if topic == LEDGER.tickets.name and not self.looked:
            self.looked = True
            await self._then()
        return found
