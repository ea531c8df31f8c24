"""A renamed subscription is not begun a second time under its old name."""

from __future__ import annotations

import pytest

from postline.errors import SubscriptionConflict
from postline.log.port import Log
from tests.conformance.harness import Engine, Owner, appended, joined, settled, spec, topic


async def test_joining_under_a_former_name_is_refused_with_the_new_one(engine: Engine, log: Log) -> None:
    await log.create_topic(topic())
    old, _ = await joined(log, subscription="old")
    await old.leave()
    await joined(log, subscription="new", aliases=("old",))
    for changes in ({"subscription": "old"}, {"subscription": "newer", "aliases": ("old",)}):
        with pytest.raises(SubscriptionConflict, match="'old' was renamed to 'new'"):
            await log.join(spec(**changes), Owner())
    assert [info.name for info in await log.subscriptions()] == ["new"]


async def test_a_subscription_is_not_renamed_while_workers_serve_it_under_its_old_name(
    engine: Engine, log: Log
) -> None:
    await log.create_topic(topic(partitions=2))
    older, _ = await joined(log, 2, subscription="old")
    other = await engine.open()
    with pytest.raises(SubscriptionConflict, match="'old' can't be renamed to 'new' while workers serve it"):
        await other.join(spec("new", aliases=("old",)), Owner())
    assert [info.name for info in await log.subscriptions()] == ["old"]
    await older.leave()
    await joined(other, 2, subscription="new", aliases=("old",))


async def test_a_chain_of_renames_is_remembered_by_its_last_name(log: Log) -> None:
    await log.create_topic(topic())
    for name, former in (("first", ()), ("second", ("first",)), ("third", ("second",))):
        membership, _ = await joined(log, subscription=name, aliases=former)
        await membership.leave()
    for name in ("first", "second"):
        with pytest.raises(SubscriptionConflict, match="renamed to 'third'"):
            await log.join(spec(name), Owner())


async def test_a_rename_back_frees_the_name_and_refuses_the_other(log: Log) -> None:
    await log.create_topic(topic())
    await appended(log, b"0", b"1")
    membership, owner = await joined(log, subscription="old")
    await membership.commit([settled(owner.owned[0], 1)])
    await membership.leave()
    for name, former in (("new", "old"), ("old", "new")):
        membership, owner = await joined(log, subscription=name, aliases=(former,))
        assert owner.owned[0].position == 1
        await membership.leave()
    with pytest.raises(SubscriptionConflict, match="renamed to 'old'"):
        await log.join(spec("new"), Owner())
    await joined(log, subscription="old")


async def test_removing_the_renamed_subscription_frees_its_former_names(log: Log) -> None:
    await log.create_topic(topic())
    for name, former in (("old", ()), ("new", ("old",))):
        membership, _ = await joined(log, subscription=name, aliases=former)
        await membership.leave()
    await log.remove_subscription("new")
    _, owner = await joined(log, subscription="old")
    assert owner.owned[0].position == 0
