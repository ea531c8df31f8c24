"""One simulated world: processes that run programs on one cluster, a nemesis, and the verdict at the end."""

from __future__ import annotations

import asyncio
import gc
import random
import traceback
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from postline.ids import IdSource
from postline.log.port import Assignment, Record, TopicSpec
from tests.simulation.checks import Execution, History, Identity, Problem, StoredRecord
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.engine import SimulatedLog
from tests.simulation.faults import FaultPlan, Faults, Trace
from tests.simulation.loop import LoopClock, Process, SimulationError, SimulationLoop, WallClock

__all__ = ["Node", "Program", "Result", "World"]

_TICK_SECONDS = 0.1
#: A process that was killed starts again within this time.
_RESTART_SECONDS = 2.0


@dataclass
class Node:
    """One process of the world, in one of its lives, and what a program in it may use."""

    world: World
    name: str
    process: Process
    clock: LoopClock
    log: SimulatedLog
    random: random.Random
    ids: IdSource
    #: Set when the world wants the program to come to its end.
    stopping: asyncio.Event

    @property
    def history(self) -> History:
        """Where programs note what they did."""
        return self.world.history

    def executed(self, assignment: Assignment, identity: Identity, ok: bool) -> None:
        """Note that a handler ended under this assignment."""
        slot = self.world.cluster.subscription(assignment.subscription).slots[assignment.partition]
        stale = slot.epoch != assignment.epoch or slot.free
        place = (assignment.partition, assignment.epoch, self.process.name)
        self.world.history.executed(Execution(assignment.subscription, identity, ok, *place, stale))
        self.trace("handled", assignment.partition, *identity, ok)

    async def until_set(
        self, event: asyncio.Event, failure: Awaitable[BaseException], seconds: float | None = None
    ) -> None:
        """Wait for the event, at most some seconds, unless `failure` gives an error, which is raised."""
        failing = asyncio.ensure_future(failure)
        stopping = asyncio.ensure_future(event.wait())
        await asyncio.wait((failing, stopping), return_when=asyncio.FIRST_COMPLETED, timeout=seconds)
        stopping.cancel()
        if failing.done():
            raise failing.result()
        failing.cancel()

    def trace(self, *what: object) -> None:
        """Note an event of this node."""
        self.world.note(self.process.name, *what)


#: What a process does; it is started again from the beginning after each death, until it returns.
Program = Callable[[Node], Awaitable[None]]


@dataclass
class Result:
    """How a run ended. Equal digests: equal runs."""

    seed: int
    problems: list[Problem]
    digest: str
    virtual_seconds: float
    faults: dict[str, int] = field(default_factory=dict)
    trace: list[str] | None = None

    def __str__(self) -> str:
        verdict = "; ".join(map(str, self.problems)) or "sound"
        return f"seed {self.seed}: {verdict} ({self.virtual_seconds:.1f} s, {self.digest}, {self.faults})"


