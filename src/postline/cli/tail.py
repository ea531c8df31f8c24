"""`postline tail`: the records of a topic, its last ones or from anywhere on, and those that come."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import click
import msgspec

from postline.cli.failures import OK
from postline.cli.opening import Opened, reveal_option, url_option, with_log
from postline.cli.output import json_option, plain, wants_json
from postline.cli.times import parse_time_ms
from postline.errors import UsageError
from postline.monitor import RecordId, RecordView

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline tail shop.orders
  postline tail shop.orders --from earliest -n 100
  postline tail shop.orders --from 2h --key customer-7
  postline tail billing.dead-letters --follow
  postline tail shop.orders --from earliest --json | jq .data.total

JSON is one CloudEvents 1.0 event a line, with topic, partition, offset, timestamp and key.
"""

_DEFAULT_RECORDS = 10
_PAGE = 500
_WAIT_SECONDS = 5.0
_PLACE = re.compile(r"[0-9]+:[0-9]+")


@click.command(epilog=_EPILOG)
@click.argument("topic")
@click.option(
    "--from",
    "start",
    metavar="earliest|latest|P:OFFSET|TIME",
    help="Where to begin: the first kept record, the end, an offset of one partition (which alone is shown), "
    "2026-05-01T12:00:00Z, or 2h (ago).",
)
@click.option("-n", "--count", type=click.IntRange(1), help="Without --from the last so many; else end after so many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--key", help="Records of this key only.")
@click.option("--type", "type_name", help="Records of this type only.")
@reveal_option
@json_option
@url_option
def command(
    topic: str,
    start: str | None,
    count: int | None,
    follow: bool,
    as_json: bool | None,
    url: str | None,
    **which: Any,
) -> int:
    """Show the records of TOPIC: the last 10, or from anywhere on.

    Order is exact within a partition; between partitions it goes by time.
    """
    write = _write_json if wants_json(as_json) else _write_line

    key, type_name = which["key"], which["type_name"]

    def chosen(view: RecordView) -> bool:
        return (key is None or view.key == key) and (type_name is None or view.type == type_name)

    async def work(opened: Opened) -> int:
        tailing = _Tail(opened, which["reveal"], await opened.topic_name(topic), chosen, write, key)
        if start is None:
            await tailing.show_last(count or _DEFAULT_RECORDS, everything=key is None and type_name is None)
            left = None if follow else 0
        else:
            await tailing.begin(start)
            left = count
        await tailing.show(left, follow)
        return OK

    try:
        return with_log(url, work)
    except KeyboardInterrupt:
        if follow:
            return OK
        raise


class _Tail:
    """A place in a topic, by partition, and how records from there on are shown."""

    def __init__(
        self,
        opened: Opened,
        reveal: bool,
        topic: str,
        chosen: Callable[[RecordView], bool],
        write: Callable[[RecordView], None],
        key: str | None,
    ) -> None:
        self._opened = opened
        self._monitor = opened.monitor_of(reveal=reveal)
        self._topic = topic
        self._chosen = chosen
        self._write = write
        self._key = key
        #: The next offset of each partition that is shown.
        self._offsets: dict[int, int] = {}

    async def show_last(self, count: int, *, everything: bool) -> None:
        """Show the last records there are, and stand behind them; `everything`: none is left out."""
        bounds = dict(enumerate(await self._opened.log.bounds(self._topic)))
        back = count
        while True:
            starts = {n: max(each.start, each.end - back) if everything else each.start for n, each in bounds.items()}
            self._offsets = dict(starts)
            last, found = deque[RecordView](maxlen=count), Counter[int]()
            while page := await self._page():
                found.update(view.partition for view in page)
                last += [view for view in page if self._chosen(view)]
            # Of some offsets there is no record: ends of transactions on Kafka, what compaction took away.
            if all(found[number] >= count or starts[number] == each.start for number, each in bounds.items()):
                break
            back *= 10
        for view in last:
            self._write(view)

    async def begin(self, start: str) -> None:
        """Stand where `--from` says. Raises UsageError."""
        log, now_ms = self._opened.log, self._opened.clock.now_ms()
        bounds = dict(enumerate(await log.bounds(self._topic)))
        if start in ("earliest", "latest"):
            self._offsets = {n: each.start if start == "earliest" else each.end for n, each in bounds.items()}
        elif _PLACE.fullmatch(start):
            place = RecordId.parse(start)
            if place.partition not in bounds:
                raise UsageError(f"Topic {self._topic!r} has no partition {place.partition}.", remedy="See `topics`.")
            self._offsets = {place.partition: place.offset}
        else:
            time_ms = parse_time_ms(start, now_ms)
            self._offsets = {number: await log.offset_at(self._topic, number, time_ms) for number in bounds}

    async def show(self, left: int | None, follow: bool) -> None:
        """Show what is there, at most `left` records, then (`follow`) what comes."""
        while left is None or left > 0:
            page = await self._page()
            if not page:
                if not follow:
                    return
                await self._opened.log.wait_for_appends(self._topic, _WAIT_SECONDS)
            for view in [view for view in page if self._chosen(view)][:left]:
                self._write(view)
                left = None if left is None else left - 1

    async def _page(self) -> list[RecordView]:
        return await self._monitor.read(self._topic, self._offsets, _PAGE, key=self._key)


def _write_json(view: RecordView) -> None:
    click.echo(msgspec.json.encode(view))


def _write_line(view: RecordView) -> None:
    if isinstance(view.data, msgspec.Raw):
        content = plain(bytes(view.data).decode())
    elif isinstance(view.data_base64, str):
        content = f"base64 {view.data_base64}"
    else:
        content = click.style("tombstone", dim=True)
    place = click.style(f"{view.partition}:{view.offset}", fg="cyan")
    kind = click.style(plain(view.type) or "-", fg="green")
    click.echo(f"{view.timestamp}  {place}  {plain(view.key or '-')}  {kind}  {content}")
