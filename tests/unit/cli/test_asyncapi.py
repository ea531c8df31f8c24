"""`postline contracts asyncapi`: documents on the screen or in a file, of one app or several."""

from __future__ import annotations

import json

from postline.contracts.asyncapi_problems import problems
from tests.unit.cli.conftest import Project

MAIL = """
from msgspec import Struct
from postline import App, ForeignTopic

orders = ForeignTopic("shop.orders")

@orders.reads("shop.OrderPlaced")
class Placed(Struct):
    customer: str

app = App("mail")
subscription = app.subscribe("mail", orders, start="earliest")

@subscription.on(Placed)
async def send(order: Placed) -> None: ...
"""


def test_a_document_of_an_app_is_json_on_the_screen(project: Project) -> None:
    result = project.run("contracts", "asyncapi", "app.py")
    assert (result.code, result.err) == (0, "")
    assert result.json["info"] == {"title": "shop", "version": "1.0.0"}
    assert result.json["operations"].keys() == {"shop.send.shop.orders", "shop.receive.billing"}
    assert "servers" not in result.json
    assert problems(result.json) == []


def test_several_apps_are_one_system_in_a_file(project: Project) -> None:
    project.write("mail.py", MAIL)
    options = ["--title", "All", "--version", "2.0.0", "--server", "kafka://broker?sasl.password=x", "-o", "all.json"]
    result = project.run("contracts", "asyncapi", "app.py", "mail.py", *options)
    assert (result.code, result.out) == (0, "")
    assert "all.json: 1 channels, 3 operations" in result.err
    made = json.loads((project.folder / "all.json").read_text())
    assert made["info"] == {"title": "All", "version": "2.0.0"}
    assert made["servers"] == {"log": {"host": "broker:9092", "protocol": "kafka"}}
    assert made["channels"].keys() == {"shop.orders"}
    assert {each["x-service"] for each in made["operations"].values()} == {"shop", "mail"}
    assert problems(made) == []


def test_a_server_that_is_no_log_is_refused_without_its_secret(project: Project) -> None:
    result = project.run("contracts", "asyncapi", "app.py", "--server", "amqp://user:geheim@broker")
    assert result.code != 0
    assert "names no engine" in result.err
    assert "geheim" not in result.err + result.out


def test_priorities_are_told_with_the_channel(project: Project) -> None:
    app = (project.folder / "app.py").read_text()
    project.write("app.py", app.replace("partitions=2)", 'partitions=2, priorities={"high": 0.7, "normal": 0.3})'))
    channels = project.run("contracts", "asyncapi", "app:app").json["channels"]
    assert list(channels) == ["shop.orders"]
    assert channels["shop.orders"]["x-priorities"] == {
        "high": {"address": "shop.orders.high", "share": 0.7},
        "normal": {"address": "shop.orders", "share": 0.3},
    }


def test_priorities_of_a_command_topic_are_told_with_the_channel_of_its_commands(project: Project) -> None:
    project.write(
        "jobs.py",
        "from msgspec import Struct\n"
        "from postline import App, CommandTopic\n"
        'jobs = CommandTopic("jobs", owner="worker", priorities={"high": 0, "normal": 0.5})\n'
        '@jobs.command("jobs.Do")\n'
        "class Do(Struct): ...\n"
        'app = App("worker", owns=[jobs])\n'
        "@app.serve(jobs).on(Do)\n"
        "async def do(command: Do) -> None: ...\n",
    )
    made = project.run("contracts", "asyncapi", "jobs:app").json
    assert list(made["channels"]) == ["jobs.replies", "jobs.commands"]
    assert made["channels"]["jobs.commands"]["x-priorities"] == {
        "high": {"address": "jobs.commands.high", "share": 0},
        "normal": {"address": "jobs.commands", "share": 0.5},
    }
    assert problems(made) == []
    written = project.run("contracts", "snapshot", "jobs:app")
    assert written.code == 0, written.err
    assert project.run("contracts", "check", "jobs:app").code == 0
