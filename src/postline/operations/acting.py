"""`Operations`: all that operators ask of subscriptions, and of topics: partitions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

from postline.contracts import PLACED_BY
from postline.errors import UsageError
from postline.log.needs import Repartitioning
from postline.log.planning import no_repartition
from postline.log.port import Bounds, Capability, PartitionInfo
from postline.monitor import Monitor, RecordId, SubscriptionView, TaskView, TopicView
from postline.operations.asking import Request
from postline.operations.deadletters import DeadLetterActs
from postline.runtime.control import CONTROL_POSITION, ControlOp, control_position
from postline.runtime.delays import DelayToken
from postline.runtime.entries import CONTROL, DEAD, HELD, TIMER_NOTES, USER_STATE, offset_of
from postline.runtime.placing import state_placer
from postline.runtime.plan import CONTROL_SUFFIX, DEAD_LETTER_SUFFIX
from postline.runtime.revoked import outcome_key

__all__ = ["Operations", "PartitionReset", "ResetPlan", "ResetTarget"]


@dataclass(frozen=True, kw_only=True)
class ResetTarget:
    """Where a reset goes: an offset of each partition, a time, or (neither) the end."""

    offset: int | None = None
    time_ms: int | None = None


class PartitionReset(msgspec.Struct, frozen=True, kw_only=True):
    """What a reset would do to one partition, as it stands now."""

    partition: int
    position: int
    target: int
    #: Offsets handled already that will be read again.
    read_again: int
    #: Offsets not handled yet that will never be.
    skipped: int
    #: Held records given up for good, counted as discarded.
    held_discarded: int
    #: Held records dropped because they are read again.
    held_read_again: int
    #: Dead letters dropped because they are read again.
    dead_letters_read_again: int
    dead_letters_kept: int
    #: Keys whose state is cleared.
    state_cleared: int


class ResetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a reset would do; `Operations.reset` does it."""

    subscription: str
    topic: str
    keep_state: bool
    partitions: list[PartitionReset]

    def total(self, field: str) -> int:
        """The sum of one field over the partitions."""
        return sum(getattr(each, field) for each in self.partitions)


