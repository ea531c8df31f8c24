"""`postline publish`: every line is published or named, by contract or raw."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.conftest import Project

GOOD = '{"customer":"ann","total":1}\n'
WITH_APP = ("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py")
RAW = ("publish", "shop.orders", "shop.OrderPlaced")


def records(project: Project, topic: str = "shop.orders") -> list[dict]:
    return [json.loads(line) for line in project.run("tail", topic, "--from", "earliest").out.splitlines()]


@pytest.mark.parametrize("command", [WITH_APP, RAW], ids=["contract", "raw"])
def test_bad_lines_are_named_by_number_and_the_others_published_in_order(
    project: Project, command: tuple[str, ...]
) -> None:
    project.run(*WITH_APP)
    lines = [GOOD, "\n", '{"total":2}\n', "nonsense\n", '{"customer":"ann","total":5}']
    result = project.run(*command, given="".join(lines))
    assert result.code == 1
    assert result.json == {"topic": "shop.orders", "type": "shop.OrderPlaced", "published": 2, "refused": 2}
    assert "error: line 3: " in result.err
    assert "error: line 4: " in result.err
    assert "line 2" not in result.err
    assert [record["data"]["total"] for record in records(project)] == [1, 5]


def test_a_field_of_the_wrong_type_is_refused_by_the_contract(project: Project) -> None:
    result = project.run(*WITH_APP, given='{"customer":"ann","total":"many"}\n')
    assert result.code == 1
    assert "line 1: It is no shop.OrderPlaced: Expected `int`, got `str`" in result.err


def test_a_field_that_the_contract_does_not_have_is_refused_rather_than_lost(project: Project) -> None:
    result = project.run(*WITH_APP, given=GOOD + '{"customer":"ann","total":1,"totl":2}\n')
    assert (result.code, result.json["published"]) == (1, 1)
    assert "line 2: shop.OrderPlaced has no field 'totl', so it would be lost" in result.err


def test_a_field_that_becomes_the_id_need_not_be_in_the_contract(project: Project) -> None:
    given = '{"customer":"ann","total":1,"meta":{"id":"o-1"}}\n'
    result = project.run(*WITH_APP, "--id-field", "meta.id", given=given)
    assert (result.code, result.json["published"]) == (0, 1)


def test_nothing_is_published_after_the_first_refused_line_if_told_to_stop(project: Project) -> None:
    result = project.run(*WITH_APP, "--stop-on-error", given=GOOD + "{}\n" + GOOD)
    assert (result.code, result.json["published"], result.json["refused"]) == (1, 1, 1)
    assert len(records(project)) == 1


def test_repeating_with_ids_is_dropped_by_subscriptions(project: Project) -> None:
    given = '{"customer":"ann","total":1,"n":7}\n'
    for _ in range(2):
        assert project.run(*WITH_APP, "--id-field", "n", given=given).code == 0
    assert project.run(*RAW, "--id-field", "n", given=given).code == 0
    project.handle_all()
    (audit,) = project.run("audit").json
    # The raw one has another source, so that it is another message.
    assert (audit["outcomes"]["done"], audit["outcomes"]["duplicate"]) == (2, 1)
    missing = project.run(*WITH_APP, "--id-field", "n", given=GOOD)
    assert (missing.code, missing.json["refused"]) == (1, 1)


def test_raw_records_are_keyed_and_placed_as_by_the_contract(project: Project) -> None:
    lines = "".join(f'{{"customer":"c{number}","total":{number}}}\n' for number in range(40))
    project.run(*WITH_APP, given=lines)
    project.run(*RAW, given=lines)
    project.run(*RAW, "--key-field", "customer", given=lines)
    placed: dict[str, set[int]] = {}
    for record in records(project):
        placed.setdefault(record["key"], set()).add(record["partition"])
    assert len(placed) == 40
    assert all(len(partitions) == 1 for partitions in placed.values())


def test_a_key_can_be_given_once_for_all(project: Project) -> None:
    project.run(*WITH_APP)
    project.run(*RAW, "--key", "all", given='{"level":3}\n[1,2]\n')
    assert [(record["key"], record["data"]) for record in records(project)] == [("all", {"level": 3}), ("all", [1, 2])]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["nothing", "shop.OrderPlaced"], 3, "no topic 'nothing'"),
        (["shop.orders", "T", "--key", "k", "--key-field", "f"], 2, "contradict"),
        (["shop.orders", "T", "--app", "app.py"], 2, "declares no type 'T'"),
        (["other", "T", "--app", "app.py"], 2, "does not publish to topic 'other'"),
        (["shop.orders", "shop.OrderPlaced", "--app", "app.py", "--key", "k"], 2, "contract of --app"),
        (["shop.orders", "shop.OrderPlaced", "--app", "missing.py"], 2, "no file missing.py"),
    ],
)
def test_what_can_not_be_published_to_is_named(
    project: Project, arguments: list[str], code: int, complaint: str
) -> None:
    project.run(*WITH_APP)
    result = project.run("publish", *arguments, given=GOOD)
    assert (result.code, result.out) == (code, "")
    assert complaint in result.err


def test_many_lines_arrive_in_order(project: Project) -> None:
    lines = "".join(f'{{"customer":"ann","total":{number}}}\n' for number in range(5_000))
    assert project.run(*WITH_APP, given=lines).json["published"] == 5_000
    assert [record["data"]["total"] for record in records(project)] == list(range(5_000))


def test_publishing_without_a_contract_says_so(broken: Project) -> None:
    result = broken.run("publish", "shop.orders", "shop.OrderPlaced", given='{"customer": "bob", "total": 1}\n')
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert "without --app no contract checks these lines" in result.err
    assert broken.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py").err == ""
