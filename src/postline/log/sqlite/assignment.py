"""Which live member should own which partition: a pure function that every member computes alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import blake2b

__all__ = ["target"]


def target(current: Mapping[int, str | None], members: Collection[str], salt: str) -> dict[int, str | None]:
    """The member for each partition of `current`, which says who is meant to have it now.

    Shares differ by one at most, and no partition moves that need not. Applying it to its own
    result changes nothing. `salt` (the subscription's name) spreads the larger shares, so that a
    member isn't first everywhere. Without members nobody owns anything.
    """
    if not members:
        return dict.fromkeys(current)
    kept: dict[str, list[int]] = {member: [] for member in members}
    for partition in sorted(current):
        owner = current[partition]
        if owner in kept:
            kept[owner].append(partition)
    quotas = _quotas(kept, len(current), salt)
    result: dict[int, str | None] = {}
    for member, quota in quotas:
        result.update(dict.fromkeys(kept[member][:quota], member))
    free = [partition for partition in sorted(current) if partition not in result]
    for member, quota in quotas:
        for _ in range(quota - min(quota, len(kept[member]))):
            result[free.pop(0)] = member
    return result


def _quotas(kept: Mapping[str, list[int]], partitions: int, salt: str) -> list[tuple[str, int]]:
    """How many each may have: those that have most get the larger shares, so that least moves."""
    order = sorted(kept, key=lambda member: (-len(kept[member]), _rank(salt, member), member))
    share, larger = divmod(partitions, len(order))
    return [(member, share + (place < larger)) for place, member in enumerate(order)]


def _rank(salt: str, member: str) -> bytes:
    return blake2b(f"{len(salt)}:{salt}{member}".encode(), digest_size=8).digest()
