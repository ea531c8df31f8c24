"""`postline topics`: the topics of a log; planning and making them is beside it."""

from __future__ import annotations

import click

from postline.cli.failures import OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import alone, console, duration, emit_json, json_option, number, table, wants_json
from postline.cli.planning import apply, plan, repartition, tell_beyond
from postline.monitor import TopicView

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline topics
  postline topics list --all
  postline topics show shop.orders
  postline topics plan shop:app billing:app
  postline topics apply shop:app billing:app

In a file topics are made, and their retention changed, by the service that owns them when it starts;
on Kafka by `topics apply`, unless the URL says create_topics=true.
"""


@click.group(epilog=_EPILOG, invoke_without_command=True)
@json_option
@url_option
@click.pass_context
def command(ctx: click.Context, as_json: bool | None, url: str | None) -> int | None:
    """List and show topics, make them, and give them more partitions."""
    return alone(ctx, list_topics, as_json, url, everything=False)


for _each in (plan, apply, repartition):
    command.add_command(_each)


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Also subscriptions' own: dead letters and control.")
@json_option
@url_option
def list_topics(everything: bool, as_json: bool | None, url: str | None) -> int:
    """List topics with their owners, sizes and readers.

    \b
    Example:
      postline topics list --json | jq -r '.[].name'
    """

    async def work(opened: Opened) -> list[TopicView]:
        return [view for view in await opened.monitor.topics() if everything or not view.internal]

    views = with_log(url, work)
    for view in views:
        _tell_beyond(view)
    if wants_json(as_json):
        emit_json(views)
        return OK
    columns = ("topic", "owner", "key", ">partitions", ">records", "kept", "subscriptions")
    rows = [
        (
            view.name,
            view.owner,
            view.key or "-",
            str(view.partitions),
            number(view.records),
            _kept(view),
            ", ".join(view.subscriptions) or "-",
        )
        for view in views
    ]
    console().print(table(columns, rows))
    return OK


@command.command("show")
@click.argument("name", metavar="TOPIC")
@json_option
@url_option
def show(name: str, as_json: bool | None, url: str | None) -> int:
    """Show one topic and the offsets of its partitions.

    \b
    Example:
      postline topics show shop.orders
    """

    async def work(opened: Opened) -> TopicView:
        return await opened.monitor.topic(await opened.topic_name(name))

    view = with_log(url, work)
    _tell_beyond(view)
    if wants_json(as_json):
        emit_json(view)
        return OK
    click.echo(f"topic          {view.name}")
    click.echo(f"owner          {view.owner}")
    click.echo(f"key            {view.key or '-'}")
    click.echo(f"kept           {_kept(view)}")
    click.echo(f"subscriptions  {', '.join(view.subscriptions) or '-'}")
    rows = [
        (str(partition), number(each.start), number(each.end), number(each.end - each.start))
        for partition, each in enumerate(view.bounds)
    ]
    console().print(table((">partition", ">first offset", ">next offset", ">offsets"), rows))
    return OK


def _tell_beyond(view: TopicView) -> None:
    if len(view.bounds) > view.partitions:
        tell_beyond(view.name, view.partitions, len(view.bounds), view.beyond)


def _kept(view: TopicView) -> str:
    said = []
    if view.retention_ms is not None:
        said.append(duration(view.retention_ms / 1000))
    if view.retention_bytes is not None:
        said.append(f"{number(view.retention_bytes)} bytes a partition")
    if view.compacted:
        said.append("newest of each key")
    return ", ".join(said) or "for good"
