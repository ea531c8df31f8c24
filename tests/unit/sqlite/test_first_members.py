"""Members that join a new subscription at the same moment: each takes what the other has meant for it."""

from __future__ import annotations

import asyncio

import pytest

from postline.clock import VirtualClock
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.steward import Steward
from tests.conformance.harness import Owner, spec, topic


@pytest.mark.parametrize("first", [0, 1], ids=["the first to join", "the last to join"])
async def test_a_partition_that_never_had_an_owner_is_taken_by_whom_another_member_meant_it_for(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    gates: dict[Steward, asyncio.Event] = {}
    begin = Steward._round

    async def round_when_let(self: Steward) -> None:
        await gates.setdefault(self, asyncio.Event()).wait()
        await begin(self)

    monkeypatch.setattr(Steward, "_round", round_when_let)
    log = SqliteLog(None, clock=VirtualClock())
    await log.start()
    await log.create_topic(topic(partitions=8))
    owners = [Owner(), Owner()]
    for owner in owners:
        await log.join(spec(), owner)
    while len(gates) < 2:
        await asyncio.sleep(0)
    in_turn = list(gates.values())
    for gate in (in_turn[first], in_turn[1 - first]):
        gate.set()
        for _ in range(50):
            await asyncio.sleep(0)
    assert sorted([*owners[0].owned, *owners[1].owned]) == list(range(8))
    assert len(owners[0].owned) == 4
    await log.close()
