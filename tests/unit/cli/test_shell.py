"""The shell around the commands: help, unknown things, how apps are named and loaded, times, and exit codes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from postline import errors
from postline.cli.failures import exit_code_of
from postline.cli.loading import load_app, load_apps
from postline.cli.output import table
from postline.cli.root import _COMMANDS, postline
from postline.cli.signals import StopSignals
from postline.cli.sources import Sources
from postline.cli.times import parse_time_ms
from postline.clock import VirtualClock
from postline.errors import UsageError
from postline.logs import TextFormatter
from tests.unit.cli.conftest import Project

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3] / "src")}


def commands() -> list[list[str]]:
    found = []
    for name in _COMMANDS:
        found.append([name])
        command = postline.get_command(None, name)  # type: ignore[arg-type]
        found += [[name, below] for below in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(project: Project, command: list[str]) -> None:
    result = project.run(*command, "--help")
    assert result.code == 0
    assert "Example" in result.out
    assert f"postline {' '.join(command[:2])}" in result.out


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = (
        "import sys; from postline.cli import main; main(['--help']);"
        "print([n for n in sys.modules if n.startswith(('rich', 'postline.cli.', 'postline.demo'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "subscriptions" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "['postline.cli.failures', 'postline.cli.root']"


@pytest.mark.parametrize("arguments", [["lagg"], ["lag", "--nonsense"], ["run"], ["topics", "--json", "show", "x"]])
def test_wrong_usage_is_two_with_a_hint(project: Project, arguments: list[str]) -> None:
    result = project.run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert "--help`" in result.err


def test_a_wrong_url_is_told_with_its_remedy(project: Project) -> None:
    result = project.run("lag", "--url", "mysql://somewhere")
    assert result.code == 2
    assert "names no engine" in result.err
    assert "fix: " in result.err


def test_the_url_of_the_environment_is_used_and_the_option_wins(
    broken: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTLINE_URL", "sqlite:///elsewhere.db")
    assert broken.run("lag").code == 3
    assert broken.run("lag", "--url", "sqlite:///postline.db").code == 0


def test_a_foreign_file_is_refused(project: Project) -> None:
    project.write("postline.db", "this is no log" * 1000)
    result = project.run("lag")
    assert result.code == 3
    assert "fix: " in result.err
    assert "Traceback" not in result.err


def test_every_error_has_its_exit_code() -> None:
    kinds = {name: getattr(errors, name) for name in errors.__all__}
    codes = {name: exit_code_of(kind("x")) for name, kind in kinds.items()}
    # A command's outcome is what was asked for, and no fault of the log.
    failed = {"PostlineError", "OutcomeError", "Refused", "HandlerFault", "RequestTimeout"}
    failed |= {"DeliveryFailed", "ForbiddenAddress", "SignatureRefused"}  # of webhooks, which a service posts or takes
    assert {codes.pop(name) for name in failed} == {4}
    assert codes.pop("UnknownRecord") == 1  # it may have ended meanwhile
    usage = {
        "ContractError",
        "DecodeError",
        "EncodeError",
        "MessageError",
        "MessageTooLarge",
        "RequestIdReused",
        "SettingsError",
        "UsageError",
    }
    assert {name for name, code in codes.items() if code == 2} == usage
    assert {code for name, code in codes.items() if name not in usage} == {3}


# Apps by name.


def test_apps_are_found_by_file_module_and_name(project: Project) -> None:
    project.write("two.py", "from postline import App\nfirst = App('first')\nsecond = App('second')\nother = 3\n")
    (project.folder / "package").mkdir()
    project.write("package/__init__.py", "")
    project.write("package/service.py", "from postline import App\nservice = App('inside')\n")
    assert load_app("app.py").name == "shop"
    assert load_app("app").name == "shop"
    assert load_app("app:app").name == "shop"
    assert load_app("two:second").name == "second"
    assert load_app("package.service").name == "inside"
    assert load_app("package/service.py:service").name == "inside"


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("nowhere", "no module 'nowhere'"),
        ("nowhere.at.all:app", "no module 'nowhere'"),
        ("nowhere.py", "no file nowhere.py"),
        ("two", "several apps"),
        ("two:third", "Module 'two' has no 'third'"),
        ("two:other", "'two:other' is no postline.App but a int"),
        ("empty", "no app"),
        ("broken_syntax", "can't be imported"),
        ("broken_import", "can't be imported"),
    ],
)
def test_an_app_that_can_not_be_found_is_named_with_a_remedy(project: Project, target: str, complaint: str) -> None:
    project.write("two.py", "from postline import App\nfirst = App('first')\nsecond = App('second')\nother = 3\n")
    project.write("empty.py", "x = 1\n")
    project.write("broken_syntax.py", "def f(:\n")
    project.write("broken_import.py", "import a_module_that_does_not_exist\n")
    result = project.run("run", target)
    assert result.code == 2
    assert complaint in result.err
    assert "fix: " in result.err
    assert "importlib" not in result.err
    assert "postline/cli" not in result.err


def test_the_error_of_a_declaration_is_told_without_a_traceback(project: Project) -> None:
    project.write("bad.py", "from postline import Topic\nTopic('a b', owner='me')\n")
    result = project.run("run", "bad")
    assert result.code == 2
    assert "'a b' can't be a topic's name" in result.err
    assert "Traceback" not in result.err


def test_owners_of_topics_start_before_their_readers(project: Project) -> None:
    project.write(
        "reader.py",
        "from msgspec import Struct\nfrom postline import App, ForeignTopic\n"
        "foreign = ForeignTopic('shop.orders')\napp = App('reader')\n"
        "subscription = app.subscribe('reading', foreign, start='earliest')\n",
    )
    assert [app.name for app in load_apps(("reader", "app"))] == ["shop", "reader"]
    with pytest.raises(UsageError, match="Two of the apps are named 'shop'"):
        load_apps(("app", "app"))


# Times and sources.


def test_times_are_moments_with_a_zone_or_spans_ago() -> None:
    assert parse_time_ms("2026-05-01T12:00:00Z", 0) == 1_777_636_800_000
    assert parse_time_ms("2026-05-01T14:00:00+02:00", 0) == 1_777_636_800_000
    assert parse_time_ms("2h", 10_000_000) == 2_800_000
    for text in ("2026-05-01T12:00:00", "17", "", "tomorrow"):
        with pytest.raises(UsageError, match="is no time"):
            parse_time_ms(text, 0)


def test_changed_sources_are_named_once(project: Project) -> None:
    (project.folder / ".venv").mkdir()
    sources = Sources(project.folder)
    assert sources.changed() == []
    project.write("new.py", "x = 1\n")
    project.write("app.py", "x = 22\n")
    project.write("notes.txt", "no source")
    project.write(".venv/there.py", "")
    assert sources.changed() == ["app.py", "new.py"]
    assert sources.changed() == []
    (project.folder / "new.py").unlink()
    assert sources.changed() == ["new.py"]


def test_init_writes_a_project_that_runs_and_overwrites_nothing(project: Project) -> None:
    assert project.run("init", "fresh", "--json").json["files"][0] == "contracts.py"
    again = project.run("init", "fresh")
    assert again.code == 2
    assert "has contracts.py, app.py" in again.err
    project.write("empty.ini", "")
    empty = str(project.folder / "empty.ini")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", empty, "--rootdir", "."],
        cwd=project.folder / "fresh",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
    ignored = (project.folder / "fresh/.gitignore").read_text().splitlines()
    assert {"postline.db", "postline.db-*", "postline.db.run/"} <= set(ignored)
    lines = (project.folder / "fresh/orders.jsonl").read_text()
    result = project.run("publish", "shop.orders", "shop.OrderPlaced", "--app", "fresh/app.py", given=lines)
    assert (result.code, result.json["published"]) == (0, len(lines.splitlines()))
    assert json.loads(lines.splitlines()[0])["order"] == "1"


def test_init_leaves_a_gitignore_that_is_there(project: Project) -> None:
    (project.folder / "fresh").mkdir()
    project.write("fresh/.gitignore", "mine\n")
    result = project.run("init", "fresh", "--json")
    assert result.code == 0
    assert ".gitignore" not in result.json["files"]
    assert (project.folder / "fresh/.gitignore").read_text() == "mine\n"


def test_what_an_app_contradicts_itself_in_is_told_with_a_remedy(project: Project) -> None:
    project.write(
        "twice.py", "from postline import App, Topic\napp = App('me', owns=[Topic('t', owner='somebody', key='k')])\n"
    )
    result = project.run("run", "twice")
    assert result.code == 2
    assert "App 'me' can't start:" in result.err
    assert "fix: Mend what is listed above." in result.err


def test_log_lines_have_the_times_of_records() -> None:
    record = logging.LogRecord("postline", logging.WARNING, __file__, 1, "it retries", None, None)
    record.created, record.msecs = 1_777_636_800.042, 42.0
    assert TextFormatter().format(record) == "2026-05-01T12:00:00.042Z WARNING postline: it retries"


# Signals.


def test_a_signal_that_follows_at_once_is_the_same_one() -> None:
    clock = VirtualClock()
    stop = StopSignals(clock)
    stop.tell()
    clock.move_to(0.9)
    stop.tell()
    assert (stop.asked.is_set(), stop.ordered.is_set()) == (True, False)
    clock.move_to(1.1)
    stop.ask()
    assert not stop.ordered.is_set()
    stop.tell()
    assert stop.ordered.is_set()


def test_a_signal_right_after_another_reason_to_stop_orders_nothing() -> None:
    clock = VirtualClock()
    stop = StopSignals(clock)
    clock.move_to(100)
    stop.ask()
    stop.tell()
    assert (stop.asked.is_set(), stop.ordered.is_set()) == (True, False)


# Tables.


@pytest.mark.parametrize(("width", "is_left_out"), [(24, True), (80, False)])
def test_a_narrow_terminal_is_spared_columns_of_zeros_by_name(
    monkeypatch: pytest.MonkeyPatch, width: int, is_left_out: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    drawn = table(("subscription", ">lag", ">dead", "status"), [("billing", "7", "0", "0"), ("packing", "0", "0", "0")])
    assert [column.header for column in drawn.columns] == [
        "subscription",
        "lag",
        *["dead"] * (not is_left_out),
        "status",
    ]
    assert drawn.caption == ("zero everywhere: dead" if is_left_out else None)
