"""`postline topics plan`, `apply` and `repartition`: what apps need of a log, shown and made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, TypeVar

import click
import msgspec

from postline.app import App, Environment, need_of, open_log
from postline.cli.failures import NEGATIVE, OK, alarm
from postline.cli.loading import load_apps
from postline.cli.opening import Opened, require_existing, settings_for, url_option, with_log
from postline.cli.output import emit_json, json_option, number, plain, wants_json
from postline.clock import SystemClock
from postline.errors import UsageError
from postline.log.needs import Change, ChangeKind, Need
from postline.log.port import Log
from postline.runtime.topology import merged, warnings_in

__all__ = ["apply", "plan", "repartition", "tell_beyond"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
ResultT = TypeVar("ResultT")

_LOOK_SECONDS = 5.0
#: What is done, by what is to be done.
_DONE = {"create": "created", "alter": "altered", "acl": "granted"}


class _Repartitioned(msgspec.Struct, frozen=True):
    topic: str
    before: int
    partitions: int
    subscriptions: list[str]


def _principal_option(command: CommandT) -> CommandT:
    option = click.option(
        "--principal", default="", metavar="User:NAME", help="Whom the apps log in as: the rights (ACLs) it lacks, too."
    )
    return option(command)


@click.command("plan")
@click.argument("targets", metavar="APP...", nargs=-1, required=True)
@_principal_option
@click.option("--check", is_flag=True, help="Exit with 1 if there is anything to do.")
@json_option
@url_option
def plan(targets: tuple[str, ...], principal: str, check: bool, as_json: bool | None, url: str | None) -> int:
    """Show what would be made or changed for apps to run; changes nothing.

    \b
    Examples:
      postline topics plan shop:app billing:app
      postline topics plan shop:app --principal User:shop --check
    """

    async def work(log: Log, need: Need) -> list[Change]:
        return await log.plan(need)

    changes = _with_need(targets, url, principal, work, makes=False)
    if wants_json(as_json):
        emit_json(changes)
    else:
        _show(changes, {})
    return NEGATIVE if check and any(change.open for change in changes) else OK


@click.command("apply")
@click.argument("targets", metavar="APP...", nargs=-1, required=True)
@_principal_option
@json_option
@url_option
def apply(targets: tuple[str, ...], principal: str, as_json: bool | None, url: str | None) -> int:
    """Make and change what apps need, as `topics plan` shows it; done again it changes nothing.

    Refused, with nothing done, if something can't be mended by it. Topics are only made for services
    that are named.

    \b
    Examples:
      postline topics apply shop:app billing:app
      postline topics apply shop:app --principal User:shop
    """

    async def work(log: Log, need: Need) -> list[Change]:
        changes = await log.plan(need)
        await log.apply(changes)
        return changes

    changes = _with_need(targets, url, principal, work, makes=True)
    if wants_json(as_json):
        emit_json(changes)
    else:
        _show(changes, _DONE)
    return OK


@click.command("repartition")
@click.argument("name", metavar="TOPIC")
@click.argument("partitions", metavar="N", type=click.IntRange(1, 10_000))
@click.argument("targets", metavar="[APP]...", nargs=-1)
@click.option(
    "--look", "look_seconds", default=_LOOK_SECONDS, show_default=True, metavar="SECONDS", help="How long to look."
)
@json_option
@url_option
def repartition(
    name: str, partitions: int, targets: tuple[str, ...], look_seconds: float, as_json: bool | None, url: str | None
) -> int:
    """Give a topic more partitions, with its subscriptions and their state.

    Everything that publishes to it and reads it must be stopped, with nothing left to handle; it looks
    for a while whether that is so. Partitions can't be taken away again. Interrupted, the same command
    goes on; with the number of before it takes everything back. Apps that are named must declare N.

    \b
    Example:
      postline topics repartition shop.orders 16 shop:app
    """

    async def work(opened: Opened) -> _Repartitioned:
        full = await opened.topic_name(name)
        _require_declared(targets, url, full, partitions)
        plan = await opened.operations.plan_repartition(full, partitions, look_seconds)
        await opened.operations.repartition(plan)
        return _Repartitioned(full, plan.before, partitions, sorted(plan.subscriptions))

    done = with_log(url, work)
    if wants_json(as_json):
        emit_json(done)
    elif done.before == done.partitions:
        click.echo(f"{done.topic} has {done.partitions} partitions, and nothing is under way.")
    else:
        readers = ", ".join(done.subscriptions) or "nobody"
        click.echo(f"{done.topic} has {done.partitions} partitions instead of {done.before}; read by {readers}.")
        if not targets:
            click.echo(
                f"Declare partitions={done.partitions} in its contract, or in postline.toml, before its owner starts.",
                err=True,
            )
    return OK


def _with_need(
    targets: tuple[str, ...],
    url: str | None,
    principal: str,
    work: Callable[[Log, Need], Awaitable[ResultT]],
    *,
    makes: bool,
) -> ResultT:
    """Work on the one log of these apps, opened, with what they need together."""
    environment, need = _needed(load_apps(targets), url, principal)
    if not makes or environment.settings.url.in_memory:
        require_existing(environment.settings.url)

    async def opened() -> ResultT:
        await environment.log.start()
        try:
            if makes:
                await environment.log.require_standing()
            return await work(environment.log, need)
        finally:
            await environment.log.close()

    return asyncio.run(opened())


def _needed(apps: Sequence[App], url: str | None, principal: str) -> tuple[Environment, Need]:
    settings = [settings_for(url, app.url) for app in apps]
    if len({each.url.text for each in settings}) > 1:
        raise UsageError(
            "These apps are on several logs.", remedy="Name those of one log at a time, or say which with --url."
        )
    clock = SystemClock()
    environment = Environment(open_log(settings[0], clock), settings[0], clock, Random())
    return environment, merged([need_of(app, environment, principal) for app in apps])


def _require_declared(targets: tuple[str, ...], url: str | None, topic: str, partitions: int) -> None:
    """Refuse before anything is changed what the apps would refuse to start with afterwards."""
    if not targets:
        return
    _, need = _needed(load_apps(targets), url, "")
    declared = next((spec.partitions for spec in need.topics if spec.name == topic), None)
    if declared != partitions:
        said = "none of these apps has a contract of it" if declared is None else f"its contract says {declared}"
        raise UsageError(
            f"Topic {topic!r} can't be given {partitions} partitions: {said}.",
            remedy=f"Declare partitions={partitions} first, in the contract or in postline.toml.",
        )


def tell_beyond(topic: str, known: int, there: int, offsets: int) -> None:
    """The alarm about partitions that others added to a topic."""
    alarm(
        f"topic {topic} has {there} partitions, {known} of them known here: {number(offsets)} offsets in the others"
        f" wait. Drain it, then `postline topics repartition {topic} {there}`."
    )


def _show(changes: Sequence[Change], words: dict[str, str]) -> None:
    """For people: a line for each change, its settings below it; what is amiss on standard error."""
    for warning in warnings_in(changes):
        alarm(warning, "warning")
    for change in (change for change in changes if change.kind is not ChangeKind.WARNING):
        word = words.get(change.kind.value, change.kind.value)
        click.echo(f"{word:<9} {plain(change.name)}" + (f"  {plain(change.said)}" if change.said else ""))
        width = max((len(each.name) for each in change.details), default=0)
        for each in change.details:
            before = f"{each.before} → " if each.before else ""
            click.echo(f"            {plain(each.name):<{width}}  {plain(before + each.after)}")
    if not any(change.open for change in changes):
        click.echo("Nothing to do: the log is as these apps need it.")
