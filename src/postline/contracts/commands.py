"""Command topics: what a service can be told and asked, and what it answers (decision 0011)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypedDict, TypeVar, Unpack

from postline.contracts.bounds import Bound
from postline.contracts.keys import KeySpec
from postline.contracts.priorities import NORMAL, Priorities
from postline.contracts.reading import Reading
from postline.contracts.replies import BUILT_IN, built_in_name
from postline.contracts.topics import DEFAULT_PARTITIONS, Compaction, Retention, Schemas, Topic
from postline.errors import ContractError

__all__ = ["CommandSpec", "CommandTopic", "ReplyTopic", "ticket_key", "ticket_partition"]

ClassT = TypeVar("ClassT", bound=type)
Replies = type | Sequence[type] | None

COMMANDS, REPLIES, TICKETS = ".commands", ".replies", ".tickets"


@dataclass(frozen=True)
class CommandSpec:
    """One command or query: its class, and the classes that it can be answered with."""

    name: str
    cls: type
    replies: tuple[type, ...]
    refusals: tuple[type, ...]
    #: Changes nothing: its handler may not publish.
    is_query: bool = False
    #: How long a command may wait to be begun, where its sender says nothing else.
    expires: timedelta | float | None = None
    #: Of a command and the time in milliseconds: the request id, where its sender gives none.
    own_id: Callable[[Any, int], str] | None = None
    #: The priority that it has where its sender says nothing else; None for the normal one.
    priority: str | None = None
    #: Of a command: what all that are equal to it have in common, where one of them is under way at a time.
    unique_id: Callable[[Any], str] | None = None


def ticket_key(client_id: str, request_id: str) -> bytes:
    """The key of a request's outcome on the topic of tickets; request ids are each client's own."""
    return f"{client_id}/{request_id}".encode("utf-8", "surrogatepass")


def ticket_partition(key: bytes, partitions: int) -> int:
    """Where a ticket lies: by a hash that costs nothing, since nobody but us writes there."""
    return zlib.crc32(key) % partitions


def client_id(value: Any) -> bytes:
    """Stands for the key of replies, which no field of a value tells."""
    raise ContractError(
        f"A {type(value).__qualname__} is a reply, which only handling a command can give.",
        remedy="Return it from the command's handler, or raise Refused with it; publish events instead.",
    )


def request(value: Any) -> bytes:
    """Stands for the key of tickets, as `client_id` does for that of replies."""
    return client_id(value)


class ReplyTopic(Topic):
    """The topic of a service's replies, by the id of the client that asked. Each can also be a built-in one."""

    def type_name_of(self, cls: type) -> str:
        """The wire name of a reply's class."""
        return built_in_name(cls) or super().type_name_of(cls)

    def reading_of(self, wire_name: str) -> Reading:
        """How replies of a type are read."""
        if (kind := BUILT_IN.get(wire_name)) is not None:
            return Reading(kind.cls, wire_name)
        return super().reading_of(wire_name)

    @property
    def declares_one_type(self) -> bool:
        """Never: a fault can come in any reply's place."""
        return False


class CommandOptions(TypedDict, total=False):
    """What more can be said of a command topic."""

    #: How many commands may wait; of no subscriptions it means the one that serves the topic.
    bound: Bound | None
    #: As of `Topic`: the commands have them, replies and tickets don't.
    priorities: Mapping[str, float] | Priorities | None


