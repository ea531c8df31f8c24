"""A group in which nobody has a partition: members join anew, one after another, and only after long enough."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from postline.log.kafka.groups import LiveMember
from postline.log.kafka.watching import turn_to_rejoin, watch_group


def member(name: str, *partitions: int) -> LiveMember:
    return LiveMember(f"id-{name}", name, "host", partitions)


class _Parts:
    """A cluster whose group looks like this, one look after another; then it is over."""

    def __init__(self, looks: list[list[LiveMember]]) -> None:
        self._looks = iter(looks)
        self.cluster = SimpleNamespace(clock=self, run=self.run)
        self.groups = SimpleNamespace(members=None)

    async def sleep(self, seconds: float) -> None:
        """No time passes."""

    async def run(self, *_: object) -> list[LiveMember]:
        try:
            return next(self._looks)
        except StopIteration:
            raise asyncio.CancelledError from None


class _Member:
    def __init__(self) -> None:
        self.rejoined = 0

    def rejoin(self) -> None:
        self.rejoined += 1


async def _rejoined(looks: list[list[LiveMember]], client: str = "a") -> int:
    one, parts = _Member(), _Parts(looks)
    parts_: Any = parts
    with pytest.raises(asyncio.CancelledError):
        await watch_group(parts_, "billing", client, 4, one)
    return one.rejoined


STUCK = [member("a"), member("b", 0, 1)]


async def test_a_member_joins_anew_when_nobody_has_had_a_partition_for_long() -> None:
    assert await _rejoined([STUCK] * 3) == 1


async def test_members_that_have_something_wait_for_those_that_have_nothing() -> None:
    assert await _rejoined([STUCK] * 3, "b") == 0
    assert await _rejoined([STUCK] * 4, "b") == 1


async def test_a_rebalance_that_ends_is_left_alone() -> None:
    whole = [member("a", 2, 3), member("b", 0, 1)]
    assert await _rejoined([STUCK, STUCK, whole, STUCK, STUCK, whole]) == 0


async def test_partitions_that_change_hands_are_no_standstill() -> None:
    other = [member("a"), member("b", 2, 3)]
    assert await _rejoined([STUCK, other, STUCK, other, STUCK]) == 0


def test_turns_go_round() -> None:
    members = [member("a"), member("b", 0), member("c", 1)]
    whose = ["".join(each.client for each in members if turn_to_rejoin(members, each.client, n)) for n in range(4)]
    assert whose == ["a", "b", "c", "a"]
    assert not turn_to_rejoin([], "a", 0)
