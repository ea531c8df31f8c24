"""`postline contracts`: written down, checked, compared and shown, from the working directory or a git revision."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.unit.cli.conftest import APP, Project

BROKEN = APP.replace("total: int", "total: int\n    currency: str")
MENDED = APP.replace("total: int", 'total: int\n    currency: str = "EUR"')


@pytest.fixture
def written(project: Project) -> Project:
    """A project whose contracts were written down."""
    assert project.run("contracts", "snapshot", "app.py").code == 0
    return project


def change(project: Project, text: str) -> str:
    """Another version of the app, in a file of its own; gives its name."""
    project.write("next.py", text)
    return "next.py"


def git(project: Project, *arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", *who, *arguments], cwd=project.folder, check=True, capture_output=True)


def test_a_snapshot_is_written_once(written: Project) -> None:
    path = written.folder / "contracts" / "shop.orders.json"
    before = path.read_bytes()
    again = written.run("contracts", "snapshot", "app.py")
    assert (again.code, again.out.split()[0]) == (0, "unchanged")
    assert path.read_bytes() == before
    assert json.loads(before)["types"].keys() == {"shop.OrderPlaced"}


def test_check_refuses_what_breaks_somebody_with_path_and_remedy(written: Project) -> None:
    result = written.run("contracts", "check", change(written, BROKEN), "--json")
    (found,) = result.json
    assert (result.code, found["topic"], found["type"]) == (1, "shop.orders", "shop.OrderPlaced")
    assert [each["path"] for each in found["findings"][0]["breaks"]] == ["currency"]
    assert "default" in found["findings"][0]["breaks"][0]["remedy"]
    shown = written.run("contracts", "check", "next.py", "--table")
    assert "shop.OrderPlaced on shop.orders breaks records of version 1" in shown.err


def test_check_lets_pass_what_breaks_nobody(written: Project) -> None:
    result = written.run("contracts", "check", change(written, MENDED))
    assert (result.code, result.json) == (0, [])


def test_what_breaks_somebody_is_not_written_down_unless_it_is_forced(written: Project) -> None:
    path = written.folder / "contracts" / "shop.orders.json"
    before = path.read_bytes()
    assert written.run("contracts", "snapshot", change(written, BROKEN)).code == 1
    assert path.read_bytes() == before
    assert written.run("contracts", "snapshot", "next.py", "--force").code == 0
    assert len(json.loads(path.read_bytes())["types"]["shop.OrderPlaced"]["versions"]) == 2


def test_check_compares_with_a_git_revision(written: Project) -> None:
    git(written, "init", "-q")
    git(written, "add", "contracts")
    git(written, "commit", "-qm", "contracts")
    assert written.run("contracts", "snapshot", change(written, BROKEN), "--force").code == 0
    assert written.run("contracts", "check", "next.py").code == 0
    assert written.run("contracts", "check", "next.py", "--against", "HEAD").code == 1
    unknown = written.run("contracts", "check", "next.py", "--against", "nowhere")
    assert unknown.code not in (0, 1)
    assert "nowhere" in unknown.err


def test_a_change_of_owner_or_key_is_refused(written: Project) -> None:
    result = written.run("contracts", "check", change(written, APP.replace('key="customer"', 'key="total"')), "--json")
    assert result.code == 1
    assert "key" in result.json[0]["problems"][0]


def test_diff_tells_every_change(written: Project) -> None:
    assert written.run("contracts", "diff", "app.py").json == []
    result = written.run("contracts", "diff", change(written, MENDED), "--json")
    assert result.json[0]["changes"] == [{"path": "currency", "said": "added: text, 'EUR' by default"}]


def test_a_type_nobody_has_written_down_is_new_and_breaks_nobody(project: Project) -> None:
    assert project.run("contracts", "check", "app.py").code == 0
    assert project.run("contracts", "diff", "app.py", "--json").json[0]["changes"] == [{"path": "", "said": "is new"}]


@pytest.mark.parametrize(
    ("format_name", "said"),
    [
        ("words", "OrderPlaced.total: integer"),
        ("json", '"type": "integer"'),
        ("protobuf", "int64 total"),
    ],
)
def test_show_writes_a_contract_in_each_format(project: Project, format_name: str, said: str) -> None:
    result = project.run("contracts", "show", "app.py", "shop.OrderPlaced", "--format", format_name)
    assert result.code == 0
    assert said in result.out


def test_show_refuses_a_type_that_is_not_declared(project: Project) -> None:
    result = project.run("contracts", "show", "app.py", "shop.Nothing")
    assert result.code == 2
    assert "shop.Nothing" in result.err


def test_a_damaged_snapshot_is_named(written: Project) -> None:
    (written.folder / "contracts" / "shop.orders.json").write_text("{")
    result = written.run("contracts", "check", "app.py")
    assert result.code not in (0, 1)
    assert "shop.orders.json" in result.err
