"""Topics as a service declares them, and a consumer's own view of a topic it does not own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack

from postline.contracts.bounds import Bound
from postline.contracts.formats import FormatName, format_named
from postline.contracts.given import given_schema
from postline.contracts.keys import KeySpec, compile_key, describe_key
from postline.contracts.kinds import is_message_class
from postline.contracts.priorities import NORMAL, Priorities, Priority, sibling_name
from postline.contracts.reading import Reading, Upcast
from postline.contracts.schema import Schema
from postline.errors import ContractError

__all__ = [
    "DEFAULT_PARTITIONS",
    "PLACED_BY",
    "Compaction",
    "ForeignTopic",
    "MessageContract",
    "Retention",
    "Schemas",
    "Topic",
    "TopicOptions",
]

#: In a topic's key as text, before what places its records instead of the key.
PLACED_BY = " placed by "
DEFAULT_PARTITIONS = 8
DEFAULT_MESSAGE_BYTES_MAX = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
#: No engine takes more.
_MESSAGE_BYTES_MAX = 256 << 20
_RESERVED = (".dead-letters", ".control")

ClassT = TypeVar("ClassT", bound=type)
FunctionT = TypeVar("FunctionT", bound=Callable[[Any], Any])

#: Who must be able to read whom; the levels of the field's registries.
Evolution: TypeAlias = Literal[
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"
]


class MessageContract:
    """One message type of a topic: its wire name, its class, and how a value is written and placed."""

    __slots__ = ("cls", "decode", "encode", "key_of", "key_spec", "name", "placed_by", "reading", "topic")

    #: The value's bytes; raises EncodeError for a value that isn't of the declared types.
    encode: Callable[[Any], bytes]
    #: The value of bytes; raises what the format's library raises.
    decode: Callable[[bytes], Any]
    #: The key's bytes, None on a keyless topic; raises EncodeError where it is missing or empty.
    key_of: Callable[[Any], bytes | None]
    #: Of value and key, the bytes that choose the partition: those of `partition_by`, else the key.
    placed_by: Callable[[Any, bytes | None], bytes | None]

    def __init__(
        self,
        topic: str,
        reading: Reading,
        key: KeySpec | None,
        partition_by: KeySpec | None,
    ) -> None:
        name, cls = reading.name, reading.cls
        self.topic, self.name, self.cls, self.key_spec = topic, name, cls, key
        self.reading = reading
        self.encode, self.decode = reading.codec
        self.key_of = _no_key if key is None else compile_key(key, cls, topic, name)
        self.placed_by = _by_key if partition_by is None else _by_other(partition_by, cls, topic, name)


def _no_key(value: Any) -> None:
    return None


def _by_key(value: Any, key: bytes | None) -> bytes | None:
    return key


def _by_other(spec: KeySpec, cls: Any, topic: str, name: str) -> Callable[[Any, bytes | None], bytes]:
    read = compile_key(spec, cls, topic, name, "partition_by")
    return lambda value, _key: read(value)


class _Declared:
    """What Topic and ForeignTopic have in common: types by wire name and by class."""

    def __init__(self, name: str, format: FormatName = "json") -> None:
        if not _NAME.fullmatch(name) or name.endswith(_RESERVED):
            raise ContractError(
                f"{name!r} can't be a topic's name.",
                remedy="Use up to 200 letters, digits, dots, dashes and underscores, beginning with a letter or digit "
                "and not ending in .dead-letters or .control.",
            )
        self.name = name
        self.format = format_named(format)
        self._names: dict[type, str] = {}
        self._readings: dict[str, Reading] = {}
        self.priorities: Priorities | None = None
        #: On a sibling, the priority that its records have; the topic itself has the normal one, where there are any.
        self.priority: Priority | None = None
        #: The declared name, which siblings have in common.
        self.base_name = name
        #: By priority, the topics that hold its records, from the highest to the lowest; {} without priorities.
        self.siblings: dict[str, Self] = {}

    def _prioritize(self: Self, priorities: Mapping[str, float] | Priorities | None) -> list[str]:
        """Make the sibling topics, which are the same but for their names; what is wrong with the priorities."""
        if priorities is None:
            return []
        self.priorities = priorities if isinstance(priorities, Priorities) else Priorities(priorities)
        if problems := self.priorities.problems():
            return problems
        for each in self.priorities.all:
            # Whatever is declared later is declared on all: they share what holds it.
            sibling = self if each.name == NORMAL else copy(self)
            sibling.name, sibling.priority = sibling_name(self.name, each.name), each
            self.siblings[each.name] = sibling
        for sibling in self.siblings.values():
            if sibling is not self:
                sibling.siblings = {}
        return []

    def type_name_of(self, cls: type) -> str:
        """The wire name of a class on this topic. Raises ContractError if it has none."""
        try:
            return self._names[cls]
        except (KeyError, TypeError):
            known = ", ".join(sorted(self._names.values())) or "none"
            raise ContractError(
                f"Topic {self.name!r} declares no message type {getattr(cls, '__qualname__', cls)} (it has {known}).",
                remedy='Put the topic\'s `.event("Wire.Name")` (on a foreign topic `.reads`) above the class.',
            ) from None

    def reading_of(self, wire_name: str) -> Reading:
        """How values of a type are read. Raises KeyError for one that isn't declared."""
        return self._readings[wire_name]

    def decoder_of(self, wire_name: str) -> Callable[[bytes], Any]:
        """What reads the bytes of a type, as its present version has them."""
        return self._readings[wire_name].decode

    def upcast(self, old: type, new: type) -> Callable[[FunctionT], FunctionT]:
        """Read what was written as `old`, a class that is kept for it, through the decorated function.

        For changes that aliases and defaults can't express. `new` is a class declared here; the function, given back
        unchanged, makes one of an `old`. It serves all versions that `old` can read and `new` can't, and may lead to a
        class that is upcast itself. What it gives that is no `new` makes a dead letter. Raises ContractError.
        """
        reading = self._readings[self.type_name_of(new)]

        def declare(function: FunctionT) -> FunctionT:
            if _waits(function):
                name = getattr(function, "__qualname__", function)
                raise ContractError(
                    f"The upcast {name} of {reading.name!r} is no plain function.",
                    remedy="Write it with `def` and return the new value: it is called while a record is decoded.",
                )
            reading.upcasts.append(Upcast(self._read(reading.name, old), function))
            return function

        return declare

    @property
    def classes(self) -> frozenset[type]:
        """The classes declared or viewed on it."""
        return frozenset(self._names)

    @property
    def declares_one_type(self) -> bool:
        """Whether a record can only mean one type."""
        return len(self._names) == 1

    def _read(
        self, wire_name: str, cls: type, aliases: Sequence[str] = (), schema: str | Schema | None = None
    ) -> Reading:
        if not is_message_class(cls):
            raise ContractError(
                f"{getattr(cls, '__qualname__', cls)} can't be a message ({wire_name!r} of topic {self.name!r}).",
                remedy="Make it a msgspec.Struct, a dataclass or a pydantic model.",
            )
        given = given_schema(schema, wire_name)
        return Reading(cls, wire_name, self.format, aliases, given=given, is_view=isinstance(self, ForeignTopic))

    def _declare(self, reading: Reading) -> None:
        wire_name, cls = reading.name, reading.cls
        for alias in (wire_name, *reading.aliases):
            self._check_name(alias)
        if cls in self._names:
            raise ContractError(
                f"Topic {self.name!r} declares {cls.__qualname__} twice, as {self._names[cls]!r} and {wire_name!r}.",
                remedy="Keep one wire name for a class.",
            )
        self._names[cls] = wire_name
        self._readings[wire_name] = reading

    def _check_name(self, wire_name: str) -> None:
        if not wire_name or not _NAME.fullmatch(wire_name):
            raise ContractError(
                f"{wire_name!r} can't be a wire name (topic {self.name!r}).",
                remedy='Use one such as "shop.OrderPlaced".',
            )
        if any(wire_name in (known.name, *known.aliases) for known in self._readings.values()):
            raise ContractError(
                f"Topic {self.name!r} declares {wire_name!r} twice.", remedy="Give each type its own wire name."
            )


