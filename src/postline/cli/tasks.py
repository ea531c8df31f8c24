"""`postline tasks`: queues, and the calls of tasks in them: listed, shown and cancelled."""

from __future__ import annotations

import click
import msgspec

from postline.cli.failures import NEGATIVE, OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import ago, alone, console, duration, emit_json, json_option, number, table, wants_json, when
from postline.cli.requests import Answer, await_owner, tell, wait_option
from postline.monitor import QueueView, RecordView, TaskDetail, Tasks, TaskView

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline tasks
  postline tasks list images.tasks
  postline tasks show images.tasks 0192f4c2a1b3
  postline tasks cancel images.tasks 0192f4c2a1b3

A queue is named `<service>.<queue>`. Calls that have ended: `postline tickets QUEUE`; failed ones can
be run again: `postline dlq`.
"""


@click.group(epilog=_EPILOG, invoke_without_command=True)
@json_option
@url_option
@click.pass_context
def command(ctx: click.Context, as_json: bool | None, url: str | None) -> int | None:
    """List queues; list, show and cancel the tasks in them."""
    return alone(ctx, queues, as_json, url)


@command.command("queues")
@json_option
@url_option
def queues(as_json: bool | None, url: str | None) -> int:
    """List queues with how many of their tasks are open, retrying and ended, and how far they are behind.

    \b
    Example:
      postline tasks queues --json | jq '.[] | select(.open > 1000) | .name'
    """

    async def work(opened: Opened) -> list[QueueView]:
        return await Tasks(opened.log, opened.monitor).queues()

    views = with_log(url, work)
    if wants_json(as_json):
        emit_json(views)
        return OK
    shares = any(view.priority for view in views)
    columns = (
        *(
            "queue",
            *(("priority", ">share") if shares else ()),
            "status",
            ">workers",
            ">open",
            ">behind",
            ">retrying",
            ">done",
            ">failed",
            ">expired",
        ),
        *(">cancelled", ">duplicates", ">joined"),
    )
    console().print(table(columns, [_row(view, shares=shares) for view in views]))
    return OK


def _row(view: QueueView, *, shares: bool) -> tuple[str, ...]:
    counts = (view.retrying, view.done, view.failed, view.expired, view.cancelled, view.duplicates, view.joined)
    behind = duration(view.lag_seconds)
    share = (view.priority or "-", f"{view.share:.0%}" if view.share else "-") if shares else ()
    return (view.name, *share, view.status, str(view.workers), number(view.open), behind, *map(number, counts))


@command.command("list")
@click.argument("queue")
@click.option("-n", "--count", type=click.IntRange(1), default=50, show_default=True, help="The oldest so many.")
@json_option
@url_option
def list_tasks(queue: str, count: int, as_json: bool | None, url: str | None) -> int:
    """List the tasks of QUEUE that have not ended: open (waiting, or being run) and retrying, oldest first.

    \b
    Example:
      postline tasks list images.tasks --json | jq -r .request_id
    """

    async def work(opened: Opened) -> tuple[list[TaskView], int]:
        name = await opened.subscription_name(queue)
        return await Tasks(opened.log, opened.monitor).open(name, limit=count), opened.clock.now_ms()

    shown, now_ms = with_log(url, work)
    if wants_json(as_json):
        for each in shown:
            emit_json(each)
        return OK
    columns = ("request", "client", "task", "state", "sent", ">attempts", "next attempt", "error")
    rows = [
        (
            *(each.request_id, each.client, each.task, each.state, when(each.sent_ms), number(each.attempts)),
            *(ago(each.next_attempt_ms, now_ms), each.error),
        )
        for each in shown
    ]
    console().print(table(columns, rows))
    return OK


@command.command("show")
@click.argument("queue")
@click.argument("request_id", metavar="REQUEST")
@json_option
@url_option
def show(queue: str, request_id: str, as_json: bool | None, url: str | None) -> int:
    """Show a task of QUEUE by its request's id: its arguments, how it stands, and its result once there is one.

    Fields that its contract marks as sensitive are masked. Exit code 1 if there is none.

    \b
    Example:
      postline tasks show images.tasks 0192f4c2a1b3
    """

    async def work(opened: Opened) -> list[TaskDetail]:
        return await Tasks(opened.log, opened.monitor).find(await opened.subscription_name(queue), request_id)

    found = with_log(url, work)
    for each in found:
        if wants_json(as_json):
            emit_json(each)
        else:
            _draw(each)
    if not found and not wants_json(as_json):
        click.echo(f"There is no task {request_id!r} in queue {queue!r}.")
    return OK if found else NEGATIVE


def _draw(detail: TaskDetail) -> None:
    task = detail.task
    click.echo(f"{task.request_id}: {task.task} of {task.client}, {task.state}")
    click.echo(f"  sent      {when(task.sent_ms)}, at {task.id}")
    if task.expires:
        click.echo(f"  expires   {task.expires}")
    if task.attempts:
        click.echo(f"  attempts  {task.attempts}, the next one {when(task.next_attempt_ms)}")
    if task.same_as:
        click.echo(f"  equals    {task.same_as}, which is under way: it gets that one's outcome")
    click.echo(f"  call      {_text(detail.call)}")
    if detail.reply is not None:
        click.echo(f"  reply     {detail.reply.type} {_text(detail.reply)}")


def _text(record: RecordView) -> str:
    if isinstance(record.data, msgspec.Raw):
        return bytes(record.data).decode()
    return "" if isinstance(record.data_base64, msgspec.UnsetType) else record.data_base64


@command.command("cancel")
@click.argument("queue")
@click.argument("request_id", metavar="REQUEST")
@click.option("--client", help="Whose request it is, where several have the same id.")
@wait_option
@json_option
@url_option
def cancel(
    queue: str, request_id: str, client: str | None, wait_seconds: float, as_json: bool | None, url: str | None
) -> int:
    """Ask that a task of QUEUE not be begun. One that has begun, or is retrying, goes on.

    Its ticket says `cancelled` once its turn has come. Exit code 1 if it has ended, or nobody obeyed in time.

    \b
    Example:
      postline tasks cancel images.tasks 0192f4c2a1b3
    """

    async def work(opened: Opened) -> Answer:
        name = await opened.subscription_name(queue)
        task = await Tasks(opened.log, opened.monitor).only(name, request_id, client)
        answer = Answer(subscription=task.queue, action="cancel", status="nothing", records=[task.id])
        if task.state != "open":
            return answer
        request = await opened.operations.cancel_task(task.queue, task)
        status = await await_owner(opened, request, wait_seconds)
        # Whoever obeys keeps the wish. Whether the call is in hand already is no part of the log.
        return msgspec.structs.replace(answer, status="told" if status == "done" else status)

    return tell(with_log(url, work), f"Cancelling {request_id} in {queue}", wants_json(as_json))
