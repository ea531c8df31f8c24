"""The deterministic loop: virtual time, order, deadlocks, processes that hang and die."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from postline.clock import Clock
from tests.simulation.loop import (
    LoopClock,
    SimulationDeadlock,
    SimulationLoop,
    SimulationStall,
    WallClock,
)


def test_time_moves_only_by_timers_and_in_no_real_time() -> None:
    loop = SimulationLoop()

    async def main() -> list[float]:
        seen = []
        for pause in (3600.0, 0.5):
            await asyncio.sleep(pause)
            seen.append(loop.time())
        return seen

    assert loop.run_until_complete(main()) == [3600.0, 3600.5]


def test_asyncios_own_tools_run_on_it() -> None:
    loop = SimulationLoop()

    async def main() -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.put(1))
            taken = group.create_task(queue.get())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 1)
        return [taken.result(), loop.time(), await asyncio.to_thread(lambda: "threaded")]

    assert loop.run_until_complete(main()) == [1, 6.0, "threaded"]


def test_a_deadlock_names_the_tasks_that_wait() -> None:
    loop = SimulationLoop()
    process = loop.process("billing")

    async def stuck() -> None:
        await asyncio.Event().wait()

    process.spawn(stuck(), name="stuck")
    with pytest.raises(SimulationDeadlock, match=r"billing/stuck: locks.py:\d+ in wait"):
        loop.run_until_complete(loop.create_future())
    loop.dispose()


def test_running_past_the_limit_names_the_tasks_that_wait() -> None:
    loop = SimulationLoop()
    loop.limit = 10

    async def heartbeat() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(SimulationStall, match="heartbeat"):
        loop.run_until_complete(heartbeat())
    loop.dispose()


def _record(order: str, seed: int) -> list[tuple[str, int]]:
    loop = SimulationLoop(random.Random(seed), order=order)
    seen: list[tuple[str, int]] = []

    async def note(name: str, number: int) -> None:
        seen.append((name, number))

    async def main() -> None:
        tasks = [loop.process(name).spawn(note(name, n)) for n in range(4) for name in "ab" if n % 2 == 0]
        b = loop.process("c")
        tasks += [b.spawn(note("c", n)) for n in range(4)]
        await asyncio.wait(tasks)

    loop.run_until_complete(main())
    return seen


def test_interleaving_mixes_processes_and_keeps_order_within_each() -> None:
    orders = {tuple(_record("interleaved", seed)) for seed in range(20)}
    assert len(orders) > 5
    assert all([n for name, n in seen if name == "c"] == [0, 1, 2, 3] for seen in orders)
    assert {tuple(_record("fifo", seed)) for seed in range(20)} == {tuple(_record("fifo", 0))}
    assert any([n for name, n in _record("shuffled", s) if name == "c"] != [0, 1, 2, 3] for s in range(20))
    assert _record("shuffled", 3) == _record("shuffled", 3)


def test_a_hung_process_goes_on_where_it_stood_and_others_do_not_wait() -> None:
    loop = SimulationLoop()
    seen: list[tuple[str, float]] = []

    async def tick(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append((name, loop.time()))

    hung, other = loop.process("hung"), loop.process("other")

    async def main() -> None:
        tasks = [hung.spawn(tick("hung")), other.spawn(tick("other"))]
        await asyncio.sleep(1.5)
        hung.hang(10)
        await asyncio.wait(tasks)

    loop.run_until_complete(main())
    assert [at for name, at in seen if name == "other"] == [1.0, 2.0, 3.0]
    assert [at for name, at in seen if name == "hung"] == [1.0, 11.5, 12.5]


def test_a_killed_process_never_goes_on_not_even_in_finally() -> None:
    loop = SimulationLoop()
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            seen.append("went on")
        finally:
            seen.append("cleaned up")

    process = loop.process("p")

    async def main() -> None:
        task = process.spawn(work())
        await asyncio.sleep(0.5)
        process.kill()
        task.cancel()
        await asyncio.sleep(10)

    loop.run_until_complete(main())
    assert seen == []
    loop.dispose()
    assert not asyncio.all_tasks(loop)


def test_a_process_can_be_killed_before_any_of_its_steps() -> None:
    def run(crash_at: int) -> list[int]:
        loop = SimulationLoop()
        process = loop.process("p")
        process.crash_at_step = crash_at
        seen: list[int] = []

        async def work() -> None:
            for number in range(5):
                seen.append(number)
                await asyncio.sleep(0)

        async def main() -> None:
            process.spawn(work())
            await asyncio.sleep(1)

        loop.run_until_complete(main())
        loop.dispose()
        return seen

    assert [len(run(step)) for step in range(1, 8)] == [0, 1, 2, 3, 4, 5, 5]


def test_exceptions_that_nobody_awaits_are_collected() -> None:
    loop = SimulationLoop()

    def broken() -> None:
        raise ValueError("unseen")

    loop.call_soon(broken)
    loop.run_until_complete(asyncio.sleep(0, loop.create_future()))
    assert [str(context["exception"]) for context in loop.unhandled] == ["unseen"]


def test_the_loops_clock_jumps_on_the_wall_and_stays_steady() -> None:
    loop = SimulationLoop()
    process = loop.process("p")
    process.wall_offset_ms = -7
    wall = WallClock(loop, start_ms=1000)
    clock: Clock = LoopClock(loop, wall, process)

    async def main() -> list[float]:
        await clock.sleep(2)
        before = clock.now_ms()
        wall.jump(-60_000)
        return [before, clock.now_ms(), clock.monotonic()]

    assert loop.run_until_complete(main()) == [2993, -57_007, 2.0]


def test_timers_can_be_made_late_but_never_early() -> None:
    loop = SimulationLoop(lateness=lambda: 0.25)

    async def main() -> float:
        await asyncio.sleep(1)
        return loop.time()

    assert loop.run_until_complete(loop.process("p").spawn(main())) == 1.25