def _waits(function: object) -> bool:
    """Whether calling it gives no value, but something to wait for or go through; also what can't be called."""
    called = function if inspect.isroutine(function) else getattr(type(function), "__call__", None)  # noqa: B004
    return not callable(function) or any(
        test(each)
        for test in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        for each in (function, called)
    )


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long records are kept: until they are older than `age` or the partition larger than its bytes."""

    age: timedelta | None = None
    bytes_per_partition: int | None = None


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """Keep the newest record of each key; a tombstone (a record without value) goes after its retention."""

    tombstone_retention: timedelta = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Schemas:
    """How a topic's values are written, and the rule that versions of its contracts keep."""

    format: FormatName = "json"
    #: Checked by `postline contracts check`, and when a service starts.
    evolution: Evolution = "FULL_TRANSITIVE"
    #: Name the schema in the frame of Confluent's serializers, around the value, instead of in a header beside it.
    framed: bool = False
    #: Write messages as CloudEvents in structured mode, whole in one JSON document, for other readers of a cluster.
    structured: bool = False
    #: A larger value is refused when it is published.
    message_bytes_max: int = DEFAULT_MESSAGE_BYTES_MAX


class TopicOptions(TypedDict, total=False):
    """What few topics need besides; see `Topic`."""

    compaction: Compaction | None
    priorities: Mapping[str, float] | Priorities | None
    bound: Bound | None


@dataclass(frozen=True, kw_only=True)
class _Further:
    compaction: Compaction | None = None
    priorities: Mapping[str, float] | Priorities | None = None
    bound: Bound | None = None


