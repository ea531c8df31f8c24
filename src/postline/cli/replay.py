"""`postline replay`: records that were handled once, read again by a shadow subscription."""

from __future__ import annotations

import shlex
from random import Random
from typing import Any

import click

from postline.app import App, Environment, Replayed, Replaying
from postline.cli.failures import NEGATIVE, OK
from postline.cli.loading import load_app
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import emit_json, json_option, number, wants_json
from postline.cli.progress import progress_of
from postline.cli.requests import confirm
from postline.cli.times import parse_time_ms
from postline.errors import UsageError
from postline.runtime.plan import REPLAY_INFIX
from postline.runtime.replaying import Stretch

__all__ = ["command"]

_EARLIEST = "earliest"
_LINGERS = ("dead-lettered", "held")


@click.command()
@click.argument("name", metavar="SUBSCRIPTION")
@click.option("--app", "target", metavar="MODULE:APP", required=True, help="Whose handlers read again.")
@click.option("--from", "since", metavar="TIME", required=True, help="2026-05-01T12:00:00Z, 2h, or earliest.")
@click.option("--until", metavar="TIME", help="Records of this time and later are left out. [now]")
@click.option("--name", "shadow", default="1", show_default=True, help="Tells this replay from others.")
@click.option("--key", "keys", multiple=True, help="Only records of this key; may be repeated.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Records a second at most.")
@click.option("--publish", is_flag=True, help="Store what handlers publish and answer, again, instead of dropping it.")
@click.option("--keep", is_flag=True, help="Keep the shadow when it is done; one with dead letters is kept anyway.")
@click.option("--yes", is_flag=True, help="Don't ask; needed where no terminal is there to answer.")
@json_option
@url_option
def command(name: str, target: str, as_json: bool | None, url: str | None, yes: bool, keep: bool, **said: Any) -> int:
    """Let a subscription's handlers read records again, beside the live ones.

    A shadow subscription reads them, with positions, state, dead letters and deduplication of its own;
    those of the live one are not touched. What handlers publish is dropped, what they do elsewhere
    happens again. Stopped or killed, the same command goes on where it ended. Exit code 1 if a record
    became a dead letter.

    \b
    Examples:
      postline replay billing --app shop:app --from 2h
      postline replay billing --app shop:app --from 2026-05-01T00:00:00Z --until 2026-05-02T00:00:00Z --yes
      postline replay billing --app shop:app --from earliest --key customer-7 --name customer-7
      postline replay billing --app shop:app --from 1d --rate 200 --keep
    """
    app = load_app(target)

    async def work(opened: Opened) -> Replayed:
        full = await _full_name(opened, name)
        shadow = f"{full}{REPLAY_INFIX}{said['shadow']}"
        begun = [each.created_ms for each in await opened.log.subscriptions() if each.name == shadow]
        # One that goes on ends where it was to end at first.
        since_ms, stretch = _meant(shadow, said, begun[0] if begun else opened.clock.now_ms())
        _tell(app, stretch)
        confirm("Replay it?", yes)
        return await _replay(opened, app, stretch, since_ms, keep=keep)

    found = with_log(url, work)
    if wants_json(as_json):
        emit_json(found)
    else:
        _show(found)
    return NEGATIVE if found.outcomes.get("dead-lettered") else OK


async def _full_name(opened: Opened, name: str) -> str:
    """The full name that is meant, also of one that no worker has begun yet: the app knows it."""
    found, inside = await opened.subscription_name(name), opened.settings.full_name("")
    return found if found.startswith(inside) else inside + found


def _meant(name: str, said: dict[str, Any], now_ms: int) -> tuple[int | None, Stretch]:
    since, until, shadow = said["since"], said["until"], said["shadow"]
    if not shadow.replace("-", "").isalnum():
        raise UsageError(f"{shadow!r} can't name a replay.", remedy="Use letters, digits and dashes.")
    return None if since == _EARLIEST else parse_time_ms(since, now_ms), Stretch(
        name=name,
        until_ms=None if until is None else parse_time_ms(until, now_ms),
        keys=frozenset([key.encode() for key in said["keys"]]) or None,
        rate=said["rate"],
        publishes=said["publish"],
        asked=_in_words(said),
    )


def _in_words(said: dict[str, Any]) -> str:
    """What is to be replayed, as it was typed: the same whenever the same command goes on."""
    words = ["--from", said["since"]] + (["--until", said["until"]] if said["until"] is not None else [])
    words += [word for key in sorted(set(said["keys"])) for word in ("--key", key)]
    return shlex.join([*words, "--publish"] if said["publish"] else words)


def _tell(app: App, stretch: Stretch) -> None:
    what = "is stored again" if stretch.publishes else "is dropped"
    for line in (
        f"{stretch.name} gives records to the handlers of {app.name} again:",
        "  positions, state and dead letters are its own; those of the live subscription stay as they are",
        f"  what handlers publish through their context, and how commands end, {what}",
        "  what handlers do elsewhere (calls, mails, other databases) happens again",
    ):
        click.echo(line, err=True)


async def _replay(opened: Opened, app: App, stretch: Stretch, since_ms: int | None, *, keep: bool) -> Replayed:
    environment = Environment(opened.log, opened.settings, opened.clock, Random())
    async with Replaying(app, environment, stretch, since_ms) as replaying:
        with progress_of("replayed") as progress:
            found = await replaying.wait(lambda now: progress(now.passed, now.total))
    if not keep and not any(found.outcomes.get(each) for each in _LINGERS):
        await opened.operations.remove(stretch.name)
    return found


def _show(found: Replayed) -> None:
    click.echo(f"{found.shadow}: {number(found.passed)} offsets of {found.subscription} were read again")
    said = [(count, label) for label, count in found.outcomes.items()]
    said += [(count, f"records to {topic} were not published") for topic, count in found.dropped.items()]
    for count, what in said:
        if count:
            click.echo(f"  {number(count)} {what}")
    if any(found.outcomes.get(each) for each in _LINGERS):
        click.echo(
            f"look at them: postline dlq groups {found.shadow}; then: postline subscriptions remove {found.shadow}"
        )