class CommandTopic:
    """The commands and queries that one service handles, and its replies to them.

    It is three topics: `commands`, with order and placement by `key`; `replies`, by client; and `tickets`, each
    request's outcome, kept for `tickets_kept`. It stands wherever an app lists topics: in `owns` of the service that
    the contract belongs to, in `publishes_to` of those that send. `retention` is of commands and replies; one that no
    attempt has begun when it ends is lost to retention, which is an outcome and an alarm. `bound` says how many may
    wait before senders at the edge do, too. `priorities` are names from the highest to the lowest, each with the share
    that it is guaranteed, as of `Topic`: commands of each but "normal" lie in a sibling, `<name>.commands.<priority>`.
    """

    def __init__(
        self,
        name: str,
        *,
        owner: str,
        key: KeySpec | None = None,
        partitions: int = DEFAULT_PARTITIONS,
        retention: timedelta | Retention | None = timedelta(days=7),
        tickets_kept: timedelta = timedelta(days=7),
        schemas: Schemas | None = None,
        **options: Unpack[CommandOptions],
    ) -> None:
        self.name, self.owner = name, owner
        bound = options.get("bound")
        if bound is not None and not bound.subscriptions:
            bound = replace(bound, subscriptions=(name,))
        rule = schemas or Schemas(evolution="BACKWARD_TRANSITIVE")
        kept = retention if isinstance(retention, Retention) else Retention(age=retention)
        shape = {"owner": owner, "partitions": partitions}
        further = {**shape, "bound": bound, "priorities": options.get("priorities")}
        self.commands = Topic(name + COMMANDS, key=key, retention=kept, schemas=rule, **further)  # type: ignore[arg-type]
        # Clients are the readers here, and they are of older versions while a service goes ahead.
        told = replace(rule, evolution="FULL_TRANSITIVE" if rule.evolution == "BACKWARD_TRANSITIVE" else rule.evolution)
        self.replies = ReplyTopic(name + REPLIES, key=client_id, retention=kept, schemas=told, **shape)  # type: ignore[arg-type]
        self.tickets = Topic(
            name + TICKETS,
            key=request,
            retention=tickets_kept,
            compaction=Compaction(),
            schemas=told,
            **shape,  # type: ignore[arg-type]
        )
        for each in self.topics:
            each.takes_events = False
        self.specs: dict[str, CommandSpec] = {}

    @property
    def topics(self) -> tuple[Topic, ...]:
        """The three topics that it is."""
        return (self.commands, self.replies, self.tickets)

    def reply(self, wire_name: str, *, aliases: Sequence[str] = ()) -> Callable[[ClassT], ClassT]:
        """Declare the decorated class as a reply or a refusal, with a stable wire name. Raises ContractError.

        A class that a command names without this is declared as `<topic>.<ClassName>`.
        """
        return self.replies.event(wire_name, aliases=aliases)

    def command(
        self,
        wire_name: str,
        *,
        reply: Replies = None,
        refusals: Sequence[type] = (),
        aliases: Sequence[str] = (),
    ) -> Callable[[ClassT], ClassT]:
        """Declare the decorated class as a command: an instruction, answered by one of `reply` or of `refusals`.

        Without `reply` its success is `Done`. Raises ContractError.
        """
        return self._declare(wire_name, (reply, refusals, False), aliases)

    def query(
        self, wire_name: str, *, reply: Replies, refusals: Sequence[type] = (), aliases: Sequence[str] = ()
    ) -> Callable[[ClassT], ClassT]:
        """Declare the decorated class as a query: a question whose handler changes nothing. Raises ContractError."""
        return self._declare(wire_name, (reply, refusals, True), aliases)

    def spec_of(self, cls: type) -> CommandSpec:
        """What is declared of a command's class. Raises ContractError."""
        return self.specs[self.commands.type_name_of(cls)]

    def priorities_of(self, spec: CommandSpec) -> list[str]:
        """The priorities that a command may be sent with, from the highest to the lowest; [] without any."""
        if spec.own_id is not None and self.commands.siblings:
            return [spec.priority or NORMAL]  # several could not be told to be the same one
        return list(self.commands.siblings)

    def _declare(
        self, wire_name: str, answers: tuple[Replies, Sequence[type], bool], aliases: Sequence[str]
    ) -> Callable[[ClassT], ClassT]:
        reply, refusals, is_query = answers
        replies = (reply,) if isinstance(reply, type) else tuple(reply or ())
        for cls in (*replies, *refusals):
            self._know(cls)
        if both := set(replies) & set(refusals):
            raise ContractError(
                f"{wire_name!r} has {sorted(cls.__qualname__ for cls in both)} as reply and as refusal.",
                remedy="Give each outcome a class of its own: a client must be able to tell them apart.",
            )

        def declare(cls: ClassT) -> ClassT:
            self.commands.event(wire_name, aliases=aliases)(cls)
            self.specs[wire_name] = CommandSpec(wire_name, cls, replies, tuple(refusals), is_query)
            return cls

        return declare

    def _know(self, cls: type) -> None:
        if cls not in self.replies.classes and built_in_name(cls) is None:
            self.replies.event(f"{self.name}.{getattr(cls, '__name__', cls)}")(cls)
