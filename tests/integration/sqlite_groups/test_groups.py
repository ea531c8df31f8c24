"""Groups of real processes: death, hanging, coming and going, bells, turns and forks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from postline.clock import SystemClock
from postline.errors import LogUnavailable
from postline.log.port import Append, TopicSpec
from postline.log.sqlite.log import SqliteLog
from postline.log.sqlite.storage import Settings
from postline.message import Envelope

ROOT = Path(__file__).resolve().parents[3]
#: A condition that never comes true fails the test after this long.
PATIENCE_SECONDS = 60.0

Pair = tuple[int, int]


class Worker:
    """One process and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process, news: asyncio.Condition) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._news = news
        self._listening = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    def said(self, event: str) -> list[dict[str, Any]]:
        """All it said of that kind."""
        return [each for each in self.events if each["event"] == event]

    def pairs(self, event: str) -> list[Pair]:
        """Partition and epoch of all that it was told."""
        return [(partition, epoch) for each in self.said(event) for partition, epoch in each["assignments"]]

    def owned(self) -> dict[int, int]:
        """What it owns now, with epochs."""
        owned: dict[int, int] = {}
        for each in self.events:
            if each["event"] == "assigned":
                owned.update(dict(map(tuple, each["assignments"])))
            elif each["event"] in ("revoked", "lost"):
                for partition, _ in each["assignments"]:
                    owned.pop(partition, None)
        return owned

    def values(self) -> list[str]:
        """All values that it fetched."""
        return [value for each in self.said("records") for value in each["values"]]

    def tell(self, order: str) -> None:
        """One line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(order.encode() + b"\n")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def end(self) -> None:
        """Kill it if it lives; it is waited for."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()
        self._listening.cancel()


class Company:
    """The workers of one test, and its own handle to their log."""

    def __init__(self, path: Path, log: SqliteLog) -> None:
        self.path = path
        self.log = log
        self.workers: list[Worker] = []
        self._news = asyncio.Condition()

    async def start(self, role: str = "member", **options: Any) -> Worker:
        """Another process."""
        module = "tests.integration.sqlite_groups.worker"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, str(self.path), role, json.dumps(options)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "src"},
        )
        worker = Worker(process, self._news)
        self.workers.append(worker)
        return worker

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what the workers have said fulfils the condition."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: bool(condition()))

    async def append(self, *values: str, partition: int = 0) -> None:
        """Append from the test's own process."""
        envelope = Envelope(id="1", source="test", type="t")
        await self.log.append([Append("orders", partition, None, value.encode(), envelope) for value in values])


@pytest.fixture
async def company(tmp_path: Path) -> AsyncIterator[Company]:
    """A log with the four-partition topic "orders", and no workers yet."""
    path = tmp_path / "log.db"
    log = SqliteLog(str(path), clock=SystemClock(), settings=Settings(reserve_bytes=0))
    await log.start()
    await log.create_topic(TopicSpec(name="orders", partitions=4, owner="shop"))
    made = Company(path, log)
    yield made
    await asyncio.gather(*(worker.end() for worker in made.workers))
    await log.close()


async def test_a_killed_members_partitions_are_taken_over(company: Company) -> None:
    first = await company.start()
    await company.until(lambda: len(first.owned()) == 4)
    second = await company.start()
    await company.until(lambda: len(first.owned()) == len(second.owned()) == 2)
    before = first.owned()
    first.signal(signal.SIGKILL)
    await company.until(lambda: len(second.owned()) == 4)
    assert all(second.owned()[partition] > epoch for partition, epoch in before.items())
    assert len(await company.log.members("billing")) == 1


async def test_a_stopped_members_late_commit_is_refused_and_it_comes_back(company: Company) -> None:
    first = await company.start(lease_seconds=0.5)
    await company.until(lambda: len(first.owned()) == 4)
    old = first.owned()
    first.signal(signal.SIGSTOP)
    second = await company.start(lease_seconds=0.5)
    await company.until(lambda: len(second.owned()) == 4)
    first.tell("commit")
    first.signal(signal.SIGCONT)
    await company.until(lambda: first.said("committed"))
    assert first.said("committed")[0]["refused"] == [list(pair) for pair in sorted(old.items())]
    await company.until(lambda: len(first.owned()) == len(second.owned()) == 2)
    assert sorted(first.pairs("lost")) == sorted(old.items())
    assert [info.position for info in await company.log.partitions("billing")] == [0] * 4


