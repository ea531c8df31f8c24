"""Commands that ask for something: redrive, discard, pause, resume, reset, remove."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.cli.conftest import Project


def outcomes(project: Project) -> dict[str, int]:
    (audit,) = project.run("audit", "billing").json
    assert audit["balanced"]
    return {name: count for name, count in audit["outcomes"].items() if count}


def test_without_a_worker_a_redrive_takes_effect_when_one_runs(broken: Project) -> None:
    result = broken.run("dlq", "redrive", "billing", "--all")
    assert (result.code, result.json["status"], len(result.json["records"])) == (0, "asked", 1)
    told = broken.run("subscriptions", "resume", "billing", "--table")
    assert "takes effect when a worker runs" in told.out
    broken.write("mended", "")
    broken.handle_all()
    assert outcomes(broken) == {"done": 5}


def test_a_redrive_names_its_run_at_once_where_no_terminal_reads_too(broken: Project) -> None:
    result = broken.run("dlq", "redrive", "billing", "--all", "--json")
    assert result.err == f"run {result.json['run']}\n"


def test_dead_letters_are_redriven_by_key_or_id(broken: Project) -> None:
    letter = broken.run("dlq", "list").json[0]["dead_letters"][0]["id"]
    assert broken.run("dlq", "redrive", "billing", letter).json["records"] == [letter]
    assert broken.run("dlq", "redrive", "billing", "--key", "ann").json["records"] == [letter]
    nothing = broken.run("dlq", "redrive", "billing", "--key", "bob")
    assert (nothing.code, nothing.json["status"]) == (1, "nothing")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "isn't clear which"),
        (["--all", "--key", "ann"], "isn't clear which"),
        (["0:0", "--all"], "isn't clear which"),
        (["1-77"], "names no record"),
    ],
)
def test_a_redrive_that_is_not_clear_asks_for_nothing(broken: Project, arguments: list[str], complaint: str) -> None:
    result = broken.run("dlq", "redrive", "billing", *arguments)
    assert (result.code, result.out) == (2, "")
    assert complaint in result.err


@pytest.mark.parametrize(
    "asked",
    [
        ["dlq", "show", "billing", "1:77"],
        ["dlq", "redrive", "billing", "1:77"],
        ["dlq", "edit", "billing", "1:77", "--set", "total=1", "--reason", "a test"],
        ["dlq", "discard", "billing", "1:77", "--reason", "a test"],
        ["subscriptions", "retry", "billing", "1:77"],
    ],
)
def test_an_id_that_names_nothing_is_a_no(broken: Project, asked: list[str]) -> None:
    result = broken.run(*asked)
    assert (result.code, result.out) == (1, "")
    assert "1:77" in result.err
    assert "fix: " in result.err


@pytest.mark.parametrize("rate", ["1e-300", "0.009", "0", "-1", "nan"])
@pytest.mark.parametrize("asked", [["redrive"], ["discard", "--reason", "a test"]])
def test_a_rate_that_would_hang_is_refused(broken: Project, asked: list[str], rate: str) -> None:
    before = outcomes(broken)
    result = broken.run("dlq", *asked, "billing", "--all", "--rate", rate)
    assert (result.code, result.out) == (2, "")
    assert "Give 0.01 or more" in result.err
    broken.handle_all()
    assert outcomes(broken) == before


def test_a_discard_needs_a_reason_and_lets_the_key_flow(broken: Project) -> None:
    letter = broken.run("dlq", "list").json[0]["dead_letters"][0]["id"]
    without = broken.run("dlq", "discard", "billing", letter)
    assert without.code == 2
    assert "--reason" in without.err
    assert broken.run("dlq", "discard", "billing", letter, "--reason", "a test").code == 0
    broken.handle_all()
    assert outcomes(broken) == {"done": 4, "discarded": 1}


def test_a_paused_subscription_reads_nothing_until_it_is_resumed(broken: Project) -> None:
    broken.run("subscriptions", "pause", "billing")
    broken.handle_all()
    assert broken.run("lag").json[0]["status"] == "paused"
    broken.run("publish", "shop.orders", "shop.OrderPlaced", given='{"customer":"bob","total":1}')
    broken.handle_all()
    assert broken.run("lag").json[0]["lag_records"] == 1
    broken.run("subscriptions", "resume", "billing")
    broken.handle_all()
    assert outcomes(broken) == {"done": 3, "dead-lettered": 1, "held": 2}


AWAY = """
from pathlib import Path

