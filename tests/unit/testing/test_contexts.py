"""`TestContext`: handlers called directly, on a real context."""

from __future__ import annotations

import pytest
from msgspec import Struct

from postline import Context, EncodeError, Topic, UsageError
from postline.contracts import Catalog
from postline.message import Envelope
from postline.testing import TestContext

reminders = Topic("shop.reminders", owner="shop", key="customer")


class Totals(Struct):
    """What is kept for a customer."""

    orders: int = 0


@reminders.event("shop.Reminder")
class Reminder(Struct):
    customer: str


async def handle(customer: str, ctx: Context) -> None:
    totals = ctx.state.get() or Totals()
    ctx.state.put(Totals(totals.orders + 1))
    if ctx.attempt < 2:
        ctx.publish(Reminder(customer), headers={"try": str(ctx.attempt)})
    ctx.resources.append(customer)


async def test_a_handler_is_called_with_state_and_resources_and_leaves_what_it_did():
    mails: list[str] = []
    ctx = TestContext(state=Totals(4), resources=mails, key="ann")
    await handle("ann", ctx)
    assert ctx.published == [Reminder("ann")]
    assert ctx.state.get() == Totals(5)
    assert mails == ["ann"]
    assert ctx.key == b"ann"


async def test_without_state_there_is_none_and_the_attempt_is_what_was_said():
    ctx = TestContext(resources=[], attempt=2)
    assert ctx.state.get() is None
    await handle("ann", ctx)
    assert ctx.published == []
    assert ctx.state.get() == Totals(1)


def test_the_key_of_another_and_a_missing_key_are_refused_as_they_are_by_the_runtime():
    with pytest.raises(UsageError, match="state of key 'bob'"):
        TestContext(key="ann").state.get("bob")
    with pytest.raises(UsageError, match="without a key"):
        TestContext(key=None).state.put(3)


def test_a_batch_handler_sees_the_state_of_its_keys():
    ctx = TestContext(states={"ann": 1, "bob": None})
    assert (ctx.state.get("ann"), ctx.state.get("bob")) == (1, None)
    ctx.state.put(2, "bob")
    assert ctx.state.get("bob") == 2
    with pytest.raises(UsageError):
        ctx.state.get("eve")
    with pytest.raises(UsageError, match="state= and states="):
        TestContext(states={"ann": 1}, state=1)


def test_with_topics_what_is_published_is_checked_against_its_contract():
    ctx = TestContext(topics=Catalog([reminders]))
    with pytest.raises(EncodeError):
        ctx.publish(Reminder(""))
    with pytest.raises(UsageError):
        ctx.publish(Totals())
    assert ctx.published == []
    ctx.publish(Reminder("ann"))
    ctx.publish(Reminder("ann"))
    first, second = ctx.outbox or []
    assert first.envelope.id != second.envelope.id
    assert first.key == b"ann"


def test_the_envelope_tells_who_said_it_and_ids_follow_from_it():
    ctx = TestContext(envelope=Envelope(id="7", source="shop", correlation_id="c"))
    assert (ctx.message_id, ctx.correlation_id) == ("7", "c")
    assert ctx.idempotency_key == TestContext(envelope=Envelope(id="7", source="shop")).idempotency_key
    assert ctx.idempotency_key != TestContext(envelope=Envelope(id="8", source="shop")).idempotency_key