async def test_a_stopped_member_keeps_its_partitions_within_its_lease(company: Company) -> None:
    first = await company.start(lease_seconds=600)
    await company.until(lambda: len(first.owned()) == 4)
    first.signal(signal.SIGSTOP)
    second = await company.start()
    for _ in range(3):
        # Each time that the second one finds a dead one, it has looked at the stopped one too.
        short_lived = await company.start()
        await company.until(lambda: short_lived.said("joined"))  # noqa: B023 - awaited in this turn
        short_lived.signal(signal.SIGKILL)
        await until_rows(company.log, 2)
    assert second.owned() == {}
    first.signal(signal.SIGCONT)
    await company.until(lambda: len(first.owned()) == len(second.owned()) == 2)
    assert first.pairs("lost") == []


async def until_rows(log: SqliteLog, count: int) -> None:
    """Wait until the members have removed the dead from the file."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while log.storage.reader.connection.execute("SELECT count(*) FROM members").get != count:
            await asyncio.sleep(0.01)


async def test_while_members_come_and_go_no_partition_has_two_owners_in_an_epoch(company: Company) -> None:
    first, second = [await company.start() for _ in range(2)]
    await company.until(lambda: len(first.owned()) == len(second.owned()) == 2)
    third, fourth = [await company.start() for _ in range(2)]
    await company.until(lambda: all(len(worker.owned()) == 1 for worker in company.workers))
    second.tell("leave")
    third.signal(signal.SIGKILL)
    await company.until(lambda: len(first.owned()) == len(fourth.owned()) == 2)
    fifth = await company.start()
    await company.until(fifth.owned)
    given = [pair for worker in company.workers for pair in worker.pairs("assigned")]
    assert len(given) == len(set(given))
    living = [first, fourth, fifth]
    assert sorted(partition for worker in living for partition in worker.owned()) == [0, 1, 2, 3]
    # Whoever lived gave partitions back; nobody was robbed.
    assert [pair for worker in living for pair in worker.pairs("lost")] == []


async def test_every_record_reaches_one_member_while_members_come_and_go(company: Company) -> None:
    workers = [await company.start()]
    for round_ in range(4):
        for partition in range(4):
            await company.append(*(f"{round_}-{partition}-{n}" for n in range(25)), partition=partition)
        workers.append(await company.start())
        await company.until(lambda: workers[-1].said("joined"))
    everything = {f"{round_}-{partition}-{n}" for round_ in range(4) for partition in range(4) for n in range(25)}
    await company.until(lambda: {value for worker in workers for value in worker.values()} == everything)


@pytest.mark.parametrize("reason", ["bell", "poll"])
async def test_an_append_wakes_another_process(company: Company, reason: str) -> None:
    # With a bell the safety poll is out of the way; without sockets there is only the quick poll.
    options = {"safety_seconds": 600} if reason == "bell" else {"sockets": False}
    reader = await company.start(**options)
    await company.until(lambda: len(reader.owned()) == 4)
    for number in range(20):
        await company.append(str(number), partition=number % 4)
        await company.until(lambda: str(number) in reader.values())  # noqa: B023 - awaited in this turn
    assert sorted(reader.values()) == sorted(map(str, range(20)))


async def test_no_writer_starves_among_four_processes(company: Company) -> None:
    for partition in range(4):
        await company.start("writer", partition=partition)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum(bounds.end for bounds in await company.log.bounds("orders")) < 3000:
            await asyncio.sleep(0.02)
    assert min(bounds.end for bounds in await company.log.bounds("orders")) > 0


async def test_a_process_that_sits_in_a_transaction_is_named_and_its_death_lets_the_others_go_on(
    company: Company,
) -> None:
    sitter = await company.start("sitter")
    await company.until(lambda: sitter.said("inside"))
    settings = Settings(reserve_bytes=0, lock_seconds=0.1)
    impatient = SqliteLog(str(company.path), clock=SystemClock(), settings=settings)
    with pytest.raises(LogUnavailable, match=f"process {sitter.process.pid} holds it"):
        await impatient.start()
    waiting = asyncio.ensure_future(company.append("after"))
    sitter.signal(signal.SIGKILL)
    await waiting
    await impatient.start()
    assert (await impatient.bounds("orders"))[0].end == 1
    await impatient.close()


async def test_a_forked_child_keeps_no_sign_of_life_of_its_dead_parent(company: Company) -> None:
    first, second = [await company.start() for _ in range(2)]
    await company.until(lambda: len(first.owned()) == len(second.owned()) == 2)
    first.tell("fork")
    await company.until(lambda: first.said("forked"))
    child = first.said("forked")[0]["pid"]
    try:
        first.signal(signal.SIGKILL)
        await company.until(lambda: len(second.owned()) == 4)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
    await company.append("after")
    await company.until(lambda: "after" in second.values())