from msgspec import Struct

from postline import App, Retry, Topic

orders = Topic("shop.orders", owner="shop", key="customer")

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str
    total: int

app = App("shop", owns=[orders])

@app.subscribe("billing", orders, start="earliest", retry=Retry(immediate=0, delays=(3600,))).on(OrderPlaced)
async def bill(order: OrderPlaced) -> None:
    if not Path("backend").exists():
        raise ConnectionError("the backend is away")
"""


def test_what_waits_an_hour_is_attempted_at_once_when_its_backend_is_back(project: Project) -> None:
    project.write("app.py", AWAY)
    project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given='{"customer":"bob","total":1}')
    project.handle_all()
    assert project.run("lag").json[0]["retrying"] == 1
    project.write("backend", "")
    asked = project.run("subscriptions", "retry", "billing")
    assert (asked.code, asked.json["status"]) == (0, "asked")
    project.handle_all()
    assert outcomes(project) == {"done": 1}


def test_a_record_to_retry_is_one_that_is_held(broken: Project) -> None:
    assert broken.run("subscriptions", "retry", "billing", "first").code == 2
    refused = broken.run("subscriptions", "retry", "billing", "0:999")
    assert (refused.code, "has no held record 0:999" in refused.err) == (1, True)


def test_a_reset_says_what_it_means_and_asks(broken: Project) -> None:
    unasked = broken.run("subscriptions", "reset", "billing", "--to-earliest")
    assert unasked.code == 2
    assert "5 offsets that were handled are read again" in unasked.err
    assert "1 dead letters are dropped" in unasked.err
    assert "fix: Add --yes." in unasked.err
    assert broken.run("subscriptions", "reset", "billing", "--to-earliest", "--yes").json["status"] == "asked"
    broken.write("mended", "")
    broken.handle_all()
    assert outcomes(broken) == {"done": 5}
    assert broken.run("dlq", "list").json[0]["dead_letters"] == []


def test_a_reset_to_the_end_gives_up_what_is_held(broken: Project) -> None:
    told = broken.run("subscriptions", "reset", "billing", "--to-latest", "--keep-state", "--yes")
    assert "2 held records are given up and count as discarded" in told.err
    assert "1 dead letters below the new position stay" in told.err
    assert "state stays" in told.err
    broken.handle_all()
    (audit,) = broken.run("audit").json
    assert sum(each["discarded_by_resets"] for each in audit["partitions"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--to-earliest", "--to-latest"],
        ["--to-time", "soon"],
        ["--to-offset", "-1"],
        ["--to-latest", "--partition", "9"],
    ],
)
def test_a_reset_that_is_not_clear_moves_nothing(broken: Project, arguments: list[str]) -> None:
    result = broken.run("subscriptions", "reset", "billing", "--yes", *arguments)
    assert (result.code, result.out) == (2, "")
    assert "fix:" in result.err


def test_a_subscription_is_removed_once_that_is_confirmed(broken: Project) -> None:
    unasked = broken.run("subscriptions", "remove", "billing")
    assert unasked.code == 2
    assert "2 held, 1 dead letters" in unasked.err
    assert broken.run("subscriptions", "remove", "billing", "--yes").code == 0
    assert broken.run("subscriptions").json == []
    assert broken.run("subscriptions", "remove", "billing", "--yes").code == 3


def _letter(broken: Project) -> dict[str, object]:
    (letter,) = broken.run("dlq", "list").json[0]["dead_letters"]
    return letter


def test_dead_letters_are_grouped_and_redriven_by_group(broken: Project) -> None:
    (found,) = broken.run("dlq", "groups", "billing").json
    (group,) = found["groups"]
    assert (group["count"], group["error_type"], group["example"]) == (1, "ValueError", _letter(broken)["id"])
    assert "bill (line" in group["place"]
    assert group["group"] in broken.run("dlq", "groups", "--table").out
    assert broken.run("dlq", "redrive", "billing", "--group", "00000000").code == 1
    answer = broken.run("dlq", "redrive", "billing", "--group", group["group"], "--limit", "5", "--rate", "100").json
    assert (answer["asked"], answer["status"]) == (1, "asked")
    assert answer["run"]


def test_a_rule_chooses_dead_letters_by_their_content(broken: Project) -> None:
    yes, no = '{"field": "total", "lt": 0}', '{"field": "total", "gt": 0}'
    assert len(broken.run("dlq", "list", "billing", "--where", yes).json[0]["dead_letters"]) == 1
    assert broken.run("dlq", "list", "billing", "--where", no).json[0]["dead_letters"] == []
    for wrong in ("total < 0", '{"total": 1}'):
        assert broken.run("dlq", "list", "--where", wrong).code == 2


def test_a_monitor_is_told_by_the_exit_code_how_many_there_are(broken: Project) -> None:
    assert broken.run("dlq", "list", "--fail-above", "1").code == 0
    assert broken.run("dlq", "list", "--fail-above", "0").code == 1


def test_an_edit_is_checked_kept_and_redriven(broken: Project) -> None:
    letter = str(_letter(broken)["id"])
    refused = broken.run("dlq", "edit", "billing", letter, "--set", "total=much", "--reason", "a test")
    assert (refused.code, "breaks the contract" in refused.err) == (2, True)
    by = ("--reason", "it was negative", "--by", "ann")
    assert broken.run("dlq", "edit", "billing", letter, "--set", "total=3", *by).json["status"] == "asked"
    broken.handle_all()
    assert outcomes(broken) == {"done": 5}
    assert broken.run("dlq", "edit", "billing", letter, "--set", "total=3", *by).code == 1


def test_an_edit_with_a_key_twice_is_refused(broken: Project) -> None:
    letter = str(_letter(broken)["id"])
    because = ("--reason", "it was negative")
    twice = '{"order_id": "0", "customer": "ann", "total": 1, "total": 2}'
    for refused in (
        broken.run("dlq", "edit", "billing", letter, "--stdin", *because, given=twice),
        broken.run("dlq", "edit", "billing", letter, "--set", 'total={"a": 1, "a": 2}', *because),
    ):
        assert (refused.code, refused.out) == (2, "")
        assert "twice in one object" in refused.err
    assert _letter(broken)["edited"] is False
    assert broken.run("dlq", "list", "--where", '{"field": "total", "gt": 1, "gt": 0}').code == 2


def test_a_kept_edit_is_shown_with_its_author_and_the_original(broken: Project) -> None:
    letter = str(_letter(broken)["id"])
    broken.run(
        "dlq", "edit", "billing", letter, "--set", "total=3", "--reason", "it was negative", "--by", "ann", "--keep"
    )
    broken.handle_all()
    shown = broken.run("dlq", "show", "billing", letter).json
    assert (shown["edit"]["by"], shown["edit"]["reason"]) == ("ann", "it was negative")
    assert (shown["record"]["data"]["total"], shown["original"]["data"]["total"]) == (3, -1)
    assert shown["conversation"]
    assert "by ann: it was negative" in broken.run("dlq", "show", "billing", letter, "--table").out


def test_dead_letters_are_exported_as_json_lines(broken: Project) -> None:
    lines = broken.run("dlq", "export", "billing").out.splitlines()
    assert [msgspec.json.decode(line)["postlineerrortype"] for line in lines] == ["ValueError"]
    assert broken.run("dlq", "export", "billing", "--key", "bob").code == 1


def test_a_dry_run_says_what_would_become_of_them_and_asks_for_nothing(broken: Project) -> None:
    found = broken.run("dlq", "redrive", "billing", "--all", "--dry-run", "app:app")
    assert (found.code, found.json["letters"], sum(found.json["not_run"].values())) == (0, 1, 1)
    assert "were not run" in broken.run("dlq", "redrive", "billing", "--all", "--dry-run", "app:app", "--table").out
    assert _letter(broken)["redrives"] == 0
