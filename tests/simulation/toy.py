"""A hand-written exactly-once consumer and publisher on the bare port, with mutants that the checks must find."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from postline.errors import LogError
from postline.ids import derived_id
from postline.log.port import (
    FLAG_OWN_ID,
    Append,
    Assignment,
    Fetched,
    GroupSpec,
    Membership,
    PartitionCommit,
    Record,
    StartAt,
)
from postline.message import Envelope
from tests.simulation.checks import (
    AuditLine,
    Problem,
    check_audit,
    check_effects,
    check_equal,
    check_executions,
    check_publishing,
)
from tests.simulation.cluster import ENGINE_MUTANTS
from tests.simulation.faults import FaultPlan
from tests.simulation.world import Node, Result, World

__all__ = ["MUTANTS", "run_toy"]

#: Ways to be wrong: the engine's, and the consumer's own.
MUTANTS = (
    *(mutant for mutant in ENGINE_MUTANTS if mutant != "lost_wake_up"),
    "own_position_first",
    "own_forget_held",
    "no_dedup",
    "no_order",
)

_KEYS, _PER_KEY, _PARTITIONS = 6, 8, 3
_SUBSCRIPTION = "sums"


class Progress(msgspec.Struct):
    """The toy's audit of one partition."""

    start: int = 0
    done: int = 0
    duplicate: int = 0
    gaps: int = 0


@dataclass
class Part:
    """One owned partition in memory."""

    assignment: Assignment
    progress: Progress
    position: int
    #: Held offsets and their keys, in order: the failed heads and those blocked behind them.
    held: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Work:
    """What one round adds to one partition's commit."""

    puts: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    deletes: list[tuple[str, bytes]] = field(default_factory=list)
    appends: list[Append] = field(default_factory=list)
    sums: dict[bytes, bytes] = field(default_factory=dict)
    seen: dict[bytes, bytes] = field(default_factory=dict)


class Consumer:
    """Sums each key's values in its state and publishes one output for each record, exactly once."""

    def __init__(self, node: Node, mutant: str) -> None:
        self.node = node
        self.mutant = mutant
        self.parts: dict[int, Part] = {}
        # One round at a time; `revoked` waits for it, so that what is in hand is committed.
        self.round = asyncio.Lock()
        self.membership: Membership
        self.joined = asyncio.Event()

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        await self.joined.wait()
        for a in assignments:
            progress = msgspec.json.decode(a.progress, type=Progress) if a.progress else Progress(a.position)
            part = Part(a, progress, a.position)
            if self.mutant != "own_forget_held":
                entries = await self.membership.scan_state(a, "held")
                part.held = {int.from_bytes(offset, "big"): key for offset, key in entries}
            self.parts[a.partition] = part

    async def revoked(self, assignments: Sequence[Assignment]) -> None:
        async with self.round:
            self.lost(assignments)

    def lost(self, assignments: Sequence[Assignment]) -> None:
        for a in assignments:
            if a.partition in self.parts and self.parts[a.partition].assignment == a:
                del self.parts[a.partition]

    async def run(self) -> None:
        node = self.node
        await node.log.start()
        start = StartAt("earliest")
        spec = GroupSpec(subscription=_SUBSCRIPTION, topic="orders", service="toy", start=start, instance=node.name)
        self.membership = await node.log.join(spec, self)
        self.joined.set()
        while not node.stopping.is_set():
            held = any(part.held for part in self.parts.values())
            fetched = await self.membership.fetch(20, 1 << 20, 0.2 if held else 1.0)
            async with self.round:
                await self.handle(fetched)
        await node.log.close()

    async def handle(self, fetched: list[Fetched]) -> None:
        for part in list(self.parts.values()):
            work = Work()
            mine = [f for f in fetched if f.assignment == part.assignment]
            if not mine and not part.held:
                continue
            due = list(part.held)
            records = await self.node.log.read_offsets("orders", part.assignment.partition, due)
            records += [record for f in mine for record in f.records]
            await self.load(part, records, work)
            if self.mutant == "own_position_first" and mine:
                await self.commit(PartitionCommit(part.assignment, mine[-1].next_offset, part.assignment.progress))
            for record in records:
                await self.one(part, record, work)
            for f in mine:
                part.progress.gaps += f.next_offset - part.position - len(f.records)
                part.position = f.next_offset
            unit = PartitionCommit(
                part.assignment,
                part.position,
                msgspec.json.encode(part.progress),
                puts=[(namespace, key, value) for (namespace, key), value in work.puts.items()],
                deletes=[entry for entry in work.deletes if entry not in work.puts],
                appends=work.appends,
            )
            await self.commit(unit)

    async def load(self, part: Part, records: list[Record], work: Work) -> None:
        keys = list(dict.fromkeys(record[2] or b"" for record in records))
        ids = [self.node.log.envelope(record).id.encode() for record in records]
        work.sums = await self.membership.get_state(part.assignment, "user", keys)
        work.seen = await self.membership.get_state(part.assignment, "seen", ids)

    async def one(self, part: Part, record: Record, work: Work) -> None:
        """Handle a record, or hold it if it fails or its key is held."""
        node, offset, key = self.node, record[0], record[2] or b""
        envelope = node.log.envelope(record)
        identity = (envelope.source, envelope.id)
        place, mark = offset.to_bytes(8, "big"), envelope.id.encode()
        earlier = work.seen.get(mark, place)
        if earlier != place and self.mutant != "no_dedup":
            part.progress.duplicate += 1
            return
        work.seen[mark] = work.puts["seen", mark] = place
        blocked = any(k == key and o < offset for o, k in part.held.items()) and self.mutant != "no_order"
        if blocked or not await self.attempt(part, identity):
            part.held[offset] = key
            work.puts["held", place] = key
            return
        total = work.sums[key] = b"%d" % (int(work.sums.get(key, b"0")) + int(record[4] or b"0"))
        work.puts["user", key] = total
        part.progress.done += 1
        if part.held.pop(offset, None) is not None:
            work.puts.pop(("held", place), None)
            work.deletes.append(("held", place))
        output = Envelope(id=derived_id(_SUBSCRIPTION, *identity), source="toy", type="Out", causation_id=envelope.id)
        work.appends.append(Append("out", part.assignment.partition, key, total, output))

    async def attempt(self, part: Part, identity: tuple[str, str]) -> bool:
        """The handler: it takes a while, and fails now and then."""
        node = self.node
        if node.random.random() < 0.3:
            await node.clock.sleep(node.random.random() * 0.02)
        ok = node.random.random() > 0.15
        node.executed(part.assignment, identity, ok)
        return ok

    async def commit(self, unit: PartitionCommit) -> None:
        while True:
            try:
                refused = await self.membership.commit([unit])
            except LogError:
                await self.node.clock.sleep(0.02)
                continue
            self.lost(refused)
            return


