"""Noticing a group that stands still: partitions that nobody has, for longer than any rebalance takes.

With the newer group protocol a coordinator waits for a member to confirm what it gave up, while that member, whose word
was lost with the coordinator before, believes that it has said so: nobody would ever own those partitions. A member
that joins anew ends it; members do so one after another, so that the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from postline.errors import LogError
from postline.log.kafka.groups import LiveMember
from postline.log.kafka.parts import Parts
from postline.logs.events import event

__all__ = ["Rejoining", "turn_to_rejoin", "watch_group"]

_log = logging.getLogger("postline.log.kafka")

_LOOK_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
#: So many looks in a row must find the same.
_LOOKS = 3


class Rejoining(Protocol):
    """Whoever can leave the group and join it again."""

    def rejoin(self) -> None:
        """Leave and join, soon."""


async def watch_group(parts: Parts, group: str, client: str, partitions: int, member: Rejoining) -> None:
    """Look again and again; have `member`, whose client id is `client`, join anew when it is its turn to."""
    cluster, looks, before = parts.cluster, 0, frozenset[int]()
    while True:
        await cluster.clock.sleep(_LOOK_SECONDS)
        try:
            members = await cluster.run(parts.groups.members, group, _ANSWER_SECONDS)
        except LogError:
            continue  # what can't be seen may be well
        nobodys = frozenset(range(partitions)).difference(*(each.partitions for each in members))
        looks = looks + 1 if nobodys and nobodys & before else int(bool(nobodys))
        before = nobodys
        if looks >= _LOOKS and turn_to_rejoin(members, client, looks - _LOOKS):
            _log.error(
                "subscription %s: nobody has had partitions %s for %.0f s: this member joins the group anew",
                *(group, sorted(nobodys), (looks - 1) * _LOOK_SECONDS),
                extra=event("partitions.nobodys", subscription=group, partitions=sorted(nobodys)),
            )
            member.rejoin()


def turn_to_rejoin(members: Sequence[LiveMember], client: str, turn: int) -> bool:
    """Whether this member is the one whose turn it is: each in the order of ids, those with nothing first."""
    order = sorted(members, key=lambda each: (bool(each.partitions), each.member))
    return bool(order) and order[turn % len(order)].client == client
