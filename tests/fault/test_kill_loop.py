"""Real processes killed with SIGKILL amidst their work: every guarantee holds, and planted faults are found."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.fault.journal import path_of
from tests.fault.process import LOG
from tests.fault.scenario import Scenario
from tests.fault.soak import soak
from tests.fault.verdict import Findings, judge

_SEED = 1

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _run(scenario: Scenario, directory: Path) -> Findings:
    findings = asyncio.run(soak(scenario, directory, lambda text: None))
    texts = "\n".join(map(str, findings.problems[:20]))
    assert not findings.problems, f"seed {scenario.seed}, history in {directory}:\n{texts}\n{findings.figures}"
    return findings


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Findings]:
    """What a run with 20 kills has left, and what was found in it."""
    directory = tmp_path_factory.mktemp("kills")
    return directory, _run(Scenario(seed=_SEED, kills=20), directory)


def test_twenty_kills_lose_double_and_reorder_nothing(killed: tuple[Path, Findings]) -> None:
    figures = killed[1].figures
    assert figures["kills"] == 20
    assert figures["orders"] > 1_000
    # The kills were really amidst something, and all of the ways out of trouble were taken.
    assert {"commit", "run"} <= set(figures["kills within"])
    assert {"poison", "hopeless", "flaky", "thrown"} <= set(figures["moods"])


def test_two_versions_in_one_group_lose_nothing_under_kills(tmp_path: Path) -> None:
    figures = _run(Scenario(seed=_SEED, kills=8, mixed=True), tmp_path).figures
    assert figures["cancellations"] > 10
    assert figures["attempts by"]["worker-1"] > 100, "version 1 had no part in it"


def test_workers_told_to_stop_under_load_lose_nothing_and_leave_no_partition_stuck(tmp_path: Path) -> None:
    # Each is looked at as it ends: an exit code of 0, no attempt cut off, no partition kept.
    assert _run(Scenario(seed=_SEED, kills=1, restarts=5, served=True), tmp_path).figures["restarts"] == 5


def test_a_worker_stopped_past_its_lease_does_its_late_work_in_vain(tmp_path: Path) -> None:
    calm = Scenario(seed=_SEED, freezes=2, lease_seconds=1.0, pause_seconds=0.6, publishers=1, slow=0.5)
    figures = _run(calm, tmp_path).figures
    assert figures["freezes"] == 2
    assert figures["late attempts"] > 0


# Planted faults, on copies of the history above.

_ORDERS, _INVOICES = "shop.orders", "billing.invoices"
_OF_TOPIC = (
    "SELECT records.id, records.key FROM records JOIN partitions ON partitions.id = records.id >> 40 "
    "JOIN topics ON topics.id = partitions.topic_id WHERE topics.name = ? ORDER BY records.id"
)


def _two_of_a_key(connection: apsw.Connection, topic: str) -> tuple[int, int]:
    """Two records of one customer, the first of them the very first of the topic."""
    rows: list[Any] = connection.execute(_OF_TOPIC, (topic,)).fetchall()
    first, second = [int(number) for number, key in rows if key == rows[0][1]][:2]
    return first, second


def _swap(connection: apsw.Connection, topic: str) -> None:
    first, second = _two_of_a_key(connection, topic)
    for before, after in ((first, -1), (second, first), (-1, second)):
        connection.execute("UPDATE records SET id = ? WHERE id = ?", (after, before))


def _delete(connection: apsw.Connection, topic: str) -> None:
    connection.execute("DELETE FROM records WHERE id = ?", (_two_of_a_key(connection, topic)[1],))


def _double_an_invoice(connection: apsw.Connection) -> None:
    first, _ = _two_of_a_key(connection, _INVOICES)
    connection.execute(
        "INSERT INTO records SELECT partitions.id << 40 | next_offset, timestamp, key, type, value, flags, packed "
        "FROM records JOIN partitions ON partitions.id = ? WHERE records.id = ?",
        (first >> 40, first),
    )
    connection.execute("UPDATE partitions SET next_offset = next_offset + 1 WHERE id = ?", (first >> 40,))


def _pass_over_a_record(connection: apsw.Connection) -> None:
    connection.execute(
        "UPDATE partitions SET next_offset = next_offset + 1 "
        "WHERE topic_id = (SELECT id FROM topics WHERE name = ?) AND partition = 0",
        (_ORDERS,),
    )
    connection.execute("UPDATE assignments SET position = position + 1 WHERE partition = 0")


def _count_twice(connection: apsw.Connection) -> None:
    connection.execute(
        "UPDATE state SET value = CAST(CAST(value AS TEXT) + 1 AS BLOB) WHERE namespace = 'state' "
        "AND subscription_id = (SELECT id FROM subscriptions WHERE name = 'billing')"
    )


def _forget_a_customer(connection: apsw.Connection) -> None:
    connection.execute(
        "DELETE FROM state WHERE namespace = 'state' AND CAST(key AS TEXT) = 'c0.1' "
        "AND subscription_id = (SELECT id FROM subscriptions WHERE name = 'mirror')"
    )


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda connection: _delete(connection, _ORDERS), "lost"),
        (lambda connection: _delete(connection, _INVOICES), "lost"),
        (_double_an_invoice, "doubled"),
        (lambda connection: _swap(connection, _ORDERS), "reordered"),
        (lambda connection: _swap(connection, _INVOICES), "reordered"),
        (_pass_over_a_record, "audit"),
        (_count_twice, "wrong"),
        (_forget_a_customer, "wrong"),
    ],
    ids=[
        "an order is lost",
        "an invoice is lost",
        "an invoice is doubled",
        "orders are swapped",
        "invoices are swapped",
        "a position passes over a record",
        "state counts twice",
        "state is forgotten",
    ],
)
async def test_a_fault_planted_in_the_file_is_found(
    killed: tuple[Path, Findings], tmp_path: Path, plant: Callable[[apsw.Connection], None], kind: str
) -> None:
    directory = shutil.copytree(killed[0], tmp_path / "copy")
    connection = apsw.Connection(str(directory / LOG))
    plant(connection)
    connection.close()
    assert kind in {problem.kind for problem in (await judge(directory)).problems}


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("2 try c0.0 1000000\n3 ack c0.0 1000000\n", "lost"),
        ("1 ok billing c0.0 7 0 1\n", "reordered"),
        (f"{10**18} ok billing c0.0 0 0 1\n" * 2, "doubled"),
    ],
    ids=["what was acknowledged is not there", "a handler ran before its turn", "a handler succeeded twice"],
)
async def test_a_fault_planted_in_the_journals_is_found(
    killed: tuple[Path, Findings], tmp_path: Path, lines: str, kind: str
) -> None:
    directory = shutil.copytree(killed[0], tmp_path / "copy")
    path_of(directory, "planted", 1).write_text(lines)
    assert kind in {problem.kind for problem in (await judge(directory)).problems}


async def test_the_history_itself_is_sound_when_judged_again(killed: tuple[Path, Findings], tmp_path: Path) -> None:
    directory = shutil.copytree(killed[0], tmp_path / "copy")
    assert (await judge(directory)).problems == []
