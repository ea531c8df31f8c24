"""The ledger example: its two forms answer alike, and keep all money where processes are killed as they work."""

from __future__ import annotations

import asyncio
import random

import pytest

from examples.ledger import client, reader, scaled, simple, trial
from examples.ledger.contracts import BalanceChanged, InsufficientFunds, Transfer, Transferred, balances, ledger
from postline import App, Refused
from postline.contracts.cloudevents import CLIENT_ID, REQUEST_ID
from postline.testing import TestApp


async def test_the_simple_form_moves_money_in_one_sequence():
    asking = App("asking", publishes_to=[simple.ledger])
    async with TestApp(simple.app, asking) as t:
        assert await asking.request(simple.Transfer("anna", "bob", 300)) == simple.Transferred()
        with pytest.raises(Refused) as refused:
            await asking.request(simple.Transfer("anna", "bob", 800))
        assert refused.value.refusal == simple.InsufficientFunds(100)
        changed = t.published(simple.BalanceChanged)
        assert {(each.account, each.balance) for each in changed} == {("anna", 700), ("bob", 1_300)}
        await t.settle()


async def test_the_scaled_form_replies_after_the_credit_and_tells_who_asked():
    asking = App("asking", publishes_to=[ledger])
    async with TestApp(scaled.app, reader.app, asking, topics=[balances]) as t:
        assert await asking.request(Transfer("anna", "bob", 300), request_id="r-1") == Transferred()
        with pytest.raises(Refused) as refused:
            await asking.request(Transfer("anna", "bob", 800), request_id="r-2")
        assert refused.value.refusal == InsufficientFunds(100)
        await t.settle()
        told = t.envelopes(BalanceChanged)
        assert {(each.account, each.balance) for each, _ in told} == {("anna", 700), ("bob", 1_300)}
        assert {(each.headers[CLIENT_ID], each.headers[REQUEST_ID]) for _, each in told} == {("asking", "r-1")}
        assert [t.state(reader.reading, account) for account in ("anna", "bob")] == [700, 1_300]
        assert t.published(scaled.Credit) == [scaled.Credit("bob", 300, t.published(scaled.Credit)[0].token)]


async def test_money_in_transit_is_counted_and_arrives_after_a_crash():
    asking = App("asking", publishes_to=[ledger])
    async with TestApp(scaled.app, asking, topics=[balances]) as t:
        names, chosen = [f"a{number}" for number in range(6)], random.Random(7)
        tickets = []
        for number in range(60):
            source, target = chosen.sample(names, 2)
            tickets.append(await asking.send(Transfer(source, target, chosen.randrange(500)), request_id=f"r-{number}"))
            if number % 20 == 10:
                await t.crash(scaled.app)
                await t.start(scaled.app)
        await t.settle()
        await asyncio.gather(*(ticket.ended(5) for ticket in tickets))
        kept = [t.state(scaled.accounts, name) for name in names]
        assert sum(1_000 if balance is None else balance for balance in kept) == 6_000
        t.audit()


@pytest.mark.slow
async def test_no_money_and_no_outcome_is_lost_where_clients_and_servers_are_killed():
    said = await trial.main(transfers=600, kills=8, seed=11, url="")
    assert said.startswith("sound: 600 transfers"), said


def test_a_client_asks_the_same_under_the_same_number():
    assert client.transfer("client-1", 7) == client.transfer("client-1", 7)
    assert client.transfer("client-1", 7) != client.transfer("client-2", 7)