async def _publish(node: Node, key: bytes) -> None:
    """Publish one key's messages one after another, each until it is acknowledged."""
    await node.log.start()
    for number in range(_PER_KEY):
        identity = ("shop", f"{key.decode()}-{number}")
        publication = node.history.publications.get(identity)
        if publication is not None and publication.acknowledged:
            continue
        node.history.publishing("orders", identity, key, number)
        envelope = Envelope(id=identity[1], source="shop", type="Order")
        item = Append("orders", key[-1] % _PARTITIONS, key, b"%d" % (number + 1), envelope, FLAG_OWN_ID)
        while True:
            try:
                await node.log.append([item])
                break
            except LogError:
                await node.clock.sleep(0.05)
        node.history.acknowledged(identity)
        await node.clock.sleep(node.random.random() * 0.5)
    await node.log.close()


def run_toy(
    seed: int,
    plan: FaultPlan | None = None,
    *,
    mutant: str = "",
    keep_trace: bool = False,
    crash: tuple[str, int] | None = None,
) -> Result:
    """Three consumers and six publishers under the seed's faults; `crash` kills one before that step."""
    # Its reads are not asked again, so they are not refused.
    plan = FaultPlan.by_seed(seed, read_faults=False) if plan is None else plan
    world = World(seed, plan, keep_trace=keep_trace, mutant=mutant if mutant in ENGINE_MUTANTS else "")
    for name in ("orders", "out"):
        world.topic(name, _PARTITIONS)
    keys = [b"key%d" % number for number in range(_KEYS)]
    publishers = [f"publisher{index}" for index in range(_KEYS)]
    for name, key in zip(publishers, keys, strict=True):
        world.add(name, lambda node, key=key: _publish(node, key))  # type: ignore[misc]
    for index in range(3):
        world.add(f"consumer{index}", lambda node: Consumer(node, mutant).run())

    if crash is not None:
        world.crash_at(*crash)

    def finished() -> bool:
        subscription = world.cluster.subscriptions.get(_SUBSCRIPTION)
        return (
            all(map(world.ended, publishers))
            and world.settled(_SUBSCRIPTION)
            and subscription is not None
            and not any(slot.state.get("held") for slot in subscription.slots)
        )

    return world.run(finished, lambda: _verdict(world, keys))


def _verdict(world: World, keys: list[bytes]) -> list[Problem]:
    slots = world.cluster.subscriptions[_SUBSCRIPTION].slots
    records, effects = world.records("orders"), world.records("out", lambda record: ("shop", record[6].causation_id))
    sums = {key: int(value) for slot in slots for key, value in slot.state.get("user", {}).items()}
    lines = []
    for index, slot in enumerate(slots):
        if slot.progress:
            progress = msgspec.json.decode(slot.progress, type=Progress)
            counts = {"done": progress.done, "duplicate": progress.duplicate, "gaps": progress.gaps}
            counts["held"] = len(slot.state.get("held", {}))
            lines.append(AuditLine(_SUBSCRIPTION, index, progress.start, slot.position, counts))
    return [
        *check_publishing(world.history, "orders", records),
        *check_effects(world.history, _SUBSCRIPTION, records, effects),
        *check_executions(world.history, _SUBSCRIPTION, records),
        *check_audit(lines),
        *check_equal("sums", dict.fromkeys(keys, _PER_KEY * (_PER_KEY + 1) // 2), sums),
    ]
