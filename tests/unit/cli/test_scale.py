"""`postline scale`, the options of `postline run --workers MIN..MAX`, and what steers its workers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from postline import App
from postline.cli.elastic import Elastic
from postline.clock import SystemClock
from postline.log.sqlite import SqliteLog
from postline.monitor import Policy
from tests.unit.cli.conftest import Project


def test_a_service_without_live_processes_is_told_the_least(broken: Project) -> None:
    said = broken.run("scale", "shop", "--min", "2", "--over", "1")
    assert (said.code, said.json["desired"], said.json["subscriptions"]) == (0, 2, [])
    table = broken.run("scale", "shop", "--table", "--over", "1")
    assert "workers 1 -> 1: no subscription has joined yet" in table.out


@pytest.mark.parametrize(
    ("arguments", "complaint", "remedy"),
    [
        (["shopp"], "Service 'shopp' has no subscription in", "These have: shop."),
        (["shop", "--min", "3", "--max", "2"], "--min 3 is above --max 2", "Exchange them."),
    ],
)
def test_what_can_not_be_told_is_refused(broken: Project, arguments: list[str], complaint: str, remedy: str) -> None:
    said = broken.run("scale", *arguments)
    assert said.code == 2
    assert complaint in said.err
    assert remedy in said.err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--workers", "0"], "'0' is not within 1..1000"),
        (["--workers", "4..2"], "'4..2' is not within 1..1000, the lower number first"),
        (["--workers", "some"], "'some' is no number, nor a range such as 1..8"),
        (["--workers", "1..2000"], "'1..2000' is not within 1..1000"),
        (["--workers", "2", "--drain-seconds", "5"], "--drain-seconds says when the number of workers changes"),
        (["--cool-down-seconds", "5"], "--cool-down-seconds says when the number of workers changes"),
        (["--workers", "1..2", "--watch"], "--watch restarts a fixed number of workers"),
        (["--workers", "1..2", "--drain-seconds", "0"], "0.0 is not in the range"),
        (["--workers", "1..2", "--url", "sqlite://"], "several processes can't share"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_runs(
    project: Project, options: list[str], complaint: str
) -> None:
    said = project.run("run", "app.py", *options)
    assert said.code == 2
    assert complaint in re.sub(r"\s+", " ", said.err)
    assert not project.file.exists()


class Team:
    """Workers whose number is only written down."""

    def __init__(self, workers: int, leaving: int = 0) -> None:
        self.workers, self.leaving = workers, leaving
        self.sizes: list[int] = []

    def resize(self, workers: int) -> None:
        self.sizes.append(workers)
        self.workers = workers


async def steered(elastic: Elastic, team: Team, until: Callable[[], bool]) -> None:
    steering = asyncio.ensure_future(elastic.steer(team))
    try:
        async with asyncio.timeout(30):
            while not until():
                assert not steering.done()
                await asyncio.sleep(0.01)
    finally:
        steering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await steering  # it closes its log


async def test_a_log_that_is_away_is_told_once_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "shop.db").write_bytes(b"no log at all, but a text of some length" * 200)
    said: list[str] = []
    team, policy = Team(3), Policy(workers_min=1, workers_max=4, cool_down_seconds=0.0)
    elastic = Elastic(policy, [App("shop")], f"sqlite:///{tmp_path}/shop.db", said.append)
    elastic.away_seconds = 0.01
    looks = 0

    def enough() -> bool:
        nonlocal looks
        looks += 1
        return bool(said) and looks > 50

    await steered(elastic, team, enough)
    assert team.sizes == []
    assert len(said) == 1
    assert said[0].startswith("can't see how far services are behind: ")
    assert said[0].endswith("; there stay 3 workers")


async def test_there_are_never_more_processes_than_the_most_while_some_still_leave(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    log = SqliteLog(str(tmp_path / "shop.db"), clock=SystemClock())
    await log.start()
    await log.close()
    said: list[str] = []
    policy = Policy(workers_min=4, workers_max=4, drain_seconds=0.5)
    team = Team(1, leaving=2)
    await steered(Elastic(policy, [App("shop")], url, said.append), team, lambda: bool(team.sizes))
    assert team.sizes == [2]
    assert said == ["workers 1 -> 2: there shall be 4 at least"]
    team.leaving = 0
    await steered(Elastic(policy, [App("shop")], url, said.append), team, lambda: len(team.sizes) > 1)
    assert team.sizes == [2, 4]
