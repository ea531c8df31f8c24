"""What judges the apps' work notices what is lost, doubled, reordered or miscounted."""

from __future__ import annotations

import msgspec
import pytest

from postline.contracts import Partitioner
from postline.log.port import Append
from postline.message import Envelope
from tests.conformance.apps import INVOICES, Billing, InvoiceIssued, World, orders
from tests.conformance.harness import Engine


def forged(invoice: InvoiceIssued) -> Append:
    """An invoice that no handler made."""
    key = invoice.customer.encode()
    place = Partitioner(INVOICES.partitions).partition_of(key)
    envelope = Envelope(id="forged", source="billing", type="billing.InvoiceIssued", time_ms=1)
    return Append(INVOICES.name, place, key, msgspec.json.encode(invoice), envelope)


async def test_what_is_lost_doubled_or_miscounted_is_noticed(engine: Engine) -> None:
    async with World(engine) as world:
        await world.start(Billing().app)
        published = orders(12)
        await world.publish(published)
        await world.until_handled()
        await world.billed_once_and_in_order(published)
        with pytest.raises(AssertionError, match="lost: Counter"):
            await world.billed_once_and_in_order(orders(13))
        with pytest.raises(AssertionError, match="the audit has"):
            await world.balanced(done=11)
        await world.log.append([forged(InvoiceIssued("c1", 0, 2))])
        with pytest.raises(AssertionError, match=r"doubled or made up: Counter\(\{\('c1', 0\)"):
            await world.billed_once_and_in_order(published)


async def test_what_is_reordered_is_noticed(engine: Engine) -> None:
    async with World(engine) as world:
        await world.start(Billing().app)
        late, *published = orders(3, customers=1)
        await world.publish(published)
        await world.until_handled()
        await world.log.append([forged(InvoiceIssued(late.customer, late.number, 6))])
        with pytest.raises(AssertionError, match=r"out of order: \[1, 2, 0\]"):
            await world.billed_once_and_in_order([late, *published])


async def test_effects_that_state_does_not_know_are_noticed(engine: Engine) -> None:
    async with World(engine) as world:
        await world.start(Billing().app)
        *published, never_run = orders(3, customers=1)
        await world.publish(published)
        await world.until_handled()
        await world.log.append([forged(InvoiceIssued(never_run.customer, never_run.number, 6))])
        with pytest.raises(AssertionError, match="state has"):
            await world.billed_once_and_in_order([*published, never_run])
