"""Placeholder until the group half takes this file over: joining groups."""

from __future__ import annotations

from postline.log.port import GroupSpec, MemberInfo, Membership, PartitionOwner
from postline.log.sqlite.storage import Storage

__all__ = ["join", "live_members"]


async def join(storage: Storage, spec: GroupSpec, owner: PartitionOwner) -> Membership:
    """Join a subscription's group, creating the subscription if it is new."""
    raise NotImplementedError


def live_members(storage: Storage, subscription: str) -> list[MemberInfo]:
    """The live members of a subscription's group."""
    raise NotImplementedError
