"""Workers that hang or die within a transaction: their late commits are refused, and nobody waits for long."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from postline.clock import SystemClock
from tests.brokers.cluster import Cluster
from tests.fault.kafka.lengths import long_run
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.services import invoices
from tests.fault.kafka.trial import Place, Trial, running
from tests.fault.kafka.verdict import judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: What is promised to readers, from a supervisor's start of the worker on.
_HELD_BACK_SECONDS = 5.0
#: An open transaction's own limit, the broker's pause between looks for such, and room for a busy machine.
_LIMIT_SECONDS = 10.0 + 0.5 + 5.0
_CLOCK = SystemClock()


@long_run
async def test_a_worker_stopped_past_its_session_does_its_late_work_in_vain(kafka_one: Cluster, tmp_path: Path) -> None:
    plan = Plan(seed=5, slow=0.5, slow_seconds=0.5)
    async with running(kafka_one, plan, tmp_path) as trial:
        frozen, other = trial.workers
        await trial.billed(20, frozen)
        await trial.billed(20, other)
        trial.signal(frozen, signal.SIGSTOP)
        await _all_owned_by(trial, other)
        await trial.billed(100, other)
        trial.signal(frozen, signal.SIGCONT)
        await trial.billed(20, frozen)
        verdict = await judged(trial)
    assert verdict.figures["late attempts"] > 0


async def _all_owned_by(trial: Trial, place: Place) -> None:
    """Wait until a worker has handled something of every partition since now."""
    done = len(trial.journal(place, "ok"))

    def partitions() -> set[str]:
        return {entry.fields[3] for entry in trial.journal(place, "ok")[done:]}

    await trial.until(lambda: len(partitions()) == invoices.partitions, f"{place.name} has all partitions")


async def test_a_worker_stopped_within_a_transaction_is_refused_when_it_goes_on(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    async with running(kafka_one, Plan(seed=6), tmp_path) as trial:
        frozen, other = trial.workers
        await trial.billed(20, frozen)
        await trial.hold(frozen)
        trial.signal(frozen, signal.SIGSTOP)
        await _all_owned_by(trial, other)
        trial.let_go(frozen)
        trial.signal(frozen, signal.SIGCONT)
        await trial.billed(20, frozen)
        verdict = await judged(trial)
    assert verdict.figures["refused commits"] > 0


async def test_a_commit_that_outlasts_a_rebalance_stays_only_where_the_worker_still_owns(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    # One worker stands in a transaction for all partitions; a second one takes some over, ends that transaction and
    # commits for these. The first one's outcome is unknown: what it still owns is to be stored once, the rest not.
    async with running(kafka_one, Plan(seed=10, workers=1), tmp_path) as trial:
        slow = trial.workers[0]
        await trial.billed(20, slow)
        await trial.hold(slow, partitions=4)
        trial.workers.append(Place("worker-1"))
        await trial.start(trial.workers[1])
        await trial.billed(20, trial.workers[1])
        trial.let_go(slow)
        await trial.billed(20, slow)
        await judged(trial)


async def _until_readers_go_on(trial: Trial, seconds: float) -> float:
    """Wait until nothing of now is held back from readers of what is committed; how long that took."""
    ends, began = trial.reader.ends, _CLOCK.monotonic()
    wanted = await asyncio.to_thread(ends.of, [invoices.name], stable=False)

    async def stable() -> bool:
        found = await asyncio.to_thread(ends.of, [invoices.name], stable=True)
        return all(found[at] >= end for at, end in wanted.items())

    await trial.until(stable, f"readers go on within {seconds} s", seconds, alive=False)
    return _CLOCK.monotonic() - began


async def _die_within_a_transaction(trial: Trial) -> Place:
    """A worker is killed with invoices written and not committed: readers are held back."""
    place = trial.workers[0]
    await trial.billed(20, place)
    await trial.hold(place)
    await trial.kill(place)
    trial.let_go(place)
    ends = trial.reader.ends
    everything, stable = ends.of([invoices.name], stable=False), ends.of([invoices.name], stable=True)
    assert any(stable[at] < everything[at] for at in stable), "no transaction is open"
    return place


async def test_readers_are_not_held_back_for_long_where_a_killed_worker_is_started_again(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    async with running(kafka_one, Plan(seed=7, workers=1), tmp_path) as trial:
        place = await _die_within_a_transaction(trial)
        await trial.start(place)
        # How long an interpreter takes to begin on a busy machine is not Postline's.
        await trial.until(lambda: trial.written(place), "the worker begins")
        await _until_readers_go_on(trial, _HELD_BACK_SECONDS)
        await judged(trial)


@long_run
async def test_readers_are_held_back_to_the_transactions_limit_where_nobody_follows_a_killed_worker(
    kafka_one: Cluster, tmp_path: Path
) -> None:
    async with running(kafka_one, Plan(seed=8, workers=1), tmp_path) as trial:
        place = await _die_within_a_transaction(trial)
        place.process = None
        await _until_readers_go_on(trial, _LIMIT_SECONDS)
        await trial.start(place)
        await judged(trial)


@long_run
async def test_another_worker_ends_a_killed_ones_transaction_and_takes_over(kafka_one: Cluster, tmp_path: Path) -> None:
    async with running(kafka_one, Plan(seed=9), tmp_path) as trial:
        place = await _die_within_a_transaction(trial)
        place.process = None
        await _all_owned_by(trial, trial.workers[1])
        await judged(trial)
