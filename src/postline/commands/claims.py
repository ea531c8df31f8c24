"""Who serves what of a command topic: claims kept beside the schemas, so that no two services have one command."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgspec

from postline.contracts.rules import Rule, disjoint
from postline.errors import ContractError, SubscriptionConflict, UnknownTopic
from postline.log.port import Append, Log
from postline.message import UNREADABLE, Envelope

__all__ = ["Claim", "Claims"]

_KIND = "claim"
#: Between a claim and the subscription that it is for.
_MADE_WITHIN_MS = 60_000


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one serving subscription handles of a command topic."""

    topic: str
    subscription: str
    service: str
    #: The rule of each command, as data; None for all commands of the type.
    commands: dict[str, Any]
    #: Whatever comes, also what no version handles yet.
    everything: bool = False


class _Entry(msgspec.Struct, frozen=True):
    """A record of the topic. It has no `document`, by which schemas are known."""

    kind: str
    claim: Claim


class _Standing(NamedTuple):
    """A claim as it lies in the log."""

    offset: int
    time_ms: int
    claim: Claim


class Claims:
    """Claims in the topic of the schemas. Event loop only."""

    def __init__(self, log: Log, topic: str, new_id: Callable[[], str]) -> None:
        self._log, self._topic, self._new_id = log, topic, new_id

    async def take(self, claim: Claim, *, aliases: Collection[str] = (), takes_over: str = "", now_ms: int) -> None:
        """Claim commands. Of two that claim one at the same moment the earlier in the log has it.

        A claim counts for as long as its subscription is there, and for the minute in which that may still be made.
        `aliases` are names that the subscription had. Raises SubscriptionConflict if another subscription has a command
        of the claim, or another service this one; what stood before stands then.
        """
        there, alive = await self._claims(), {info.name for info in await self._log.subscriptions()}
        before = there.get(claim.subscription)
        ours = (claim.service, takes_over)
        if before is not None and claim.subscription in alive and before.claim.service not in ours:
            raise _conflict(claim, before.claim, _overlap(claim, before.claim) or "anything")
        if before is None or before.claim != claim:
            await self._log.append([self._append(claim.subscription, claim)])
            there = await self._claims()
        mine = there[claim.subscription].offset
        for name, other in there.items():
            if other.claim.topic != claim.topic or name == claim.subscription or name in aliases or other.offset > mine:
                continue
            standing = name in alive or other.time_ms > now_ms - _MADE_WITHIN_MS
            if standing and (overlap := _overlap(claim, other.claim)):
                await self._log.append([self._append(claim.subscription, None if before is None else before.claim)])
                raise _conflict(claim, other.claim, overlap)

    async def first_of(self, topic: str, command: str) -> str:
        """By name the first of the subscriptions that claim a command, by whatever rule; "" if there are none."""
        alive = {info.name for info in await self._log.subscriptions()}
        standing = (each.claim for each in (await self._claims()).values())
        names = (each.subscription for each in standing if each.topic == topic and command in each.commands)
        return min((name for name in names if name in alive), default="")

    async def _claims(self) -> dict[str, _Standing]:
        """Each subscription's claim, and where and when it was made."""
        found: dict[str, _Standing] = {}
        offset = 0
        while records := await self._read(offset):
            for record in records:
                key = (record[2] or b"").decode("utf-8", "replace")
                if not key.startswith(f"{_KIND}/"):
                    continue
                name, claim = key.removeprefix(f"{_KIND}/"), _claim_in(record[4])
                if claim is None:
                    found.pop(name, None)
                else:
                    found[name] = _Standing(record[0], record[1], claim)
            offset = records[-1][0] + 1
        return found

    async def _read(self, offset: int) -> list[Any]:
        try:
            return await self._log.read(self._topic, 0, offset)
        except UnknownTopic:
            return []

    def _append(self, subscription: str, claim: Claim | None) -> Append:
        value = None if claim is None else msgspec.json.encode(_Entry(_KIND, claim))
        envelope = Envelope(id=self._new_id(), source="postline.commands", type="postline.Claim")
        return Append(self._topic, 0, f"{_KIND}/{subscription}".encode(), value, envelope)


def _claim_in(value: bytes | None) -> Claim | None:
    try:
        return None if value is None else msgspec.json.decode(value, type=_Entry).claim
    except UNREADABLE:
        return None  # what a newer version writes


def _overlap(one: Claim, other: Claim) -> str:
    """A command that both may have; "" if none can be."""
    if one.everything or other.everything:
        return next(iter(sorted({*one.commands, *other.commands})), "anything")
    for name in sorted(one.commands.keys() & other.commands.keys()):
        if not _apart(one.commands[name], other.commands[name]):
            return name
    return ""


def _apart(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return False
    try:
        return disjoint(Rule.from_data(one), Rule.from_data(other))
    except ContractError:
        return False  # a rule of a newer version


def _conflict(claim: Claim, other: Claim, command: str) -> SubscriptionConflict:
    return SubscriptionConflict(
        f"Service {claim.service!r} can't serve {command!r} of {claim.topic!r}: service {other.service!r} does, by "
        f"subscription {other.subscription!r}.",
        remedy="Give both `serve(…, name=…)` and handlers with `where=` rules that exclude each other; take the other "
        f"over (`serve(…, takes_over={other.service!r})`); or remove the subscription if nobody serves it any more.",
    )