class World:
    """A cluster, its processes and everything that happens to them, all of it decided by the seed.

    Make topics, `add` programs, then `run` once.
    """

    def __init__(self, seed: int, plan: FaultPlan | None = None, *, keep_trace: bool = False, mutant: str = "") -> None:
        self.seed = seed
        self.plan = FaultPlan.by_seed(seed) if plan is None else plan
        self.random = random.Random(f"world {seed}")
        self.faults = Faults(self.plan, random.Random(f"faults {seed}"))
        order = "interleaved" if self.plan.interleaved else "fifo"
        lateness = self.faults.lateness if self.plan.timer_late_share else None
        self.loop = SimulationLoop(random.Random(f"order {seed}"), order=order, lateness=lateness)
        self.wall = WallClock(self.loop)
        self.cluster = SimulatedCluster(mutant=mutant)
        self.history = History()
        self.stopping = asyncio.Event()
        #: Set when the faults are over.
        self.calm = asyncio.Event()
        self.events = Trace(keep=keep_trace)
        self.cluster.trace = self.note
        self._programs: dict[str, Program] = {}
        self._nodes: dict[str, Node] = {}
        self._later: dict[str, Program] = {}
        self._crashes: dict[str, int] = {}
        self._lives: dict[str, int] = {}
        self._ended: set[str] = set()
        self._problems: list[Problem] = []

    def note(self, *what: object) -> None:
        """Add an event to the trace."""
        self.events.add(self.loop.time(), *what)

    def topic(self, name: str, partitions: int = 1, **changes: object) -> None:
        """Create a topic before the run."""
        self.cluster.create_topic(TopicSpec(name=name, partitions=partitions, owner="world", **changes))  # type: ignore[arg-type]

    def add(self, name: str, program: Program) -> None:
        """Let a process of that name run the program from the beginning of the run."""
        self._programs[name] = program

    def add_later(self, name: str, program: Program) -> None:
        """The same, from the end of the faults on."""
        self._later[name] = program

    def crash_at(self, name: str, step: int) -> None:
        """Kill the process's first life before that step: at any await, tried one by one."""
        self._crashes[name] = step

    def ended(self, name: str) -> bool:
        """Whether the program has returned."""
        return name in self._ended

    def nodes(self) -> list[Node]:
        """The processes that live."""
        return [node for node in self._nodes.values() if node.process.alive]

    def settled(self, subscription: str) -> bool:
        """Whether every partition's position has reached the end."""
        found = self.cluster.subscriptions.get(subscription)
        if found is None:
            return False
        partitions = self.cluster.topics[found.info.topic].partitions
        return all(slot.position >= part.end for slot, part in zip(found.slots, partitions, strict=True))

    def records(
        self,
        topic: str,
        cause_of: Callable[[Record], Identity] | None = None,
        *,
        identity_of: Callable[[Record], Identity] | None = None,
        removed: bool = False,
    ) -> list[StoredRecord]:
        """What the topic holds, for the checks, or what was `removed` from it.

        `cause_of` tells what message an effect belongs to, `identity_of` what message a record is if not by its id.
        """
        return [
            StoredRecord(
                index,
                record[0],
                record[2],
                (record[6].source, record[6].id) if identity_of is None else identity_of(record),
                None if cause_of is None else cause_of(record),
            )
            for index, partition in enumerate(self.cluster.topics[topic].partitions)
            for record in (partition.removed if removed else partition.records)
        ]

    def run(
        self,
        finished: Callable[[], bool],
        check: Callable[[], Sequence[Problem]],
        *,
        fault_seconds: float = 30.0,
        settle_seconds: float = 120.0,
        finished_calmly: Callable[[], bool] | None = None,
    ) -> Result:
        """Run with faults, at most until `finished`, then without until `finished_calmly`; stop all and check.

        Not finished `settle_seconds` after the last fault is a problem too: something got stuck.
        """
        collecting = gc.isenabled()
        # Finalizers at chance moments would make runs differ. What is older than the run isn't looked at.
        gc.disable()
        gc.freeze()
        try:
            return self._run((finished, finished_calmly or finished), check, fault_seconds, settle_seconds)
        finally:
            self._clear_away()
            gc.unfreeze()
            if collecting:
                gc.enable()

    def _run(
        self,
        finished: tuple[Callable[[], bool], Callable[[], bool]],
        check: Callable[[], Sequence[Problem]],
        fault_seconds: float,
        settle_seconds: float,
    ) -> Result:
        try:
            self.loop.run_until_complete(self._main(finished, fault_seconds, settle_seconds))
            self._problems = self._problems or list(check())
        except SimulationError as error:
            self._problems.append(Problem("stuck", str(error)))
        for context in self.loop.unhandled:
            cause = context.get("exception")
            self._problems.append(Problem("unhandled", f"{context.get('message')}: {cause!r}{_place(cause)}"))
        return Result(
            self.seed, self._problems, self.events.digest, self.loop.time(), self.faults.counts, self.events.lines
        )

    def _clear_away(self) -> None:
        """Unwind what is left, and leave nothing to a later run's or test's collector."""
        with warnings.catch_warnings():
            # Coroutines whose process died before their first step.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            self.loop.dispose()
            self._nodes.clear()
            self._programs.clear()
            for subscription in self.cluster.subscriptions.values():
                subscription.members.clear()
            gc.collect()

    async def _main(
        self, finished: tuple[Callable[[], bool], Callable[[], bool]], fault_seconds: float, settle_seconds: float
    ) -> None:
        for name in self._programs:
            self._start(name)
        while self.loop.time() < fault_seconds and not finished[0]() and not self._problems:
            await asyncio.sleep(_TICK_SECONDS)
            self._torment()
        self.faults.cease()
        self.calm.set()
        self.note("faults cease")
        for node in self.nodes():
            node.process.crash_at_step = -1
        self._programs |= self._later
        for name in self._later:
            self._start(name)
        # Whoever hangs now goes on first.
        self.loop.limit = self.loop.time() + settle_seconds + 3 * self.plan.hang_seconds
        while not finished[1]():
            if self._problems:
                return
            await asyncio.sleep(_TICK_SECONDS)
        self.stopping.set()
        while len(self._ended) < len(self._programs):
            await asyncio.sleep(_TICK_SECONDS)

    # Processes.

    def _start(self, name: str) -> None:
        life = self._lives[name] = self._lives.get(name, 0) + 1
        process = self.loop.process(f"{name}.{life}")
        own = random.Random(f"{self.seed} {name} {life}")
        clock = LoopClock(self.loop, self.wall, process)
        log = SimulatedLog(self.cluster, clock, process=process, faults=self.faults)
        node = Node(self, name, process, clock, log, own, IdSource(clock.now_ms, own), self.stopping)
        process.wall_offset_ms = own.randint(-50, 50)
        process.on_death.append(lambda: self._restart(name))
        if self.faults.active and self.plan.crash_rate and own.random() < 0.3:
            process.crash_at_step = own.randint(1, 600)
        if life == 1 and name in self._crashes:
            process.crash_at_step = self._crashes[name]
        self._nodes[name] = node
        self.note("start", process.name)
        process.spawn(self._live(node), name="program")

    async def _live(self, node: Node) -> None:
        try:
            await self._programs[node.name](node)
        except Exception as error:  # noqa: BLE001 (told in the result)
            if self.loop.processes and node.process.alive:
                self._problems.append(Problem("unhandled", f"{node.process.name} ended with {error!r}{_place(error)}"))
        self.note("end", node.process.name)
        self._ended.add(node.name)

    def _restart(self, name: str) -> None:
        delay = self.random.random() * _RESTART_SECONDS
        if name not in self._ended:
            self.loop.call_later(delay, self._start, name, context=self.loop.environment)

    # The nemesis.

    def _torment(self) -> None:
        plan, draw = self.plan, self.random.random
        for node in self.nodes():
            if node.name in self._ended:
                continue
            if draw() < plan.crash_rate * _TICK_SECONDS:
                self._count("crash")
                node.process.kill()
            elif draw() < plan.hang_rate * _TICK_SECONDS:
                self._count("hang")
                seconds = draw() * 2 * plan.hang_seconds
                self.note("hang", node.process.name, round(seconds, 3))
                node.process.hang(seconds)
        if draw() < plan.expire_rate * _TICK_SECONDS:
            self._expire_one()
        if draw() < plan.wall_jump_rate * _TICK_SECONDS:
            self._count("wall_jump")
            jump = int((draw() - 0.5) * 2000 * plan.wall_jump_seconds)
            self.note("wall jump", jump)
            self.wall.jump(jump)

    def _expire_one(self) -> None:
        found = [(sub, member) for sub in self.cluster.subscriptions.values() for member in sub.members]
        if found:
            self._count("expire")
            subscription, member = self.random.choice(found)
            self.note("expire", member)
            subscription.remove_member(member, end_epochs=self.faults.coin())

    def _count(self, fault: str) -> None:
        self.faults.counts[fault] = self.faults.counts.get(fault, 0) + 1


def _place(error: BaseException | None) -> str:
    """Where an exception came from."""
    frames = traceback.extract_tb(error.__traceback__)[-3:] if error is not None else []
    return "".join(f" < {frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