class Operations(DeadLetterActs):
    """Asks owners for what operators want. `source` is shown as the author of the requests."""

    async def pause(self, subscription: str) -> Request:
        """Stop fetching, retries and redrives in all partitions. Raises UnknownSubscription."""
        return await self.ask_all(subscription, ControlOp(op="pause"))

    async def resume(self, subscription: str) -> Request:
        """Undo `pause`; what came due meanwhile runs. Raises UnknownSubscription."""
        return await self.ask_all(subscription, ControlOp(op="resume"))

    async def retry(self, subscription: str, records: Sequence[RecordId] = ()) -> Request:
        """Attempt these records, or all that wait for their next attempt, at once.

        For when what they failed by is mended: their ladders go on where they were. What waits behind another one of
        its key is left alone. Raises UnknownSubscription, and UsageError for a record that is not held.
        """
        if not records:
            return await self.ask_all(subscription, ControlOp(op="retry"))
        await self._require(subscription, records, (HELD,), "held record")
        return await self.ask(subscription, [(each, ControlOp(op="retry", offset=each.offset)) for each in records])

    async def cancel_task(self, subscription: str, task: TaskView) -> Request:
        """Ask that a task, or any command of a record and a client, not be begun. Raises UnknownSubscription."""
        op = ControlOp(op="cancel", client=task.client, request=task.request_id)
        return await self.ask(subscription, [(RecordId.parse(task.id), op)])

    async def cancel(self, token: str) -> Request:
        """Ask for a delayed message to be cancelled; `cancelled` tells how that ended, once it is `obeyed`.

        Raises UsageError for what is no token, UnknownSubscription.
        """
        named = DelayToken.read(token)
        partitions = {each.partition for each in await self._log.partitions(named.subscription)}
        if named.partition not in partitions:
            raise UsageError(
                f"Subscription {named.subscription!r} has no partition {named.partition}, which the token names.",
                remedy="Use the token with the log that it came from.",
            )
        return await self.ask(
            named.subscription, [(RecordId(named.partition, 0), ControlOp(op="unschedule", token=token))]
        )

    async def cancelled(self, token: str) -> bool:
        """Of an obeyed request, whether the message will not leave; False if it had left when the owner looked."""
        named, key = DelayToken.read(token), outcome_key(DelayToken.read(token).id)
        found = await self._log.peek_state(
            named.subscription, named.partition, TIMER_NOTES, after=key[:-1], limit=1 + key[-1]
        )
        return dict(found).get(key) == b"1"

    async def plan_reset(
        self,
        subscription: str,
        target: ResetTarget,
        *,
        keep_state: bool = False,
        partitions: Sequence[int] | None = None,
    ) -> ResetPlan:
        """What a reset would do, for confirmation. Raises UnknownSubscription, UsageError for a missing partition."""
        info = await Monitor(self._log, self._clock).info(subscription)
        stored = {each.partition: each for each in await self._log.partitions(subscription)}
        chosen = sorted(stored) if partitions is None else sorted(set(partitions))
        if unknown := [number for number in chosen if number not in stored]:
            raise UsageError(
                f"Subscription {subscription!r} has no partition {unknown[0]}.",
                remedy=f"It has 0 to {len(stored) - 1}.",
            )
        bounds = await self._log.bounds(info.topic)
        resets = []
        for number in chosen:
            offset = await self._target(info.topic, number, bounds[number], target)
            resets.append(await self._partition_reset(subscription, stored[number], offset, keep_state))
        return ResetPlan(subscription=subscription, topic=info.topic, keep_state=keep_state, partitions=resets)

    async def _target(self, topic: str, partition: int, bounds: Bounds, target: ResetTarget) -> int:
        wanted = bounds.end if target.offset is None else target.offset
        if target.time_ms is not None:
            wanted = await self._log.offset_at(topic, partition, target.time_ms)
        return min(max(wanted, bounds.start), bounds.end)

    async def _partition_reset(self, name: str, info: PartitionInfo, target: int, keep_state: bool) -> PartitionReset:
        held = [offset_of(key) for key in await self._keys(name, info.partition, HELD)]
        dead = [offset_of(key) for key in await self._keys(name, info.partition, DEAD)]
        return PartitionReset(
            partition=info.partition,
            position=info.position,
            target=target,
            read_again=max(0, info.position - target),
            skipped=max(0, target - info.position),
            held_discarded=sum(offset < target for offset in held),
            held_read_again=sum(offset >= target for offset in held),
            dead_letters_read_again=sum(offset >= target for offset in dead),
            dead_letters_kept=sum(offset < target for offset in dead),
            state_cleared=0 if keep_state else len(await self._keys(name, info.partition, USER_STATE)),
        )

    async def _keys(self, name: str, partition: int, namespace: str) -> list[bytes]:
        found: list[bytes] = []
        while page := await self._log.peek_state(name, partition, namespace, after=found[-1] if found else b""):
            found += [key for key, _ in page]
        return found

    async def reset(self, plan: ResetPlan) -> Request:
        """Move the positions to the plan's targets; counts begin anew. Raises UnknownSubscription."""
        ops = [
            (
                RecordId(each.partition, each.target),
                ControlOp(op="reset", offset=each.target, keep_state=plan.keep_state),
            )
            for each in plan.partitions
        ]
        return await self.ask(plan.subscription, ops)

    async def remove(self, subscription: str) -> None:
        """Forget positions, held records, dead letters' status and state, for good.

        The copies on its dead-letters topic stay. Raises UnknownSubscription; UsageError while a worker runs.
        """
        await self._log.remove_subscription(subscription)

    # -- partitions ---------------------------------------------------------------------------

    async def plan_repartition(self, topic: str, partitions: int, look_seconds: float) -> Repartitioning:
        """What giving the topic so many partitions comes to. Raises UsageError with all that is against it now.

        With the number that it has, what was begun and did not end is taken back.
        """
        if Capability.REPARTITIONS not in self._log.capabilities:
            raise no_repartition(self._log.address)
        monitor = Monitor(self._log, self._clock)
        view = await monitor.topic(topic)
        views = [each for each in await monitor.subscriptions() if each.topic == topic]
        before = len(views[0].partitions) if views and not view.owner else view.partitions
        problems = [] if partitions == before else await self._against(view, views, before, partitions)
        if problems:
            raise UsageError(
                "\n".join([f"Topic {topic!r} can't be given {partitions} partitions:", *problems]),
                remedy="Mend what is listed above, then try again.",
            )
        return Repartitioning(
            topic=topic,
            before=before,
            partitions=partitions,
            subscriptions={each.name: (each.name + CONTROL_SUFFIX, each.name + DEAD_LETTER_SUFFIX) for each in views},
            ends=tuple(each.end for each in view.bounds[:before]),
            look_seconds=look_seconds,
        )

    async def repartition(self, plan: Repartitioning) -> None:
        """Do what is planned; interrupted, it is gone on with by planning and calling again.

        Raises UsageError, with positions and state as before, if somebody publishes or works meanwhile.
        """
        ends = [each.end for each in await self._log.bounds(plan.topic)]
        await self._log.repartition(plan, state_placer(plan.before, plan.partitions, ends))

    async def _against(
        self, topic: TopicView, subscriptions: Sequence[SubscriptionView], before: int, wanted: int
    ) -> list[str]:
        """All reasons why not."""
        if wanted < before:
            return [f"- it has {before}, and can't have fewer: what lies in the others would be lost, and keys' order."]
        found = []
        if wanted < len(topic.bounds):
            found.append(f"- others have given it {len(topic.bounds)} already, which can't be taken back: use these.")
        for view in subscriptions:
            found += [f"- subscription {view.name!r} {each}" async for each in self._unsettled(view)]
            if PLACED_BY in topic.key and await self._has_state(view):
                found.append(
                    f"- subscription {view.name!r} keeps state by key, but the topic's records are placed otherwise"
                    f" ({topic.key}), so that nobody can tell where a key's state belongs: declare a new topic."
                )
        return found

    async def _unsettled(self, view: SubscriptionView) -> AsyncIterator[str]:
        if view.members:
            yield f"has {len(view.members)} live members: stop the service that runs it."
        waiting = 0
        for each in view.partitions:
            waiting += len(await self._log.read(view.topic, each.partition, each.position, limit=100))
        if waiting:
            yield f"has {waiting} records or more to read yet: let it catch up."
        if view.held:
            yield f"holds {view.held} records: let them end, redrive or discard what they wait for."
        letters = await Monitor(self._log, self._clock).dead_letters(view.name)
        stateful = bool(letters) and await self._has_state(view)
        if bad := [each for each in letters if each.holds or stateful]:
            yield f"has {len(bad)} dead letters that belong to their key's place: redrive or discard them."
        if asked := await self._not_obeyed(view):
            yield f"has {asked} requests of operators to obey: run the service until it has."

    async def _has_state(self, view: SubscriptionView) -> bool:
        for each in view.partitions:
            if await self._log.peek_state(view.name, each.partition, USER_STATE, limit=1):
                return True
        return False

    async def _not_obeyed(self, view: SubscriptionView) -> int:
        topic, count = view.name + CONTROL_SUFFIX, 0
        for each in view.partitions:
            kept = dict(await self._log.peek_state(view.name, each.partition, CONTROL))
            first = control_position(kept.get(CONTROL_POSITION), topic)
            if first is None:
                first = await self._log.offset_at(topic, each.partition, view.created_ms)
            count += len(await self._log.read(topic, each.partition, first, limit=100))
        return count
