"""`postline dlq redrive`, `discard`, `edit` and `export`: what is done with dead letters."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import click
import msgspec

from postline.cli.dry_run import rehearse_letters
from postline.cli.failures import NEGATIVE, OK
from postline.cli.loading import load_app
from postline.cli.opening import Opened, reveal_option, url_option, with_log
from postline.cli.output import json_option, wants_json
from postline.cli.requests import Answer, await_owner, tell, wait_option
from postline.cli.selecting import Chosen, selection_options
from postline.contracts import MessageContract
from postline.contracts.json_documents import require_unique_keys
from postline.errors import UnknownRecord, UsageError
from postline.monitor import Picked, RecordId, Selection
from postline.operations import Disposed, Editing, Pace, with_changes

__all__ = ["discard", "edit", "export", "redrive"]

_RECORDS_TOLD = 1_000

#: Slower than that it would look like a command that hangs.
_RATE_MIN = 0.01

_rate_option = click.option("--rate", type=float, metavar="N", help=f"At most so many a second; {_RATE_MIN:g} or more.")
_limit_option = click.option("--limit", type=int, metavar="N", help="At most so many, the first.")


class _Asked(NamedTuple):
    """What is to be done, as the command line says it."""

    action: str
    chosen: Chosen
    pace: Pace
    reason: str = ""
    run: str = ""


@click.command("redrive")
@click.argument("name", metavar="SUBSCRIPTION")
@selection_options
@_rate_option
@_limit_option
@click.option("--run", default="", metavar="NAME", help="Go on with the redrive of that name, which was interrupted.")
@click.option("--dry-run", metavar="MODULE:APP", help="Store nothing: say what this app would make of them now.")
@wait_option
@json_option
@url_option
def redrive(
    name: str, chosen: Chosen, run: str, dry_run: str | None, as_json: bool | None, url: str | None, **paced: Any
) -> int:
    """Give dead letters another run, in order, before what waits behind them.

    Interrupted, even by a kill, it has asked for some of them, once, and the rest are dead letters
    still: the same command with --run NAME goes on, and leaves alone what failed again meanwhile.

    \b
    Examples:
      postline dlq redrive billing 3:1042
      postline dlq redrive billing --key customer-7
      postline dlq redrive billing --group 5f1c03aa --rate 200 --limit 1000
      postline dlq redrive billing --all --run 9c41d07e
      postline dlq redrive billing --all --dry-run shop.billing:app
    """
    if dry_run is not None:
        chosen.require_one_way()
        return rehearse_letters(name, dry_run, chosen, paced["limit"], wants_json(as_json), url)
    return _dispose(name, _Asked("redrive", chosen, _pace(**paced), run=run), as_json, url)


@click.command("discard")
@click.argument("name", metavar="SUBSCRIPTION")
@selection_options
@_rate_option
@_limit_option
@click.option("--reason", required=True, help="Why; it is kept.")
@wait_option
@json_option
@url_option
def discard(name: str, chosen: Chosen, reason: str, as_json: bool | None, url: str | None, **paced: Any) -> int:
    """Give dead letters up for good; what waits behind them flows.

    An ID may also be a held record's, as `postline subscriptions show` lists them.

    \b
    Examples:
      postline dlq discard billing 3:1042 --reason "test order"
      postline dlq discard billing --key customer-7 --reason "account closed"
    """
    return _dispose(name, _Asked("discard", chosen, _pace(**paced), reason=reason), as_json, url)


def _pace(rate: float | None, limit: int | None, wait_seconds: float) -> Pace:
    """How fast and how many. Raises UsageError for a rate or limit that can't be kept."""
    if rate is not None and not rate >= _RATE_MIN:
        raise UsageError(
            f"--rate {rate:g} is below the slowest that there is, {_RATE_MIN:g} a second.",
            remedy=f"Give {_RATE_MIN:g} or more; or redrive or discard some now, by --limit, and go on later.",
        )
    return Pace(rate=rate, limit=limit, wait_seconds=wait_seconds)


def _dispose(name: str, asked: _Asked, as_json: bool | None, url: str | None) -> int:
    asked.chosen.require_one_way()

    async def work(opened: Opened) -> Answer:
        full = await opened.subscription_name(name)
        return await (_by_ids if asked.chosen.records else _by_selection)(opened, full, asked)

    answer = with_log(url, work)
    what = f"{answer.action} {answer.asked} record{'s' * (answer.asked != 1)} of {answer.subscription}"
    what += f" (run {answer.run})" if answer.run else ""
    if answer.held or answer.failed_again:
        what += f"; {answer.held} wait or run, {answer.failed_again} are dead letters again"
    return tell(answer, what, wants_json(as_json))


