"""Commands that look: lag, audit, topics, tail, subscriptions, dead letters; their JSON, tables and exit codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from postline.log.port import Append, Assignment, GroupSpec, PartitionCommit, StartAt, TopicSpec
from postline.log.sqlite import SqliteLog
from postline.message import Envelope
from postline.runtime.outcomes import Outcome
from postline.runtime.progress import Progress
from tests.unit.cli.conftest import Project

READING = (
    ["lag"],
    ["audit"],
    ["topics"],
    ["topics", "show", "shop.orders"],
    ["tail", "shop.orders"],
    ["subscriptions"],
    ["subscriptions", "show", "billing"],
    ["dlq", "list"],
    ["dlq", "show", "billing", "0:0"],
    ["dlq", "redrive", "billing", "--all"],
    ["subscriptions", "pause", "billing"],
)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_log_that_is_not_there_is_an_error_and_is_not_made(project: Project, command: list[str]) -> None:
    result = project.run(*command)
    assert result.code == 3
    assert "error: There is no log at" in result.err
    assert "fix: Name the right one with --url or POSTLINE_URL" in result.err
    assert not project.file.exists()


def test_a_log_in_memory_can_not_be_looked_at(project: Project) -> None:
    result = project.run("lag", "--url", "sqlite://")
    assert (result.code, result.out) == (2, "")
    assert "belongs to the process that made it" in result.err


@pytest.mark.parametrize("command", READING[:9], ids=" ".join)
def test_every_view_is_json_for_programs_and_a_table_for_people(broken: Project, command: list[str]) -> None:
    if command[:2] == ["dlq", "show"]:
        letters = broken.run("dlq", "list").json
        command = [*command[:3], letters[0]["dead_letters"][0]["id"]]
    piped = broken.run(*command)
    assert piped.code == 0
    for line in piped.out.splitlines():
        json.loads(line)
    if command != ["dlq", "list"]:
        assert broken.run(*command, "--json").out == piped.out or command == ["lag"]
    drawn = broken.run(*command, "--table")
    assert drawn.code == 0
    assert "\x1b" not in drawn.out
    with pytest.raises(json.JSONDecodeError):
        json.loads(drawn.out.splitlines()[0] or "-")


def test_lag_shows_what_waits_and_can_fail_on_it(broken: Project) -> None:
    broken.run("publish", "shop.orders", "shop.OrderPlaced", given='{"customer":"bob","total":1}')
    (billing,) = broken.run("lag").json
    assert (billing["lag_records"], billing["held"], billing["dead_letters"]) == (1, 2, 1)
    assert (billing["status"], billing["reason"]) == ("no member", "no worker is there")
    assert billing["lag_seconds"] > 0
    assert broken.run("lag", "--fail-above", "0").code == 1
    assert broken.run("lag", "--fail-above", "3600").code == 0
    unknown = broken.run("lag", "nobody")
    assert (unknown.code, unknown.out) == (3, "")
    assert "no subscription 'nobody'" in unknown.err


@pytest.mark.parametrize(
    ("kinds", "code"),
    [("dead", 1), ("held", 1), ("unserved,dead", 1), ("unserved", 0), ("no-member", 1), ("stalled,growing", 0)],
)
def test_lag_can_fail_on_what_waits_for_somebody(broken: Project, kinds: str, code: int) -> None:
    assert broken.run("lag", "--fail-on", kinds).code == code


def test_lag_refuses_to_fail_on_what_it_does_not_count(broken: Project) -> None:
    result = broken.run("lag", "--fail-on", "dead,lost")
    assert (result.code, result.out) == (2, "")
    assert "'lost' is none of held, dead, unserved" in result.err


def test_a_status_is_followed_by_its_reason(broken: Project) -> None:
    for command in (["lag"], ["subscriptions"], ["subscriptions", "show", "billing"]):
        assert "billing: no member: no worker is there" in broken.run(*command, "--table").out
    assert "no member" in broken.run("lag", "--partitions", "--table").out


def test_history_is_told_by_steps_and_for_the_last_minutes(broken: Project) -> None:
    (billing,) = broken.run("lag", "billing", "--history", "2h").json
    assert (billing["subscription"], len(billing["points"]), len(billing["rates"])) == ("billing", 24, 3)
    last = billing["points"][-1]
    assert (last["lag_records"], last["held"], last["dead_letters"]) == (0, 2, 1)
    assert broken.run("lag", "--history", "2h").json[0]["points"][-1]["dead_letters"] == 1
    assert "handled a second" in broken.run("lag", "--history", "14d", "--table").out
    for wrong in ("15d", "0s", "soon"):
        refused = broken.run("lag", "billing", "--history", wrong)
        assert (refused.code, refused.out) == (2, "")


def test_held_keys_are_shown_with_how_many_records_wait_and_no_more_than_asked_for(broken: Project) -> None:
    shown = broken.run("subscriptions", "show", "billing").json
    (key,) = shown["keys"]["keys"]
    assert (key["status"], key["records"], shown["keys"]["complete"]) == ("blocked", 2, True)
    less = broken.run("subscriptions", "show", "billing", "--held", "1").json
    assert (len(less["held"]), less["subscription"]["held"]) == (1, 2)
    drawn = broken.run("subscriptions", "show", "billing", "--held", "1", "--table").out
    assert "and 1 held records more" in drawn


def test_dlq_alone_lists_the_dead_letters(broken: Project) -> None:
    alone = broken.run("dlq", "--table")
    assert (alone.code, alone.err) == (0, "")
    assert "ValueError: negative" in alone.out
    assert broken.run("dlq").json == broken.run("dlq", "list").json
    misplaced = broken.run("dlq", "--json", "list")
    assert (misplaced.code, misplaced.out) == (2, "")
    assert "Options of list stand after it" in misplaced.err


def test_a_held_record_is_told_from_one_that_is_not_there(broken: Project) -> None:
    held = broken.run("subscriptions", "show", "billing").json["held"][0]["id"]
    result = broken.run("dlq", "show", "billing", held)
    assert (result.code, result.out) == (1, "")
    assert f"Record {held} of subscription 'billing' is no dead letter; it is held (blocked)" in result.err
    assert "fix: `postline subscriptions show billing`" in result.err
    assert "has no dead letter 1:77" in broken.run("dlq", "show", "billing", "1:77").err


class _Miscounting:
    """An owner that forgets one of the records it has done."""

    def __init__(self) -> None:
        self.assignments: asyncio.Queue[Sequence[Assignment]] = asyncio.Queue()

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        await self.assignments.put(assignments)

    async def revoked(self, assignments: Sequence[Assignment]) -> None: ...

    def lost(self, assignments: Sequence[Assignment]) -> None: ...


async def _lose_one_done(log: SqliteLog) -> None:
    owner = _Miscounting()
    spec = GroupSpec(subscription="billing", topic="shop.orders", service="shop", start=StartAt("earliest"))
    membership = await log.join(spec, owner)
    assignment = next(each for each in await owner.assignments.get() if each.position)
    progress = Progress.decode(assignment.progress, assignment.position)
    progress.counts[Outcome.DONE] -= 1
    assert not await membership.commit([PartitionCommit(assignment, assignment.position, progress.encode())])
    await membership.leave()


def test_a_balanced_audit_is_zero_and_an_unbalanced_one_is_one(broken: Project) -> None:
    (audit,) = broken.run("audit", "billing").json
    assert audit["balanced"]
    assert (audit["handled"], audit["outcomes"]["done"], audit["outcomes"]["held"]) == (5, 2, 2)
    assert "Balanced" in broken.run("audit", "--table").out

    broken.on_log(_lose_one_done)
    result = broken.run("audit")
    assert result.code == 1
    assert not result.json[0]["balanced"]
    drawn = broken.run("audit", "--table")
    assert drawn.code == 1
    assert "UNBALANCED" in drawn.out
    assert "missing 1" in drawn.out


def test_dead_letters_are_listed_and_shown(broken: Project) -> None:
    (listed,) = broken.run("dlq", "list", "billing").json
    (letter,) = listed["dead_letters"]
    assert (letter["key"], letter["error"], letter["blocked"], letter["holds"]) == (
        "ann",
        "ValueError: negative",
        2,
        True,
    )
    shown = broken.run("dlq", "show", "billing", letter["id"]).json
    assert shown["record"]["data"] == {"customer": "ann", "total": -1}
    assert 'raise ValueError("negative")' in shown["stack"]
    assert 'raise ValueError("negative")' in broken.run("dlq", "show", "billing", letter["id"], "--table").out
    missing = broken.run("dlq", "show", "billing", "0:999")
    assert missing.code == 1
    assert "has no dead letter 0:999" in missing.err
    assert broken.run("dlq", "show", "billing", "nonsense").code == 2
    assert broken.run("dlq", "list", "--key", "bob").json[0]["dead_letters"] == []
    assert "No dead letters" in broken.run("dlq", "list", "--key", "bob", "--table").out


def test_a_table_of_dead_letters_ends_somewhere_and_says_how_many_more_there_are(
    broken: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "more;" not in broken.run("dlq", "--table").out
    monkeypatch.setattr("postline.cli.dlq._ROWS_MAX", 0)
    assert "1 dead letters more" in broken.run("dlq", "list", "--table").out
    assert len(broken.run("dlq", "list").json[0]["dead_letters"]) == 1


def test_topics_hide_what_is_internal_unless_asked(broken: Project) -> None:
    assert [view["name"] for view in broken.run("topics").json] == ["shop.orders"]
    names = [view["name"] for view in broken.run("topics", "list", "--all").json]
    assert names == ["billing.control", "billing.dead-letters", "postline.schemas", "shop.orders"]
    assert broken.run("topics", "show", "shop.orders").json["subscriptions"] == ["billing"]
    assert broken.run("topics", "show", "nothing").code == 3


def test_subscriptions_show_what_they_hold(broken: Project) -> None:
    shown = broken.run("subscriptions", "show", "billing").json
    assert [each["status"] for each in shown["held"]] == ["blocked", "blocked"]
    assert shown["subscription"]["dead_letters"] == 1


def totals(result_out: str) -> list[int]:
    return [json.loads(line)["data"]["total"] for line in result_out.splitlines()]


def test_tail_shows_so_many_where_offsets_have_no_record(project: Project) -> None:
    async def compacted(log: SqliteLog) -> None:
        await log.create_topic(TopicSpec(name="prices", partitions=1, owner="shop", key="", compacted=True))
        keys = [b"first", b"second", *[b"third"] * 40]
        await log.append([Append("prices", 0, key, b"1", Envelope(id=str(n))) for n, key in enumerate(keys)])
        await log.run_maintenance()

    project.on_log(compacted)
    shown = [json.loads(line) for line in project.run("tail", "prices", "-n", "2").out.splitlines()]
    assert [(each["offset"], each["key"]) for each in shown] == [(1, "second"), (41, "third")]


def test_tail_begins_and_ends_where_it_is_told(broken: Project) -> None:
    everything = totals(broken.run("tail", "shop.orders", "--from", "earliest").out)
    assert sorted(everything) == [-1, 1, 2, 3, 4]
    assert totals(broken.run("tail", "shop.orders", "--from", "earliest", "-n", "2").out) == everything[:2]
    assert totals(broken.run("tail", "shop.orders", "-n", "2").out) == everything[-2:]
    assert totals(broken.run("tail", "shop.orders", "--from", "latest").out) == []
    assert totals(broken.run("tail", "shop.orders", "--from", "1h").out) == everything
    assert totals(broken.run("tail", "shop.orders", "--from", "2999-01-01T00:00:00Z").out) == []
    assert totals(broken.run("tail", "shop.orders", "--key", "ann", "-n", "2").out) == [2, 4]
    assert totals(broken.run("tail", "shop.orders", "--type", "shop.Other").out) == []
    ann = json.loads(broken.run("tail", "shop.orders", "--key", "ann", "-n", "1").out)
    place = f"{ann['partition']}:{ann['offset']}"
    assert totals(broken.run("tail", "shop.orders", "--from", place).out) == [4]


@pytest.mark.parametrize("start", ["yesterday", "2026-01-01T00:00:00", "17", "9:0"])
def test_tail_refuses_a_start_that_means_nothing(broken: Project, start: str) -> None:
    result = broken.run("tail", "shop.orders", "--from", start)
    assert (result.code, result.out) == (2, "")
    assert "fix:" in result.err


def test_names_are_looked_up_in_the_namespace(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTLINE_NAMESPACE", "staging")
    given = '{"customer":"ann","total":1}'
    assert project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=given).code == 0
    project.handle_all()
    assert project.run("lag", "billing").json[0]["name"] == "staging.billing"
    assert len(project.run("tail", "shop.orders").out.splitlines()) == 1


def test_what_controls_a_terminal_is_shown_as_text(broken: Project) -> None:
    hostile = '{"customer":"\\u001b[2Jx","total":-1}'
    broken.run("publish", "shop.orders", "shop.OrderPlaced", given=hostile)
    broken.handle_all()
    letters = broken.run("dlq", "list").json[0]["dead_letters"]
    (letter,) = [each for each in letters if each["key"] == "\x1b[2Jx"]
    for command in (["tail", "shop.orders"], ["dlq", "list"], ["dlq", "show", "billing", letter["id"]]):
        shown = broken.run(*command, "--table")
        assert "\x1b" not in shown.out
        assert r"\x1b[2Jx" in shown.out


def test_lag_shows_priorities_with_their_shares(project: Project) -> None:
    app = (project.folder / "app.py").read_text()
    app = app.replace("partitions=2)", 'partitions=2, priorities={"high": 0.7, "normal": 0.3, "low": 0})')
    project.write(
        "app.py", app.replace("state=int, ", "").replace("ctx.state.put", "print").replace("ctx.state.get()", "0")
    )
    given = '{"customer": "ann", "total": 1}\n'
    for topic in ("shop.orders", "shop.orders.high"):
        assert project.run("publish", topic, "shop.OrderPlaced", "--app", "app.py", given=given).code == 0
    project.handle_all()
    views = {view["name"]: view for view in project.run("lag").json}
    assert sorted(views) == ["billing", "billing.high", "billing.low"]
    said = {"declared_as": "billing", "name": "high", "rank": 0, "share": 0.7}
    assert views["billing.high"]["priority"] == said
    assert sum(each["position"] for each in views["billing.high"]["partitions"]) == 1


def test_lag_shows_the_bound_and_how_much_of_it_is_used(project: Project) -> None:
    bounded = 'partitions=2, bound=Bound(records=4, subscriptions=("billing",)))'
    app = project.folder / "app.py"
    app.write_text(app.read_text().replace("partitions=2)", bounded).replace("import App,", "import App, Bound,"))
    project.handle_all()
    for _ in range(3):
        project.run("publish", "shop.orders", "shop.OrderPlaced", given='{"customer":"bob","total":1}')
    (billing,) = project.run("lag").json
    assert billing["bound"] == {"records": 4, "seconds": None, "bytes": None, "used": 0.75}
    assert billing["drained_per_second"] == billing["added_per_second"] == 0.0
    assert billing["drains_in_seconds"] is None
    (once,) = project.run("lag", "--every", "0").json
    assert once["drained_per_second"] is None
    drawn = project.run("lag", "--table").out
    assert "75%" in drawn
    assert "standing still" in drawn
