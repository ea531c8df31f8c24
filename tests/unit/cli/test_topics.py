"""`postline topics plan`, `apply` and `repartition`, and the alarm about partitions that others added."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from postline.log.needs import Change, ChangeKind
from postline.log.port import Bounds, Survey
from postline.log.sqlite import SqliteLog
from tests.unit.cli.conftest import APP, Project

OTHER = """
from app import OrderPlaced, orders
from postline import App

app = App("packing")
packing = app.subscribe("packing", orders, start="earliest")

@packing.on(OrderPlaced)
async def pack(order: OrderPlaced) -> None: ...
"""


def test_a_plan_makes_no_log(project: Project) -> None:
    result = project.run("topics", "plan", "app.py")
    assert (result.code, result.out) == (3, "")
    assert "There is no log at" in result.err
    assert not project.file.exists()


def test_what_is_planned_is_applied_once(project: Project) -> None:
    project.write("packing.py", OTHER)
    made = project.run("topics", "apply", "app.py", "packing.py")
    assert (made.code, {change["kind"] for change in made.json}) == (0, {"create"})
    assert [change["name"] for change in made.json] == [
        "shop.orders",
        "postline.schemas",
        "billing.dead-letters",
        "billing.control",
        "packing.dead-letters",
        "packing.control",
    ]
    assert project.run("topics", "apply", "app.py", "packing.py").json == []
    assert project.run("topics", "plan", "app.py", "--check").json == []
    assert (
        project.run("topics", "plan", "app.py", "--table").out == "Nothing to do: the log is as these apps need it.\n"
    )


def test_a_log_without_subscriptions_has_an_empty_audit(project: Project) -> None:
    project.run("topics", "apply", "app.py")
    assert (project.run("audit", "--table").code, project.run("audit").json) == (0, [])


def test_a_check_fails_on_anything_to_do_and_a_plan_does_not(project: Project) -> None:
    project.run("topics", "apply", "app.py")
    project.write(
        "longer.py", APP.replace("partitions=2", 'partitions=2, retention=__import__("datetime").timedelta(1)')
    )
    assert project.run("topics", "plan", "longer.py", "--check").code == 1
    shown = project.run("topics", "plan", "longer.py", "--table")
    assert (shown.code, shown.out) == (0, "alter     shop.orders\n            retention_ms  none → 86400000\n")
    assert project.run("topics", "apply", "longer.py", "--table").out.startswith("altered   shop.orders\n")
    assert project.run("topics", "plan", "longer.py", "--check").code == 0


def test_a_mismatch_is_shown_and_not_applied(project: Project) -> None:
    project.run("topics", "apply", "app.py")
    project.write("more.py", APP.replace("partitions=2", "partitions=3"))
    shown = project.run("topics", "plan", "more.py", "--table")
    assert (shown.code, "partitions are 2, the contract says 3" in shown.out) == (0, True)
    refused = project.run("topics", "apply", "more.py")
    assert (refused.code, refused.out) == (3, "")
    assert "nothing was done" in refused.err


def test_warnings_are_told_beside_the_plan_and_are_nothing_to_do(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run("topics", "apply", "app.py")

    async def plan(self: SqliteLog, need: object) -> list[Change]:
        return [Change(kind=ChangeKind.WARNING, name=name, said="one copy only") for name in ("a", "b")]

    monkeypatch.setattr(SqliteLog, "plan", plan)
    result = project.run("topics", "plan", "app.py", "--check", "--table")
    assert (result.code, result.out) == (0, "Nothing to do: the log is as these apps need it.\n")
    assert result.err == "warning: a, b: one copy only\n"


def test_apps_of_several_logs_are_planned_one_log_at_a_time(project: Project) -> None:
    project.write("packing.py", OTHER.replace('App("packing")', 'App("packing", url="sqlite:///other.db")'))
    result = project.run("topics", "apply", "app.py", "packing.py")
    assert (result.code, "on several logs" in result.err) == (2, True)
    assert project.run("topics", "apply", "app.py", "packing.py", "--url", "sqlite:///one.db").code == 0
    assert project.run("topics", "apply", "app.py", "--url", "sqlite://").code == 2


def test_a_files_topics_are_not_repartitioned(project: Project) -> None:
    project.run("topics", "apply", "app.py")
    result = project.run("topics", "repartition", "shop.orders", "4")
    assert (result.code, result.out) == (3, "")
    assert "can't be changed in place" in result.err
    assert "Declare a new topic" in result.err


@pytest.mark.parametrize("declared", [2, 3])
def test_a_repartitioning_that_an_app_would_not_start_with_is_refused(project: Project, declared: int) -> None:
    project.run("topics", "apply", "app.py")
    project.write("now.py", APP.replace("partitions=2", f"partitions={declared}"))
    result = project.run("topics", "repartition", "shop.orders", "4", "now.py")
    assert (result.code, f"its contract says {declared}" in result.err) == (2, True)
    assert "no contract" in project.run("topics", "repartition", "shop.others", "4", "now.py").err.replace(
        "none of these apps has a contract", "no contract"
    )


@pytest.mark.parametrize("command", [["lag"], ["topics"], ["topics", "show", "shop.orders"]], ids=" ".join)
def test_records_in_partitions_that_others_added_are_an_alarm(
    broken: Project, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    kept = SqliteLog.survey

    async def survey(self: SqliteLog, names: Collection[str] | None = None) -> Survey:
        found = await kept(self, names)
        found.bounds["shop.orders"].append(Bounds(3, 8))
        return found

    assert "alarm" not in broken.run(*command).err
    monkeypatch.setattr(SqliteLog, "survey", survey)
    result = broken.run(*command)
    assert result.code == 0
    assert "alarm: topic shop.orders has 3 partitions, 2 of them known here: 5 offsets" in result.err
    assert "`postline topics repartition shop.orders 3`" in result.err
    seen: Any = result.json if isinstance(result.json, dict) else result.json[0]
    assert seen["beyond"] == 5
