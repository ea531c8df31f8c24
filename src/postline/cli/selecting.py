"""Which dead letters a command means: ids, or what is said of them by options."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click
import msgspec

from postline.cli.opening import Opened
from postline.cli.times import parse_time_ms
from postline.contracts.json_documents import require_unique_keys
from postline.contracts.rules import Rule
from postline.errors import UsageError
from postline.monitor import RecordId, Selection

__all__ = ["Chosen", "filter_options", "selection_options"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Chosen(NamedTuple):
    """What a command line says of the dead letters that it means."""

    records: tuple[str, ...] = ()
    everything: bool = False
    key: str | None = None
    group: str | None = None
    type: str | None = None
    where: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def filters(self) -> bool:
        """Whether anything is said of them beside ids and all."""
        return any(said is not None for said in self[2:])

    def require_one_way(self) -> None:
        """Raise UsageError unless exactly one way to choose was used."""
        if bool(self.records) + self.everything + self.filters != 1:
            raise UsageError(
                "It isn't clear which dead letters are meant.",
                remedy="Give ids, or --all, or any of --key, --group, --type, --where, --since, --until.",
            )

    def selection(self, opened: Opened, *, not_of_run: str = "") -> Selection:
        """The same for the read model. Raises UsageError, ContractError for a rule that is none or ambiguous."""
        now_ms = opened.clock.now_ms()
        return Selection(
            records=tuple(sorted({RecordId.parse(text) for text in self.records})),
            key=self.key,
            group=self.group,
            type=self.type,
            rule=None if self.where is None else _rule(self.where),
            since_ms=None if self.since is None else parse_time_ms(self.since, now_ms),
            until_ms=None if self.until is None else parse_time_ms(self.until, now_ms),
            not_of_run=not_of_run,
        )


def _rule(text: str) -> Rule:
    require_unique_keys(text)
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"--where is no JSON: {error}.", remedy="""Write a rule, such as '{"field": "total", "gt": 100}'."""
        ) from error
    return Rule.from_data(data)


_FILTERS = (
    click.option("--key", help="Those of one key."),
    click.option("--group", help="Those of one group, as `dlq groups` names it."),
    click.option("--type", help="Those of one type, by its wire name."),
    click.option("--where", metavar="RULE", help="Those whose content a rule is true of, as JSON."),
    click.option("--since", metavar="TIME", help="Those that failed since then: a time, or 2h."),
    click.option("--until", metavar="TIME", help="Those that failed before that."),
)


def _packing(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def packed(**said: Any) -> Any:
        chosen = Chosen(**{name: said.pop(name) for name in Chosen._fields if name in said})
        return command(chosen=chosen, **said)

    return packed


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say something of dead letters; it takes them as `chosen`."""
    command = _packing(command)
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `filter_options`, with ids and --all."""
    command = filter_options(command)
    command = click.option("--all", "everything", is_flag=True, help="Every dead letter of the subscription.")(command)
    return click.argument("records", metavar="[ID]...", nargs=-1)(command)