class Topic(_Declared):
    """A named log owned by one service, cut into partitions by key.

    `key` is a field, a dotted path or a function; order, lanes and state belong to it. Placement
    follows `partition_by` if given, which must be the same for all messages of a key. `retention`
    is an age, or a `Retention` with a size as well; None keeps everything. `compaction` keeps the
    newest message of each key. `schemas` says how values are written, how large, and who must be able to read whom.
    `priorities` names priorities from the highest to the lowest, each with the share that it is guaranteed: a mapping
    or `Priorities`. Each but "normal" is a sibling topic, `<name>.<priority>`, alike in all else.
    `bound` makes publishers wait while a subscription that is required to keep up lags too far.
    """

    #: Events from outside may be published to it: not to what carries commands, or the library's own accounts.
    takes_events = True

    def __init__(
        self,
        name: str,
        *,
        owner: str,
        key: KeySpec | None = None,
        partition_by: KeySpec | None = None,
        partitions: int = DEFAULT_PARTITIONS,
        retention: timedelta | Retention | None = None,
        schemas: Schemas | None = None,
        **options: Unpack[TopicOptions],
    ) -> None:
        self.schemas = schemas or Schemas()
        super().__init__(name, self.schemas.format)
        self.owner, self.partitions = owner, partitions
        self.key, self.partition_by = key, partition_by
        self.retention = retention if isinstance(retention, Retention) else Retention(age=retention)
        further = _Further(**options)
        self.compaction, self.bound = further.compaction, further.bound
        self.contracts: dict[str, MessageContract] = {}
        if problems := [*self._problems(), *self._prioritize(further.priorities)]:
            raise ContractError(f"Topic {name!r} can't be declared: " + " ".join(problems))

    def _problems(self) -> list[str]:
        problems = []
        if not self.owner:
            problems.append("it has no owner; name the service that owns it.")
        if not 1 <= self.partitions <= 10_000:
            problems.append(f"{self.partitions} partitions; use 1 to 10,000.")
        if self.compaction is not None and self.key is None:
            problems.append("compaction keeps the newest message of each key; declare a key.")
        age, size = self.retention.age, self.retention.bytes_per_partition
        if (age is not None and age <= timedelta(0)) or (size is not None and size <= 0):
            problems.append("retention must be above zero; leave it out to keep everything.")
        if not 1 <= self.message_bytes_max <= _MESSAGE_BYTES_MAX:
            problems.append(f"message_bytes_max of its schemas must be from 1 to {_MESSAGE_BYTES_MAX:,}.")
        if self.schemas.framed and self.schemas.structured:
            problems.append("a framed value can't stand in a structured event; use one of framed=, structured=.")
        if self.bound is not None:
            problems += self.bound.problems()
        return problems

    @property
    def message_bytes_max(self) -> int:
        """What publishing refuses to go beyond; the log's own limit for the topic may be smaller."""
        return self.schemas.message_bytes_max

    @property
    def keyed(self) -> bool:
        """Whether its messages have a key."""
        return self.key is not None

    @property
    def key_text(self) -> str:
        """The declared key, and what places it if that differs, as the log keeps and compares it."""
        placed_by = describe_key(self.partition_by)
        return describe_key(self.key) + (PLACED_BY + placed_by if placed_by else "")

    def event(
        self, wire_name: str, *, aliases: Sequence[str] = (), schema: str | Schema | None = None
    ) -> Callable[[ClassT], ClassT]:
        """Declare the decorated class, given back unchanged, as an event with a stable wire name.

        Any msgspec Struct, dataclass or pydantic model. `aliases` are wire names that it had before: records under
        them are read as this type. `schema` is the contract where the class says less than it, as `postline contracts
        import` writes it: values are written as it says, and both must have the same fields. Raises ContractError.
        """

        def declare(cls: ClassT) -> ClassT:
            reading = self._read(wire_name, cls, aliases, schema)
            contract = MessageContract(self.name, reading, self.key, self.partition_by)
            self._declare(reading)
            self.contracts[wire_name] = contract
            return cls

        return declare


class ForeignTopic(_Declared):
    """A consumer's own view of a topic: only the types and fields it uses, without the owner's code.

    It can be subscribed to, not published to; its partitions and retention are the log's. `priorities` are the
    owner's, in whose absence only what is normal is read.
    """

    def __init__(
        self,
        name: str,
        *,
        keyed: bool = True,
        format: FormatName = "json",
        priorities: Mapping[str, float] | Priorities | None = None,
    ) -> None:
        super().__init__(name, format)
        self.keyed = keyed
        if problems := self._prioritize(priorities):
            raise ContractError(f"Topic {name!r} can't be viewed so: " + " ".join(problems))

    def reads(
        self, wire_name: str, *, aliases: Sequence[str] = (), schema: str | Schema | None = None
    ) -> Callable[[ClassT], ClassT]:
        """Read messages of a wire name as the decorated class, which is given back unchanged.

        `schema` is the owner's, as `postline contracts import` writes it: values that name no schema of their own are
        read by it, so that the class may have some of the fields. Raises ContractError.
        """

        def declare(cls: ClassT) -> ClassT:
            self._declare(self._read(wire_name, cls, aliases, schema))
            return cls

        return declare
