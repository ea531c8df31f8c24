"""The simulator is proven on a hand-written consumer: it repeats exactly, it is sound, and it finds mutants."""

from __future__ import annotations

import asyncio

import pytest

from postline.log.port import Append
from postline.message import Envelope
from tests.simulation.faults import FaultPlan
from tests.simulation.toy import MUTANTS, run_toy
from tests.simulation.world import Node, World


@pytest.mark.parametrize("seed", range(10))
def test_a_seed_repeats_exactly(seed: int) -> None:
    first, second = run_toy(seed, keep_trace=True), run_toy(seed, keep_trace=True)
    assert first.trace == second.trace
    assert first.digest == second.digest


def test_seeds_differ() -> None:
    assert len({run_toy(seed).digest for seed in range(10)}) == 10


def test_without_faults_everything_is_handled_and_none_is_injected() -> None:
    result = run_toy(1, FaultPlan.none())
    assert result.problems == []
    assert result.faults == {}


def test_the_toy_is_sound_under_every_fault() -> None:
    broken = [str(result) for result in map(run_toy, range(300)) if result.problems]
    assert broken == []


def test_every_kind_of_fault_is_injected() -> None:
    injected = {fault for seed in range(150) for fault in run_toy(seed).faults}
    assert injected == {
        "append_crash", "append_refused", "append_unknown", "commit_crash", "commit_refused", "crash", "expire",
        "gap", "hang", "lands_after_death", "late_bell", "late_notice",
        "short_fetch", "slow", "timer_late", "wall_jump",
    }  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_mutant_is_found_within_a_few_seeds(mutant: str) -> None:
    assert any(run_toy(seed, mutant=mutant).problems for seed in range(60))


def test_a_crash_at_every_step_of_a_consumer_is_survived() -> None:
    # Latency, so that there is something to interleave; no other fault.
    calm = FaultPlan(interleaved=True)
    for step in range(1, 400, 3):
        result = run_toy(step, calm, crash=("consumer0", step))
        assert not result.problems, str(result)


def test_a_program_that_gets_stuck_is_told_with_the_place_where_it_waits() -> None:
    world = World(0, FaultPlan.none())

    async def stuck(node: Node) -> None:
        await node.log.start()
        await asyncio.Event().wait()

    world.add("billing", stuck)
    result = world.run(lambda: False, list, fault_seconds=1, settle_seconds=5)
    assert [problem.kind for problem in result.problems] == ["stuck"]
    assert "billing.1/program: locks.py" in str(result)


def test_a_program_that_fails_is_told() -> None:
    world = World(0, FaultPlan.none())

    async def broken(node: Node) -> None:
        await node.clock.sleep(1)
        raise ValueError("no such thing")

    world.add("billing", broken)
    result = world.run(lambda: world.ended("billing"), list)
    assert "no such thing" in str(result)


def _records_of_a_publisher_killed_at(kill_at: float, seed: int) -> int:
    world = World(seed, FaultPlan(latency_seconds=0.05, lands_after_death_share=0.5))
    world.topic("orders")

    async def publish(node: Node) -> None:
        await node.log.start()
        if node.process.name.endswith(".1"):
            for number in range(3):
                envelope = Envelope(id=str(number), source="shop", type="t")
                await node.log.append([Append("orders", 0, b"k", b"v", envelope)])

    world.add("shop", publish)

    def kill() -> None:
        world.nodes()[0].process.kill()

    world.loop.call_later(kill_at, kill, context=world.loop.environment)
    result = world.run(lambda: world.ended("shop"), list)
    assert not result.problems
    return len(world.cluster.topics["orders"].partitions[0].records)


def test_what_a_dead_process_began_may_land_and_what_it_would_do_later_never_does() -> None:
    landed = [_records_of_a_publisher_killed_at(0.005 * seed, seed) for seed in range(40)]
    assert landed[0] == 0
    assert set(landed) == {0, 1, 2, 3}