async def _by_ids(opened: Opened, name: str, asked: _Asked) -> Answer:
    records = list(asked.chosen.selection(opened).records)
    if asked.action == "redrive":
        request = await opened.operations.redrive(name, records)
    else:
        request = await opened.operations.discard(name, records, asked.reason)
    status = await await_owner(opened, request, asked.pace.wait_seconds)
    told = [str(each) for each in records]
    return Answer(subscription=name, action=asked.action, status=status, records=told, asked=len(records))


async def _by_selection(opened: Opened, name: str, asked: _Asked) -> Answer:
    info = await opened.monitor.info(name)
    run = asked.run or (opened.operations.new_run() if asked.action == "redrive" else "")
    told: list[str] = []
    letters = _noting(opened.monitor.letters.picked(info, asked.chosen.selection(opened, not_of_run=run)), told)
    with _Progress(asked.action, run) as progress:
        if asked.action == "redrive":
            done = await opened.operations.redrive_many(name, letters, run, asked.pace, progress)
        else:
            done = await opened.operations.discard_many(name, letters, asked.reason, asked.pace, progress)
    return _answer(asked.action, done, told[: done.asked])


async def _noting(letters: AsyncIterator[Picked], told: list[str]) -> AsyncIterator[Picked]:
    async for some in letters:
        if len(told) <= _RECORDS_TOLD:
            told += [str(RecordId(some.partition, offset)) for offset in some.offsets]
        yield some


def _answer(action: str, done: Disposed, records: list[str]) -> Answer:
    return Answer(
        subscription=done.subscription,
        action=action,
        status=done.status,
        records=records if done.asked <= _RECORDS_TOLD else [],
        asked=done.asked,
        run=done.run,
        held=done.held,
        failed_again=done.failed_again,
    )


class _Progress:
    """Says on a terminal's standard error how far it is.

    The redrive's name comes first, terminal or not: whoever interrupts it goes on by it.
    """

    def __init__(self, action: str, run: str) -> None:
        self._says = sys.stderr.isatty()
        self._action, self._run, self._asked = action, run, 0

    def __enter__(self) -> Callable[[int], None]:
        if self._run:
            click.echo(f"run {self._run}", err=True)
        return self

    def __call__(self, asked: int) -> None:
        """So many were asked for."""
        self._asked = asked
        if self._says:
            click.echo(f"\r{self._action}: {asked:,} asked for", err=True, nl=False)

    def __exit__(self, *exc_info: object) -> None:
        if self._says and self._asked:
            click.echo("", err=True)


# -- edit -----------------------------------------------------------------------------------------


class _Change(NamedTuple):
    """How the content is to change, and who says so."""

    sets: tuple[str, ...]
    from_stdin: bool
    reason: str
    by: str
    keep: bool
    reveal: bool


@click.command("edit")
@click.argument("name", metavar="SUBSCRIPTION")
@click.argument("record", metavar="ID")
@click.option(
    "--set", "sets", metavar="FIELD=VALUE", multiple=True, help="Change a field; the value is JSON, else text."
)
@click.option("--stdin", "from_stdin", is_flag=True, help="Take the whole content, as JSON, from standard input.")
@click.option("--reason", required=True, help="Why; it is kept.")
@click.option("--by", default="", metavar="WHO", help="Who; else the user and host of this shell.")
@click.option("--keep", is_flag=True, help="Leave it a dead letter; else it is redriven at once.")
@click.option("--app", metavar="MODULE:APP", help="Check by this app's contract, rather than by the registered schema.")
@reveal_option
@wait_option
@json_option
@url_option
def edit(
    name: str, record: str, app: str | None, wait_seconds: float, as_json: bool | None, url: str | None, **change: Any
) -> int:
    """Give a dead letter another content, and redrive it with that under its own offset.

    Without --set or --stdin it opens $EDITOR. The content is checked by its contract before anything is
    stored; its key can't be changed. What was published is kept: `dlq show` has both, who and why.

    \b
    Examples:
      postline dlq edit billing 3:1042 --set total=12 --reason "the form sent text"
      postline dlq show billing 3:1042 --reveal --json | jq .record.data | sed s/Ulmm/Ulm/ \\
        | postline dlq edit billing 3:1042 --stdin --reason "typing error"
    """
    wanted, said = RecordId.parse(record), _Change(**change)
    if said.sets and said.from_stdin:
        raise UsageError("The content comes from --set or from --stdin.", remedy="Give one of them.")

    async def work(opened: Opened) -> Answer:
        return await _edit(opened, await opened.subscription_name(name), wanted, said, app, wait_seconds)

    answer = with_log(url, work)
    if answer.status == "refused":
        raise UsageError(
            f"The owner refused the edit of {wanted}, or the letter was redriven meanwhile.",
            remedy="Its worker's log says why; `postline dlq show` says how it stands.",
        )
    return tell(answer, f"edit {wanted} of {answer.subscription}", wants_json(as_json))


