"""One subscription at work in this process: joins its group, fetches, hands to workers, commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from postline.errors import LogError, PostlineError
from postline.log.port import Assignment, Fetched, GroupSpec, Membership, PartitionCommit
from postline.runtime.admission import admit
from postline.runtime.causes import Causes
from postline.runtime.commits import Committer
from postline.runtime.control import (
    CONTROL_POSITION,
    ControlOp,
    cancel_record,
    end_old_control,
    load_control,
    obey,
    position_entry,
    read_op,
)
from postline.runtime.crew import Crew
from postline.runtime.deadlines import DeadlineSweeper
from postline.runtime.entries import CONTROL, FORMATS
from postline.runtime.first import first_of
from postline.runtime.heeding import Heeding, until
from postline.runtime.partition import OwnedPartition
from postline.runtime.reset import reset_commit
from postline.runtime.restraint import REASON, Restraint
from postline.runtime.surroundings import Surroundings
from postline.runtime.watchdog import Watchdog
from postline.runtime.workers import WorkerPool

__all__ = ["Consumer"]

T = TypeVar("T")

#: Lanes that may lie ready while more is fetched.
_READY_LANES_MAX = 64
#: So long a request for many records keeps the next one waiting; and so much of it is committed by itself.
_CROWDED_SECONDS = 1.0
_CHANGES_MAX = 20_000
_FETCH_WAIT_SECONDS = 5.0
#: How long a partition that must move may still work on what it began (DESIGN §8).
_REVOKE_SECONDS = 1.5
#: And how long its last commit may take then; engines give up on us soon after.
_LAST_COMMIT_SECONDS = 0.75
_STOP_COMMIT_SECONDS = 5.0
_RETRY_SECONDS_MAX = 5.0


class Consumer:
    """Runs one subscription until it is stopped; implements the port's `PartitionOwner`.

    `failed` resolves with the error if it can't go on; the app then stops.
    """

    def __init__(self, around: Surroundings, executor: Executor, instance: str, crew: Crew | None = None) -> None:
        self.around = around
        self.plan = around.plan
        around.cancellation = cancel_record
        self.owned: dict[int, OwnedPartition] = {}
        self.membership: Membership | None = None
        self.failed: asyncio.Future[BaseException] | None = None
        self.pool = WorkerPool(self.plan, executor, self._settled, self._fail, crew)
        self._instance = instance
        #: Fetched and not yet settled: how many, and about how many bytes they keep in memory.
        self._in_flight, self._in_flight_bytes = 0, 0.0
        self._room = asyncio.Event()
        self._changed = asyncio.Event()
        self._committer = Committer(around, self._partitions, self._busy, self._after_commit, self._fail)
        #: What keeps it from going on, as other processes read it.
        self.causes = Causes(around.clock, self._partitions, self._committer.wake, set(self.pool.circuits.values()))
        #: None where no topic has a bound.
        self.restraint: Restraint | None = None
        if around.gates.bounded:
            self.restraint = Restraint(self.plan, around, self._partitions, self.causes, self._fail)
            self._committer.on_appends = self.restraint.note
        self._sweeper = DeadlineSweeper(self.plan, around.clock, self.pool)
        self._watchdog = Watchdog(self.plan, around.clock, self.pool, self.causes)
        self._tasks: list[asyncio.Task[None]] = []
        self._heeding = Heeding(around.clock)
        #: So many lanes may lie ready when there is room again.
        self._ready_max = _READY_LANES_MAX
        #: Redriven records wait for workers, and did so for longer than anybody waits for that.
        self._crowded = False
        self._stopping = False
        #: By partition, the last epoch that is known to be over.
        self._over: dict[int, int] = {}
        #: The group has said at least once which partitions are ours.
        self._met_group = False

    # -- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the group and begin. Raises what joining raises."""
        plan = self.plan
        self.failed = asyncio.get_running_loop().create_future()
        spec = GroupSpec(
            subscription=plan.name,
            topic=plan.topic,
            service=plan.service,
            start=plan.start,
            aliases=plan.aliases,
            takes_over=plan.takes_over,
            instance=self._instance,
            formats=FORMATS,
        )
        self.membership = self._committer.membership = await self.around.log.join(spec, self)
        self._tasks = [
            asyncio.create_task(self._guard(self._fetch), name=f"{plan.name} fetch"),
            asyncio.create_task(self._guard(self._committer.run), name=f"{plan.name} commit"),
        ]
        self._sweeper.start()
        if self.around.watches:
            self._watchdog.start()
        self.around.life.joined()

    async def stop(self, grace_seconds: float) -> None:
        """Stop fetching, let attempts that run end within `grace_seconds`, commit, leave. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self._sweeper.stop()
        if self.membership is not None:
            fetching = self._tasks[0]
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)
            await self._drain(list(self.owned.values()), grace_seconds, _STOP_COMMIT_SECONDS)
            if self.failed is not None and not self.failed.done():
                await self.membership.leave()
                self.around.life.left()
        await self.abort()

    async def abort(self) -> None:
        """Let go of everything at once; what was not committed will be handled again."""
        self._stopping = True
        self._sweeper.stop()
        self._watchdog.stop()
        self.causes.close()
        if self.restraint is not None:
            self.restraint.close()
        for owned in self.owned.values():
            owned.halt()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._committer.abort()
        await self.pool.stop()

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - reported by whoever watches `failed`
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.failed is not None and not self.failed.done():
            self.failed.set_result(error)

    # -- the group ----------------------------------------------------------------------------

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Take up partitions where their last owner left them."""
        for assignment in assignments:
            await self._take_up(assignment)
        self.around.life.assigned([each for each in assignments if each.partition in self.owned])
        self._committer.wake()
        self._met_group = True

    async def _take_up(self, assignment: Assignment) -> None:
        if assignment.reset_to is not None:
            moved = await self._rebased(assignment, assignment.reset_to)
            if moved is None:
                return
            assignment = moved
        membership = self.membership or self._committer.membership
        assert membership is not None, "the engine assigns after join has returned"

        async def load() -> OwnedPartition:
            owned = OwnedPartition(self.around, assignment, membership, self.pool.enqueue)
            try:
                await load_control(owned)  # a pause must be known before what is held comes back
                self.causes.take_up(owned)
                await owned.load()
            except BaseException:
                owned.halt()
                raise
            return owned

        owned = await self._until_done(load)
        if assignment.epoch <= self._over.get(assignment.partition, -1):
            owned.halt()  # it was lost while it was being loaded, and may even be back under a newer epoch
            return
        self.owned[assignment.partition] = owned
        if self.restraint is not None:
            self.restraint.take_up(owned)
        if owned.answers is not None or owned.timers.upcoming.entries:
            await self._until_done(partial(self._obey_what_waits, owned))
            owned = self.owned.get(assignment.partition, owned)  # a reset among it began anew
        membership.follow(owned.assignment, owned.control_topic, owned.control_offset)
        owned.timers.begin(self._committer.wake, self._fail)
        owned.aging.begin(self._committer.wake, self._fail)

    async def _obey_what_waits(self, owned: OwnedPartition) -> None:
        """Obey what was asked while nobody was here, before commands are fetched or timers fire: some are cancelled."""
        partition = owned.partition
        while self.owned.get(partition) is owned:
            topic = owned.control_topic  # after a rename another one, once the old one's rest is obeyed
            records = await self.around.log.read(topic, partition, owned.control_offset)
            if not records:
                return
            await self._control(owned, Fetched(owned.assignment, topic, records, records[-1][0] + 1, 0))

    async def _rebased(self, assignment: Assignment, target: int) -> Assignment | None:
        """The assignment after a reset to where another program moved its position; None if it is over by now.

        The reset is the first commit of the assignment: another one before it would hide the move from whoever comes
        next if this process died in between.
        """
        self.around.life.moved_by_others(assignment, target)
        membership = self._committer.membership
        assert membership is not None, "the engine assigns after join has returned"

        async def prepare() -> tuple[PartitionCommit, Assignment]:
            owned = OwnedPartition(self.around, assignment, membership, self.pool.enqueue)
            owned.halt()
            await load_control(owned)
            return await reset_commit(
                owned, ControlOp(op="reset", offset=target, keep_state=True), owned.control_offset
            )

        commit, moved = await self._until_done(prepare)
        if await self._committer.commit_alone(commit):
            return None
        membership.seek(moved, moved.position)
        return moved

    async def revoked(self, assignments: Sequence[Assignment]) -> None:
        """Settle and commit what is in hand, then let go."""
        leaving = [self.owned[a.partition] for a in assignments if a.partition in self.owned]
        await self._drain(leaving, _REVOKE_SECONDS)
        self._close(assignments)
        for owned in leaving:
            self._forget(owned)
        self.around.life.revoked([owned.assignment for owned in leaving])

    def lost(self, assignments: Sequence[Assignment]) -> None:
        """Drop partitions that have a newer owner."""
        self._close(assignments)
        for assignment in assignments:
            owned = self.owned.get(assignment.partition)
            if owned is not None and owned.assignment.epoch == assignment.epoch:
                self.around.life.lost(owned.partition)
                self._forget(owned)

    def _close(self, assignments: Sequence[Assignment]) -> None:
        for each in assignments:
            self._over[each.partition] = max(each.epoch, self._over.get(each.partition, -1))

    def _after_commit(self, refused: Sequence[Assignment]) -> None:
        self.lost(refused)
        if self._in_flight:
            self._recount()  # what was not told of as settled, such as what is held, is counted out
        else:
            self._in_flight_bytes = 0.0
            self._room.set()

    def _forget(self, owned: OwnedPartition) -> None:
        owned.halt()
        self.pool.drop_attempts(owned)
        if self.owned.get(owned.partition) is owned:
            del self.owned[owned.partition]
        self._recount()

    async def _drain(
        self, leaving: Sequence[OwnedPartition], seconds: float, commit_seconds: float | None = _LAST_COMMIT_SECONDS
    ) -> None:
        """Begin nothing more of these, wait for what runs, halt, and commit what settled (None: however long)."""
        for owned in leaving:
            owned.draining = True
        over = asyncio.Event()
        timer = self.around.clock.call_later(seconds, over.set)
        # What still runs of a halted one is dropped when it ends: nobody need wait for it.
        while any(owned.running and not owned.halted for owned in leaving) and not over.is_set():
            self._changed.clear()
            await first_of(self._changed, over)
        timer.cancel()
        for owned in leaving:
            owned.halt()
            self.pool.drop_attempts(owned)
        await (self._committer.commit() if commit_seconds is None else self._commit_within(commit_seconds))

    async def _commit_within(self, seconds: float) -> None:
        """Commit what settled; wait for it only so long, so that a log that can't write holds up no stop."""
        over = asyncio.Event()
        timer = self.around.clock.call_later(seconds, over.set)
        commit = self._committer.begin()
        waiting = asyncio.ensure_future(over.wait())
        try:
            await asyncio.wait((commit, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiting.cancel()
        if not commit.done():
            # It goes on, since it holds what other partitions settled; those that leave may be fenced by then.
            self.around.life.commit_is_late()

    # -- fetching -----------------------------------------------------------------------------

    async def _fetch(self) -> None:
        membership, plan = self.membership, self.plan
        assert membership is not None
        while True:
            await self._wait_for_room()
            fetch = partial(membership.fetch, plan.fetch_records, plan.fetch_bytes, _FETCH_WAIT_SECONDS)
            batches = await self._until_done(fetch)
            standing = dict(self.owned)
            for fetched in batches:
                # A reset among them makes the partition's others stale: it goes on elsewhere.
                if standing.get(fetched.assignment.partition) is self.owned.get(fetched.assignment.partition):
                    # Taken in again and again if the log can't answer: these records are never fetched again.
                    await self._until_done(partial(self._take_in, fetched))
            if batches:
                await self._heed()
            self._recount()

    async def _until_done(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the log, again after a while if it is only unavailable for now."""
        delay = 0.1
        while True:
            try:
                return await ask()
            except LogError as error:
                if not error.retryable:
                    raise
                self.around.life.reads_again(delay, error)
                await self.around.clock.sleep(delay)
                delay = min(delay * 2, _RETRY_SECONDS_MAX)

    async def _take_in(self, fetched: Fetched) -> None:
        owned = self.owned.get(fetched.assignment.partition)
        if owned is None or owned.draining or owned.assignment.epoch != fetched.assignment.epoch:
            return
        if fetched.topic == owned.control_topic and fetched.next_offset > owned.control_offset:
            await self._control(owned, fetched)
        if fetched.topic != self.plan.topic:
            return
        await admit(owned, fetched)
        if owned.unit:
            self._committer.wake()
        # Workers get the loop before more is fetched, although fetching need not wait.
        await asyncio.sleep(0)

    async def _wait_for_room(self) -> None:
        plan = self.plan
        while (
            len(self.pool.ready) > _READY_LANES_MAX
            or self._in_flight >= plan.in_flight_records_max
            or self._in_flight_bytes >= plan.in_flight_bytes_max
        ):
            self._room.clear()
            await self._heeding.wait(self._room)
            await self._heed()

    async def _heed(self) -> None:
        """Now and then obey what is asked, though records lie ready, which may be fetched before it for ever."""
        if not self._heeding.is_due():
            return
        ends = await self._until_done(partial(self.around.log.bounds, self.plan.control))
        for owned in self._partitions():
            own = owned.control_topic == self.plan.control and not owned.draining
            if own and owned.control_offset < ends[owned.partition].end:
                await self._until_done(partial(self._obey_what_waits, owned))

    def _settled(self, number: int) -> None:
        """Workers report so many settled records, or (0) that a lane left their hands."""
        self._in_flight -= number
        self._committer.settled(number)
        if not self._room.is_set() and len(self.pool.ready) <= self._ready_max:
            self._room.set()
        if number == 0 and not self._changed.is_set():
            self._changed.set()

    def _recount(self) -> None:
        self._in_flight, self._in_flight_bytes = 0, 0.0
        for owned in self.owned.values():
            records, size = owned.window.in_memory()
            self._in_flight += records
            self._in_flight_bytes += size
        self._room.set()

    def _partitions(self) -> list[OwnedPartition]:
        return list(self.owned.values())

    def _busy(self) -> bool:
        return self.pool.running > 0 or bool(self.pool.ready)

    # -- control ------------------------------------------------------------------------------

    async def _control(self, owned: OwnedPartition, fetched: Fetched) -> None:
        for record in fetched.records:
            if record[0] < owned.control_offset:
                continue
            try:
                op = read_op(record)
            except PostlineError as error:
                self.around.life.skips_control(owned.partition, error)
                continue
            if op.op == "reset":
                await self._reset(owned, op, record[0] + 1)
                now = self.owned.get(owned.partition)
                if now is None or now.assignment.epoch != owned.assignment.epoch:
                    return  # whoever has it by now obeys the rest
                if now.control_topic != fetched.topic:
                    return  # the reset was the last that was asked under an old name
                owned = now
            else:
                await obey(owned, op)
            owned.control_offset = record[0] + 1
            if op.offsets:
                # With its effects, since both may be committed before the next.
                owned.unit.put(CONTROL, CONTROL_POSITION, position_entry(owned.control_offset, fetched.topic))
                self._committer.wake()
                await self._between_many(owned)
                if owned.draining or self.owned.get(owned.partition) is not owned:
                    return
        owned.control_offset = fetched.next_offset
        owned.unit.put(CONTROL, CONTROL_POSITION, position_entry(fetched.next_offset, fetched.topic))
        if await end_old_control(owned):
            assert self.membership is not None
            self.membership.follow(owned.assignment, owned.control_topic, owned.control_offset)
        self._recount()
        self._committer.wake()

    async def _between_many(self, owned: OwnedPartition) -> None:
        """After a request for many records: let most of them get to workers, and commit where much has gathered.

        Records that are slow don't keep other requests waiting for more than a second: those that follow then wait by
        their offsets, as `Holding.at_hand` has no room.
        """
        if len(owned.unit.changes) > _CHANGES_MAX:
            await self._committer.commit()
        if self._tasks and asyncio.current_task() is self._tasks[0] and not self._crowded:
            clock, ready = self.around.clock, self.pool.ready
            await until(lambda: len(ready) <= _READY_LANES_MAX, self._room, clock, _CROWDED_SECONDS)
            if owned.holding.hand.pending > _READY_LANES_MAX:
                self._ready_max = 0
                await until(lambda: len(ready) == 0, self._room, clock, self.plan.commit_linger_seconds)
                self._ready_max = _READY_LANES_MAX
                # A commit that is due comes now: it finds most of them ended, and need not write them down.
                await asyncio.sleep(0)
        self._crowded = len(self.pool.ready) > _READY_LANES_MAX

    async def _reset(self, owned: OwnedPartition, op: ControlOp, control_offset: int) -> None:
        # All of it is committed first: what were left would land after the reset, under the same epoch.
        await self._drain([owned], _REVOKE_SECONDS, None)
        assert self.membership is not None
        # The partition is halted by now, so a log that can't answer is asked until it can.
        commit, moved = await self._until_done(partial(reset_commit, owned, op, control_offset))
        if await self._committer.commit_alone(commit):
            return
        self.membership.resume(moved)
        self.membership.seek(moved, moved.position)
        await self._take_up(moved)

    # -- for tests and operators --------------------------------------------------------------

    @property
    def joined(self) -> bool:
        """Whether the group knows us; it may have more members than partitions."""
        return self.membership is not None and not self._stopping

    @property
    def uncommitted(self) -> bool:
        """Whether anything waits to be committed, or is being committed."""
        return self._committer.pending()

    async def caught_up(self) -> bool:
        """Whether all of the partitions owned here is settled or held, and committed; nothing is running."""
        if not self._met_group or self._busy() or self._committer.pending() or self.membership is None:
            return False
        ends = await self.around.log.bounds(self.plan.topic)
        control = await self.around.log.bounds(self.plan.control)
        for owned in self.owned.values():
            behind = owned.window.fetched_to < ends[owned.partition].end and not owned.paused_but_for(REASON)
            asked = owned.control_topic != self.plan.control or owned.control_offset < control[owned.partition].end
            if behind or owned.window.pending() or asked or owned.timers.busy or owned.aging.busy:
                return False
        return not (self._busy() or self._committer.pending())
