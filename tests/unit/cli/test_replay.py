"""`postline replay`: what it says, asks, does and leaves."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Project

BILLING = ("replay", "billing", "--app", "app.py", "--from", "earliest")


@pytest.fixture
def shop(broken: Project) -> Project:
    """The shop, whose code can be mended by a file."""
    return broken


def test_a_replay_says_what_it_did_and_leaves_nothing_behind(shop: Project) -> None:
    (shop.folder / "mended").touch()
    before = shop.run("lag", "--json").json
    result = shop.run(*BILLING, "--yes", "--json")
    assert (result.code, result.json["status"], result.json["outcomes"]["done"]) == (0, "done", 5)
    assert (result.json["subscription"], result.json["shadow"]) == ("billing", "billing.replay.1")
    assert "what handlers do elsewhere (calls, mails, other databases) happens again" in result.err
    after = shop.run("lag", "--json").json
    assert [each["name"] for each in after] == ["billing"]
    keys = ("lag_records", "held", "dead_letters", "partitions")
    assert [[each[key] for key in keys] for each in after] == [[each[key] for key in keys] for each in before]


def test_what_fails_again_is_kept_under_the_shadows_name_and_the_exit_code_says_so(shop: Project) -> None:
    result = shop.run(*BILLING, "--yes", "--table")
    assert result.code == 1
    assert "1 dead-lettered" in result.out
    assert "look at them: postline dlq groups billing.replay.1" in result.out
    assert [each["count"] for each in shop.run("dlq", "groups", "billing.replay.1", "--json").json[0]["groups"]] == [1]
    assert shop.run("subscriptions", "remove", "billing.replay.1", "--yes").code == 0


def test_a_shadow_is_kept_if_asked_for_with_its_state(shop: Project) -> None:
    (shop.folder / "mended").touch()
    assert shop.run(*BILLING, "--yes", "--keep", "--name", "kept", "--key", "bob").code == 0
    audit = shop.run("audit", "billing.replay.kept", "--json").json[0]
    assert (audit["outcomes"]["done"], audit["balanced"]) == (2, True)


def test_the_same_command_again_finds_nothing_left_to_do(shop: Project) -> None:
    (shop.folder / "mended").touch()
    first, second = (shop.run(*BILLING, "--yes", "--keep", "--json").json for _ in range(2))
    assert first == second


def test_what_no_worker_has_begun_yet_is_replayed_in_a_namespace_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTLINE_NAMESPACE", "eu")
    absent = project.run(*BILLING, "--yes", "--url", "sqlite:///log.db")
    assert absent.code == 3
    order = '{"customer": "ann", "total": 1}'
    assert project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=order).code == 0
    for name in ("billing", "eu.billing"):
        found = project.run("replay", name, *BILLING[2:], "--yes", "--json")
        assert (found.code, found.json["shadow"], found.json["passed"]) == (0, "eu.billing.replay.1", 1)
    wrong = project.run("replay", "billings", *BILLING[2:], "--yes")
    assert wrong.code == 2
    assert "has no subscription 'eu.billings'; it has eu.billing" in wrong.err


@pytest.mark.parametrize("other", [("--key", "ann"), ("--until", "1s"), ("--publish",)], ids=lambda each: each[0])
def test_a_shadow_that_replayed_something_else_is_no_answer(shop: Project, other: tuple[str, ...]) -> None:
    (shop.folder / "mended").touch()
    asked = (*BILLING, "--yes", "--keep", "--key", "bob")
    assert shop.run(*asked).code == 0
    result = shop.run(*asked, *other)
    assert result.code == 2
    assert "was begun as `--from earliest --key bob`" in result.err
    assert "another --name" in result.err
    assert shop.run(*asked, *other, "--name", "other").code == 0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("--from", "1h", "--until", "2h", "--yes"), "would end before it begins"),
        (("--from", "earliest"), "--yes"),
        (("--from", "earliest", "--name", "a.b", "--yes"), "can't name a replay"),
        (("--from", "yesterday", "--yes"), "yesterday"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_made(shop: Project, said: tuple[str, ...], words: str) -> None:
    result = shop.run("replay", "billing", "--app", "app.py", *said)
    assert result.code == 2
    assert words in result.err
    assert [each["name"] for each in shop.run("lag", "--json").json] == ["billing"]


def test_an_unknown_subscription_is_refused(shop: Project) -> None:
    result = shop.run("replay", "nobody", "--app", "app.py", "--from", "1h", "--yes")
    assert result.code == 2
    assert "nobody" in result.err