async def _edit(
    opened: Opened, name: str, wanted: RecordId, said: _Change, app: str | None, wait_seconds: float
) -> Answer:
    info = await opened.monitor.info(name)
    letters = [page[0] async for page in opened.monitor.letters.pages(info, Selection(records=(wanted,)))]
    if not letters:
        raise UnknownRecord(
            f"Subscription {name!r} has no dead letter {wanted}.",
            remedy="`postline dlq list` shows what there is; it may have been redriven or discarded meanwhile.",
        )
    monitor = opened.monitor_of(reveal=said.reveal)
    (letter,) = await monitor.letters.opened(info, letters)
    contract = None if app is None else _contract(app, letters[0].entry.type)
    editing = Editing(opened.log, monitor.letters.contents, contract)
    content = _changed(editing.content(info, letter), said, hides=editing.hides(info, letter))
    edited = await editing.checked(info, letter, content, by=said.by or _whoami(), reason=said.reason)
    request = await opened.operations.edit(name, letters[0], edited, redrives=not said.keep)
    status = await await_owner(opened, request, wait_seconds)
    if status == "done" and not await opened.operations.stands(name, letters[0], edited):
        status = "refused"
    return Answer(subscription=name, action="edit", status=status, records=[str(wanted)], asked=1)


def _contract(target: str, type_name: str) -> MessageContract:
    app = load_app(target)
    topics = (*app.owns, *app.publishes_to, *(each.topic for each in app.subscriptions.values()))
    for topic in topics:
        if (contract := getattr(topic, "contracts", {}).get(type_name)) is not None:
            found: MessageContract = contract
            return found
    raise UsageError(f"App {app.name!r} declares no type {type_name!r}.", remedy="Name the app that publishes it.")


def _changed(content: Any, said: _Change, *, hides: bool) -> Any:
    if said.sets:
        for each in said.sets:
            require_unique_keys(each.partition("=")[2])
        return with_changes(content, said.sets)
    if said.from_stdin:
        return _read(sys.stdin.buffer.read())
    if hides and not said.reveal:
        raise UsageError(
            "The content has sensitive fields, which an editor would show.",
            remedy="Give --reveal, or change it by --set.",
        )
    text = click.edit(msgspec.json.format(msgspec.json.encode(content), indent=2).decode(), extension=".json")
    if text is None:
        raise UsageError("Nothing was changed in the editor.", remedy="Save another content, or leave it.")
    return _read(text.encode())


def _read(text: bytes) -> Any:
    require_unique_keys(text)
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The content is no JSON: {error}.", remedy="Give one JSON value.") from error


def _whoami() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return f"somebody@{socket.gethostname()}"


# -- export ---------------------------------------------------------------------------------------


@click.command("export")
@click.argument("name", metavar="SUBSCRIPTION")
@selection_options
@reveal_option
@url_option
def export(name: str, chosen: Chosen, reveal: bool, url: str | None) -> int:
    """Write dead letters as JSON lines, each a CloudEvent; how it failed stands in attributes `postline…`.

    Without a choice it exports all. Sensitive fields are masked without --reveal.

    \b
    Examples:
      postline dlq export billing > billing.jsonl
      postline dlq export billing --group 5f1c03aa --reveal
    """

    async def work(opened: Opened) -> int:
        info, number = await opened.monitor.info(await opened.subscription_name(name)), 0
        letters = opened.monitor_of(reveal=reveal).letters
        async for event in letters.export(info, chosen.selection(opened)):
            click.echo(msgspec.json.encode(event).decode())
            number += 1
        return number

    return OK if with_log(url, work) else NEGATIVE
