"""`postline tasks`: queues and their tasks from the shell."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
from typing import Any

import pytest

from postline.app import open_environment
from tests.unit.cli.conftest import Project

IMAGES = """
from typing import Annotated
from postline import App, Retry

app = App("images")

@app.task(retry=Retry(immediate=0, delays=(3600,)))
async def resize(path: str, width: int = 80) -> int:
    if path == "bad":
        raise ValueError("no picture")
    return width

@app.task(queue="mails", retry=Retry(immediate=0, delays=()))
async def mail(to: str) -> None:
    raise RuntimeError("no route")
"""


def send(project: Project, *calls: tuple[str, str]) -> list[str]:
    """Calls as the service sends them; their request ids."""
    ids = []
    for name, arguments in calls:
        given = ("send", "images_app:app", name, arguments, "--json", "--as", "images")
        sent = project.run(*given)
        assert sent.code == 0, sent.err
        ids.append(sent.json["request_id"])
    return ids


def handle(project: Project) -> None:
    """Run the service until nothing waits."""

    async def work() -> None:
        app = importlib.import_module("images_app").app
        environment = open_environment()
        await app.start(environment)
        while not await app.caught_up():
            await asyncio.sleep(0)
        await app.stop()
        await environment.log.close()

    asyncio.run(work())


@pytest.fixture
def images(project: Project) -> Project:
    """A project with two queues."""
    project.write("images_app.py", IMAGES)
    return project


def queues(project: Project) -> dict[str, Any]:
    """The queues by name."""
    return {each["name"]: each for each in project.run("tasks", "--json").json}


def test_queues_are_listed_with_what_became_of_their_tasks(images: Project) -> None:
    send(
        images,
        ("images.resize", '{"path": "cat"}'),
        ("images.resize", '{"path": "bad"}'),
        ("images.mail", '{"to": "x"}'),
    )
    handle(images)
    send(images, ("images.resize", '{"path": "dog"}'))
    found = queues(images)
    tasks, mails = found["images.tasks"], found["images.mails"]
    assert (tasks["done"], tasks["retrying"], tasks["open"], tasks["status"]) == (1, 1, 1, "no member")
    assert (mails["failed"], mails["dead_letters"], mails["open"]) == (1, 1, 0)
    shown = images.run("tasks", "queues", "--table")
    assert shown.code == 0
    assert "images.mails" in shown.out


def test_tasks_are_listed_shown_and_cancelled(images: Project) -> None:
    done, bad = send(images, ("images.resize", '{"path": "cat"}'), ("images.resize", '{"path": "bad"}'))
    handle(images)
    (waiting,) = send(images, ("images.resize", '{"path": "dog", "width": 3}'))
    listed = images.run("tasks", "list", "images.tasks", "--table")
    assert "no picture" in listed.out
    assert done not in listed.out
    by_id = {bad: "retrying", waiting: "open"}
    for request, state in by_id.items():
        shown = images.run("tasks", "show", "images.tasks", request, "--json").json
        assert shown["task"]["state"] == state
    assert images.run("tasks", "show", "images.tasks", done, "--json").json["reply"]["data"] == {"value": 80}
    assert '"width":3' in images.run("tasks", "show", "images.tasks", waiting, "--table").out
    assert images.run("tasks", "show", "images.tasks", "nothing").code == 1
    cancelled = images.run("tasks", "cancel", "images.tasks", waiting, "--json")
    assert (cancelled.code, cancelled.json["status"]) == (0, "asked")
    handle(images)
    assert images.run("tasks", "show", "images.tasks", waiting, "--json").json["task"]["state"] == "cancelled"
    assert images.run("tasks", "cancel", "images.tasks", done).code == 1
    assert queues(images)["images.tasks"]["cancelled"] == 1


HELD = """
import threading
from postline import App

app = App("images")
begun, go_on, leave = threading.Event(), threading.Event(), threading.Event()

@app.task
def hold() -> str:
    begun.set()
    go_on.wait()
    return "ran"
"""


def test_a_call_that_is_being_run_is_not_said_to_be_cancelled(project: Project) -> None:
    project.write("images_app.py", HELD)
    (request,) = send(project, ("images.hold", "{}"))
    held = importlib.import_module("images_app")

    async def work() -> None:
        environment = open_environment()
        await held.app.start(environment)
        await asyncio.to_thread(held.leave.wait)
        while not await held.app.caught_up():
            await asyncio.sleep(0)
        await held.app.stop()
        await environment.log.close()

    worker = threading.Thread(target=asyncio.run, args=(work(),))
    worker.start()
    try:
        assert held.begun.wait(60)
        cancelled = project.run("tasks", "cancel", "images.tasks", request, "--json", "--wait", "60")
    finally:
        held.go_on.set()
        held.leave.set()
        worker.join()
    assert (cancelled.code, cancelled.json["status"]) == (0, "told")
    assert project.run("tasks", "show", "images.tasks", request, "--json").json["task"]["state"] == "succeeded"


def test_what_is_not_there_is_told(images: Project) -> None:
    send(images, ("images.resize", '{"path": "cat"}'))
    handle(images)
    assert images.run("tasks", "list", "images.nothing").code == 3
    missing = images.run("tasks", "cancel", "images.tasks", "nothing")
    assert (missing.code, "has no call 'nothing'" in missing.err) == (2, True)
    misplaced = images.run("tasks", "--json", "list", "images.tasks")
    assert (misplaced.code, "stand after it" in misplaced.err) == (2, True)


def test_a_queue_is_shown_with_its_priorities_and_its_calls_whichever_they_have(images: Project) -> None:
    images.write(
        "images_app.py",
        IMAGES.replace(
            "@app.task(retry",
            'work = app.queue("work", priorities={"high": 0.7, "normal": 0.3})\n@app.task(queue=work, retry',
        ),
    )
    ids = []
    for priority in ("high", "normal"):
        call = ("send", "images_app:app", "images.resize", '{"path": "cat"}', "--json", "--as", "images")
        ids.append(images.run(*call, "--priority", priority).json["request_id"])
    handle(images)
    found = queues(images)
    assert {
        name: (each["priority"], each["share"], each["done"]) for name, each in found.items() if "work" in name
    } == {
        "images.work": ("normal", 0.3, 1),
        "images.work.high": ("high", 0.7, 1),
    }
    assert "70%" in images.run("tasks", "queues", "--table").out
    call = ("send", "images_app:app", "images.resize", '{"path": "dog"}', "--json", "--as", "images")
    waiting = [images.run(*call, "--priority", each).json["request_id"] for each in ("high", "normal")]
    for name, shown in (("images.work", waiting), ("images.work.high", waiting[:1])):
        listed = images.run("tasks", "list", name, "--json").out.splitlines()
        assert [json.loads(line)["request_id"] for line in listed] == shown
    assert images.run("tasks", "show", "images.work", ids[0], "--json").json["task"]["state"] == "succeeded"
    cancelled = images.run("tasks", "cancel", "images.work", waiting[0], "--json")
    assert (cancelled.code, cancelled.json["subscription"]) == (0, "images.work.high")
    handle(images)
    assert images.run("tasks", "show", "images.work", waiting[0], "--json").json["task"]["state"] == "cancelled"
