"""`postline send`, `request` and `tickets`: commands from the shell."""

from __future__ import annotations

import asyncio
import importlib
import json

from postline.app import open_environment
from tests.unit.cli.conftest import Project

LEDGER = """
from msgspec import Struct
from postline import App, CommandTopic, Context, Refused

ledger = CommandTopic("ledger", owner="ledger", key="account", partitions=2)

class Deposited(Struct, frozen=True):
    balance: int

class Overdrawn(Struct, frozen=True):
    missing: int

@ledger.command("ledger.Deposit", reply=Deposited, refusals=(Overdrawn,))
class Deposit(Struct, frozen=True):
    account: str
    amount: int

app = App("ledger", owns=[ledger])
served = app.serve(ledger, state=int)

@served.on(Deposit)
async def deposit(command: Deposit, ctx: Context) -> Deposited:
    balance = (ctx.state.get() or 0) + command.amount
    if balance < 0:
        raise Refused(Overdrawn(-balance))
    ctx.state.put(balance)
    return Deposited(balance)
"""


def handle_what_waits(project: Project) -> None:
    """Run the service until it has answered all there is."""

    async def work() -> None:
        app = importlib.import_module("ledger_app").app
        environment = open_environment()
        await app.start(environment)
        while not await app.caught_up():
            await asyncio.sleep(0)
        await app.stop()
        await environment.log.close()

    asyncio.run(work())


def test_a_command_is_sent_answered_and_found_again(project: Project) -> None:
    project.write("ledger_app.py", LEDGER)
    sent = project.run("send", "ledger_app:app", "ledger.Deposit", '{"account": "anna", "amount": 5}', "--json")
    assert sent.code == 0, sent.err
    assert project.run("tickets", "ledger", "--request", sent.json["request_id"]).code == 1
    handle_what_waits(project)
    found = project.run("tickets", "ledger", "--json")
    assert (found.code, found.json["state"], found.json["client"]) == (0, "succeeded", "postline.cli")
    asked = ("request", "ledger_app:app", "ledger.Deposit", '{"account": "anna", "amount": 5}', "--json")
    again = project.run(*asked, "--request-id", sent.json["request_id"])
    assert (again.code, again.json["reply"]) == (0, {"balance": 5})


def test_a_refusal_has_an_exit_code_of_its_own(project: Project) -> None:
    project.write("ledger_app.py", LEDGER)
    asked = ("ledger_app:app", "ledger.Deposit", '{"account": "bob", "amount": -5}', "--request-id", "r-1")
    assert project.run("send", *asked).code == 0
    handle_what_waits(project)
    result = project.run("request", *asked, "--table")
    assert (result.code, result.out.strip()) == (1, 'refused: ledger.Overdrawn {"missing":5}')


def test_an_id_that_another_command_has_is_refused(project: Project) -> None:
    project.write("ledger_app.py", LEDGER)
    asked = ("ledger_app:app", "ledger.Deposit", '{"account": "bob", "amount": 5}', "--request-id", "r-1")
    assert project.run("send", *asked).code == 0
    for other in ('{"account": "carl", "amount": 5}', '{"account": "bob", "amount": 6}'):
        for command in ("send", "request"):
            refused = project.run(command, *asked[:2], other, *asked[3:])
            assert refused.code == 2
            assert "'r-1'" in refused.err
            assert "an id of its own" in refused.err
    handle_what_waits(project)
    assert project.run("request", *asked, "--json").json["reply"] == {"balance": 5}


def test_wrong_commands_are_refused_before_anything_is_sent(project: Project) -> None:
    project.write("ledger_app.py", LEDGER)
    unknown = project.run("send", "ledger_app:app", "ledger.Withdraw", "{}")
    assert unknown.code == 2
    assert "It knows ledger.Deposit." in unknown.err
    wrong = project.run("send", "ledger_app:app", "ledger.Deposit", '{"account": 5}')
    assert wrong.code == 2
    assert "account" in wrong.err


def test_a_priority_is_given_and_a_repetition_with_another_gets_the_first_outcome(project: Project) -> None:
    told = LEDGER.replace("partitions=2)", 'partitions=2, priorities={"high": 0.5, "normal": 0.5})')
    project.write(
        "ledger_app.py",
        told.replace(", state=int", "")
        .replace("(ctx.state.get() or 0) + ", "")
        .replace("    ctx.state.put(balance)\n", ""),
    )
    asked = ("ledger_app:app", "ledger.Deposit", '{"account": "bob", "amount": 5}', "--request-id", "r-1")
    assert project.run("send", *asked, "--priority", "high").code == 0
    handle_what_waits(project)
    again = project.run("request", *asked, "--priority", "normal", "--json")
    assert again.json["reply"] == {"balance": 5}
    (listed,) = map(json.loads, project.run("tickets", "ledger", "--json").out.splitlines())
    assert listed["request_id"] == "r-1"
    unknown = project.run("send", *asked[:3], "--priority", "urgent")
    assert unknown.code != 0
    assert "'high', 'normal'" in unknown.err


def test_a_command_with_a_field_that_its_contract_does_not_have_is_not_sent(project: Project) -> None:
    project.write("ledger_app.py", LEDGER)
    sent = project.run("send", "ledger_app:app", "ledger.Deposit", '{"account": "anna", "amount": 5, "note": "x"}')
    assert sent.code not in (0, 1)
    assert "ledger.Deposit has no field 'note', so it would be lost" in sent.err


def test_what_is_told_to_find_an_outcome_that_did_not_come_finds_it(project: Project) -> None:
    project.write("ledger_app.py", LEDGER)
    asked = ("ledger_app:app", "ledger.Deposit", '{"account": "anna", "amount": 5}', "--request-id", "r-1")
    assert project.run("send", *asked).code == 0
    waited = project.run("request", *asked, "--timeout", "0.01")
    assert waited.code == 4
    told = waited.err.partition("`postline ")[2].partition("`")[0]
    handle_what_waits(project)
    assert project.run(*told.split(), "--json").json["state"] == "succeeded"
