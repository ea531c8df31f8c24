"""`postline audit`: whether every record below the positions has its outcome."""

from __future__ import annotations

from collections.abc import Sequence

import click

from postline.cli.failures import NEGATIVE, OK
from postline.cli.opening import Opened, url_option, with_log
from postline.cli.output import console, emit_json, json_option, number, table, wants_json
from postline.monitor import AuditView, PartitionAudit

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline audit
  postline audit billing --partitions
  postline audit --json | jq '.[].missing'
"""

#: In the order of the equation; the others are columns only where one of them happened.
_ALWAYS = ("done", "filtered", "duplicate", "dead-lettered", "discarded", "held")


@click.command(epilog=_EPILOG)
@click.argument("names", metavar="[SUBSCRIPTION]...", nargs=-1)
@click.option("--partitions", is_flag=True, help="A line for each partition.")
@json_option
@url_option
def command(names: tuple[str, ...], partitions: bool, as_json: bool | None, url: str | None) -> int:
    """Check that every record has its outcome.

    For each partition of a subscription, position - start must equal the sum of the outcomes, of
    the held records and of the gaps between offsets; and the held records counted must be those
    that state has. Exits with 1 if that fails anywhere.
    """

    async def work(opened: Opened) -> list[AuditView]:
        if names:
            chosen = [await opened.subscription_name(name) for name in names]
        else:
            chosen = [info.name for info in await opened.log.subscriptions()]
        return [await opened.monitor.audit(name) for name in chosen]

    audits = with_log(url, work)
    if wants_json(as_json):
        emit_json(audits)
    else:
        _draw(audits, partitions)
    return OK if all(audit.balanced for audit in audits) else NEGATIVE


def _draw(audits: Sequence[AuditView], partitions: bool) -> None:
    screen = console()
    happened = [label for audit in audits for label, count in audit.outcomes.items() if count]
    labels = [*_ALWAYS, *sorted(set(happened) - set(_ALWAYS))]
    columns = ["subscription", *([">partition"] if partitions else []), ">handled", *(f">{label}" for label in labels)]
    rows = []
    for audit in audits:
        if partitions:
            rows += [_partition_row(audit.subscription, each, labels) for each in audit.partitions]
        else:
            rows.append(_row(audit, labels))
    screen.print(table([*columns, ">gaps", ">missing", ""], rows))
    for audit in audits:
        for each in audit.partitions:
            if not each.balanced:
                screen.print(_explain(audit.subscription, each), markup=False)
    if audits and all(audit.balanced for audit in audits):
        screen.print("Balanced: handled = the sum of all outcomes + held + gaps, in every partition.")


def _row(audit: AuditView, labels: Sequence[str]) -> list[str]:
    counts = [number(audit.outcomes[label]) for label in labels]
    return [
        audit.subscription,
        number(audit.handled),
        *counts,
        number(audit.gaps),
        number(audit.missing),
        _verdict(audit.balanced),
    ]


def _partition_row(name: str, each: PartitionAudit, labels: Sequence[str]) -> list[str]:
    counts = [number(each.outcomes[label]) for label in labels]
    handled = number(each.position - each.start)
    ends = [number(each.gaps), number(each.missing), _verdict(each.balanced)]
    return [name, str(each.partition), handled, *counts, *ends]


def _verdict(balanced: bool) -> str:
    return "balanced" if balanced else "UNBALANCED"


def _explain(name: str, each: PartitionAudit) -> str:
    terms = " + ".join(f"{count} {label}" for label, count in each.outcomes.items() if count) or "0"
    equation = f"{each.position} - {each.start} = {terms} + {each.gaps} gaps, missing {each.missing}"
    entries = "" if each.held_entries is None else f"; state has {each.held_entries} held entries"
    return f"{name} partition {each.partition}: {equation}{entries}"
