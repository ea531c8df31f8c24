"""`postline migrate`: copying while services work, cutting over, taking back."""

from __future__ import annotations

from tests.unit.cli.conftest import Project

SOURCE, TARGET = "sqlite:///postline.db", "sqlite:///new.db"


def audit(project: Project, url: str) -> dict[str, int]:
    (found,) = project.run("audit", "billing", "--url", url, "--json").json
    assert found["balanced"]
    return {name: count for name, count in found["outcomes"].items() if count}


def test_a_log_is_copied_then_cut_over_and_says_where_it_went(broken: Project) -> None:
    before = audit(broken, SOURCE)
    copied = broken.run("migrate", SOURCE, TARGET, "--table")
    assert (copied.code, "still is the log" in copied.out) == (0, True)
    moved = broken.run("migrate", SOURCE, TARGET, "--cut-over")
    assert (moved.code, moved.json["moved"]) == (0, True)
    assert [each["name"] for each in moved.json["subscriptions"]] == ["billing"]
    assert audit(broken, TARGET) == before
    looked = broken.run("lag", "--url", SOURCE)
    assert "has moved to sqlite:///" in looked.err
    given = '{"customer": "ann", "total": 1}\n'
    refused = broken.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=given)
    assert (refused.code, "has moved to" in refused.err) == (3, True)
    again = broken.run("migrate", SOURCE, TARGET, "--abandon")
    assert (again.code, "--force" in again.err) == (2, True)
    assert broken.run("migrate", SOURCE, TARGET, "--abandon", "--force").code == 0
    assert broken.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "app.py", given=given).code == 0


def test_what_contradicts_itself_or_is_not_there_is_refused(project: Project) -> None:
    assert project.run("migrate", SOURCE, TARGET).code == 3
    assert project.run("migrate", SOURCE, TARGET, "--cut-over", "--abandon").code == 2
    assert project.run("migrate", SOURCE, TARGET, "--force").code == 2
    assert not (project.folder / "new.db").exists()


def test_the_same_log_or_one_in_memory_is_no_target(broken: Project) -> None:
    same = broken.run("migrate", SOURCE, "sqlite:///./postline.db")
    assert (same.code, "both source and target" in same.err) == (2, True)
    assert broken.run("migrate", SOURCE, "sqlite://").code == 2


def test_a_source_whose_target_is_gone_is_opened_again_by_force(broken: Project) -> None:
    assert broken.run("migrate", SOURCE, TARGET, "--cut-over").code == 0
    gone = "sqlite:///no-such-directory/new.db"
    assert broken.run("migrate", SOURCE, gone, "--abandon").code == 3
    assert broken.run("migrate", SOURCE, gone, "--abandon", "--force").code == 0
    assert "has moved" not in broken.run("lag", "--url", SOURCE).err


def test_back_into_the_log_that_was_left_is_refused_and_the_present_one_stays_open(broken: Project) -> None:
    assert broken.run("migrate", SOURCE, TARGET, "--cut-over").code == 0
    for more in ((), ("--cut-over",)):
        back = broken.run("migrate", TARGET, SOURCE, *more)
        assert (back.code, "postline.db is closed: what it had was moved to" in back.err) == (2, True)
    assert "has moved" not in broken.run("lag", "--url", TARGET).err
    assert "has moved to" in broken.run("lag", "--url", SOURCE).err


def test_a_source_whose_target_is_damaged_is_opened_again_by_force(broken: Project) -> None:
    assert broken.run("migrate", SOURCE, TARGET, "--cut-over").code == 0
    (broken.folder / "new.db").write_bytes(b"no log any more" * 1_000)
    assert broken.run("migrate", SOURCE, TARGET, "--abandon").code == 3
    forced = broken.run("migrate", SOURCE, TARGET, "--abandon", "--force")
    assert (forced.code, "It stays as it is." in forced.err) == (0, True)
    assert "has moved" not in broken.run("lag", "--url", SOURCE).err
