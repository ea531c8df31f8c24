"""`postline tickets`: the outcomes of requests that a command topic keeps."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from postline.cli.failures import NEGATIVE, OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import console, emit_json, json_option, table, wants_json, when
from postline.commands.writing import PROGRESS
from postline.contracts.cloudevents import CLIENT_ID, OUTCOME, REQUEST_ID
from postline.contracts.commands import TICKETS
from postline.log.port import Log, Record

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline tickets ledger
  postline tickets ledger --client shop --state failed
  postline tickets ledger --request monday-17

Requests that have no outcome yet have no ticket: `postline lag` shows how many commands wait.
"""
_STATES = {"success": "succeeded", "refusal": "refused", "fault": "failed", "timeout": "timed-out"}
_CANCELLED = "postline.Cancelled"


class _Shown(msgspec.Struct, frozen=True):
    """One ticket as it is listed."""

    request_id: str
    client: str
    state: str
    reply: str
    time_ms: int
    note: str = ""


@click.command(epilog=_EPILOG)
@click.argument("topic")
@click.option("--client", help="Of this client only.")
@click.option("--request", "request_id", metavar="ID", help="Of this request only; exit code 1 if it has no outcome.")
@click.option("--state", type=click.Choice([*_STATES.values(), "cancelled"]), help="In this state only.")
@click.option("-n", "--count", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@json_option
@url_option
def command(topic: str, as_json: bool | None, url: str | None, **chosen: Any) -> int:
    """List the outcomes of requests to command topic TOPIC, newest last; what replies say stays out of it."""

    async def work(opened: Opened) -> list[_Shown]:
        name = await opened.topic_name(topic + TICKETS)
        return await _read(opened.log, name, chosen)

    shown = with_log(url, work)[-chosen["count"] :]
    if wants_json(as_json):
        for each in shown:
            emit_json(each)
    else:
        _draw(shown)
    return NEGATIVE if chosen["request_id"] is not None and not shown else OK


async def _read(log: Log, topic: str, chosen: dict[str, Any]) -> list[_Shown]:
    found: dict[bytes | None, _Shown] = {}
    notes: dict[bytes, str] = {}
    for partition, bounds in enumerate(await log.bounds(topic)):
        offset = bounds.start
        while page := await log.read(topic, partition, offset):
            for record in page:
                if record[3] == PROGRESS:
                    notes[(record[2] or b"").removesuffix(b"#progress")] = (record[4] or b"").decode("utf-8", "replace")
                elif (shown := _shown(log, record)) is not None and _is_chosen(shown, chosen):
                    found[record[2]] = shown
            offset = page[-1][0] + 1
    noted = [msgspec.structs.replace(each, note=notes.get(key or b"", "")) for key, each in found.items()]
    return sorted(noted, key=lambda each: each.time_ms)


def _shown(log: Log, record: Record) -> _Shown | None:
    envelope = log.envelope(record)
    told = envelope.headers
    if OUTCOME not in told:
        return None
    state = "cancelled" if record[3] == _CANCELLED else _STATES.get(told[OUTCOME], told[OUTCOME])
    return _Shown(told.get(REQUEST_ID, ""), told.get(CLIENT_ID, ""), state, record[3], envelope.time_ms)


def _is_chosen(shown: _Shown, chosen: dict[str, Any]) -> bool:
    wanted = {"client": shown.client, "request_id": shown.request_id, "state": shown.state}
    return all(chosen[name] is None or chosen[name] == value for name, value in wanted.items())


def _draw(shown: list[_Shown]) -> None:
    rows = [(each.request_id, each.client, each.state, each.reply, when(each.time_ms), each.note) for each in shown]
    console().print(table(("request", "client", "state", "reply", "time", "note"), rows))
