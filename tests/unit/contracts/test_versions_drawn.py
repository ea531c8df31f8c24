"""Random versions of random contracts: what the checker lets pass is read, and as the same value in every format."""

from __future__ import annotations

import enum
import random
import sys
import types
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, ForwardRef, NamedTuple, Optional, TypeAlias
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from postline.contracts.compatibility import breaks
from postline.contracts.formats import FormatName, format_named
from postline.contracts.marks import was
from postline.contracts.reading import Reading
from postline.errors import ContractError, EncodeError

FORMATS: tuple[FormatName, ...] = ("json", "avro", "protobuf")
PAIRS = 60

#: A type as data: its sort, and what it is made of.
Drawn: TypeAlias = tuple[Any, ...]

_LEAVES: dict[str, tuple[Any, list[Any]]] = {
    "int": (int, [0, 1, -1, 2**31, -(2**53)]),
    "float": (float, [0.0, 1.5, -2.25, 1e10]),
    "str": (str, ["", "a", "é", "2020-01-01", "1.5", "null", "\u2028x", "longer text"]),
    "bool": (bool, [True, False]),
    "bytes": (bytes, [b"", b"a", b"\xff\x00", b"abcdefg"]),
    "decimal": (Decimal, [Decimal("1.50"), Decimal("-0.001"), Decimal("1E+3"), Decimal("0.00")]),
    "date": (date, [date(1, 2, 3), date(2020, 2, 29)]),
    "datetime": (datetime, [datetime(2020, 2, 3, 4, 5, 6, each, tzinfo=UTC) for each in (0, 123456)]),
    "time": (time, [time(1, 2, 3), time(1, 2, 3, 123456)]),
    "timedelta": (timedelta, [timedelta(days=-3, microseconds=1), timedelta(seconds=99), timedelta(0)]),
    "uuid": (UUID, [UUID(int=7), UUID(int=2**127)]),
}
_PROMOTED = {
    "int": ["float", "decimal"],
    "float": ["decimal"],
    **{each: ["str"] for each in ("decimal", "date", "datetime", "time", "timedelta", "uuid", "bytes")},
}
_SYMBOLS = "abcdef"


class Slot(NamedTuple):
    """A field of a drawn record."""

    name: str
    type: Drawn
    default: Any
    was: tuple[str, ...] = ()


class _Drawing:
    """Draws a contract, another version of it, classes of both, and values."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self._number = chance, 0

    def next(self) -> int:
        self._number += 1
        return self._number

    def sometimes(self, share: float) -> bool:
        return self.chance.random() < share

    # -- types --------------------------------------------------------------------------------

    def type(self, depth: int) -> Drawn:
        sorts = ["leaf", "leaf", "leaf", "enum"] + (
            ["list", "map", "opt", "tuple", "record", "union", "set"] * bool(depth)
        )
        match self.chance.choice(sorts):
            case "leaf":
                return self.leaf()
            case "enum":
                return ("enum", self.next(), tuple(self.chance.sample(_SYMBOLS, self.chance.randint(1, 4))), None)
            case "set":
                return ("set", ("leaf", self.chance.choice(["int", "str", "uuid", "date"]), None))
            case "map":
                key = ("leaf", self.chance.choice(["str", "int", "uuid", "date"]), None)
                return ("map", self.chance.choice([key, ("enum", self.next(), ("a", "b"), None)]), self.type(depth - 1))
            case "tuple":
                return ("tuple", *(self.type(depth - 1) for _ in range(self.chance.randint(1, 3))))
            case "union":
                return ("union", *(self.record(depth - 1, tagged=True) for _ in range(2)))
            case "record":
                return self.record(depth - 1, recursive=self.sometimes(0.2), positional=self.sometimes(0.2))
            case sort:
                return (sort, self.type(depth - 1))

    def leaf(self) -> Drawn:
        name = self.chance.choice(list(_LEAVES))
        limit = ("max_length", self.chance.randint(1, 6)) if name in ("str", "bytes") and self.sometimes(0.2) else None
        return ("leaf", name, limit)

    def record(self, depth: int, *, tagged: bool = False, recursive: bool = False, positional: bool = False) -> Drawn:
        number = self.next()
        slots = [self.slot(f"f{each}", depth) for each in range(self.chance.randint(1, 3))]
        if positional:
            slots = [each._replace(default=None) for each in slots]
        if recursive and not positional:
            slots.append(Slot("kids", ("kids", self.chance.choice(["list", "map", "opt"]), number), "kids"))
        return ("record", number, tuple(slots), f"T{number}" if tagged else None, (), positional)

    def slot(self, name: str, depth: int) -> Slot:
        if self.sometimes(0.25):
            return Slot(name, ("leaf", "int", None), self.chance.randint(1, 9))
        return Slot(name, self.type(depth), None)

    # -- another version ----------------------------------------------------------------------

    def changed(self, drawn: Drawn) -> Drawn:
        if self.sometimes(0.06):
            return drawn[1] if drawn[0] == "opt" else ("opt", drawn)
        match drawn:
            case ("leaf", name, limit):
                if name in _PROMOTED and self.sometimes(0.25):
                    return ("leaf", self.chance.choice(_PROMOTED[name]), None)
                return ("leaf", name, None if self.sometimes(0.1) else limit)
            case ("enum", number, symbols, _):
                return self.changed_symbols(number, list(symbols))
            case ("map", key, value):
                text = key[0] == "leaf" and self.sometimes(0.3)
                return ("map", ("leaf", "str", None) if text else key, self.changed(value))
            case ("record", *_):
                return self.changed_record(drawn)
            case ("union", *options):
                found = [self.changed_record(each) for each in options]
                self.chance.shuffle(found)
                return ("union", *found)
            case ("kids", *_):
                return drawn
            case (sort, *parts):
                return (sort, *map(self.changed, parts))
        raise AssertionError(drawn)

    def changed_symbols(self, number: int, symbols: list[str]) -> Drawn:
        if self.sometimes(0.3):
            return ("leaf", "str", self.chance.choice([None, ("max_length", 3)]))
        if self.sometimes(0.3):
            self.chance.shuffle(symbols)
        if self.sometimes(0.3):
            symbols = [*symbols[1:], "zz"]
        return ("enum", number, tuple(symbols), symbols[0] if self.sometimes(0.4) else None)

    def changed_record(self, drawn: Drawn) -> Drawn:
        _, number, slots, tag, tags, positional = drawn
        found = list({each.name: each for each in map(self.changed_slot, slots)}.values())
        if self.sometimes(0.25) and len(found) > 1:
            found.pop(0)
        if self.sometimes(0.3):
            found.append(Slot(f"added{self.next()}", ("leaf", "int", None), 7))
        if self.sometimes(0.2):
            self.chance.shuffle(found)
        if tag and self.sometimes(0.2):
            tag, tags = f"R{tag}", (*tags, tag)
        return ("record", number, tuple(found), tag, tags, positional)

    def changed_slot(self, slot: Slot) -> Slot:
        if slot.default is not None and slot.name != "kids":
            slot = slot._replace(default=self.chance.randint(1, 9))
        if slot.name != "kids" and self.sometimes(0.2):
            # Sometimes a name that another field has, or had.
            name = self.chance.choice([f"n{slot.name}", "f0", "f1"])
            slot = slot._replace(name=name, was=(*slot.was, slot.name))
        if slot.default is not None:  # which has to stay of the field's type
            return slot
        return slot._replace(type=self.changed(slot.type))

    # -- classes ------------------------------------------------------------------------------

    def hint(self, drawn: Drawn, made: dict[Drawn, Any]) -> Any:
        match drawn:
            case ("leaf", name, limit):
                cls = _LEAVES[name][0]
                return Annotated[cls, Meta(**{limit[0]: limit[1]})] if limit and name in ("str", "bytes") else cls
            case ("list", items):
                return list.__class_getitem__(self.hint(items, made))
            case ("set", items):
                return set.__class_getitem__(self.hint(items, made))
            case ("map", keys, values):
                return dict.__class_getitem__((self.hint(keys, made), self.hint(values, made)))
            case ("opt", inner):
                return self.hint(inner, made) | None
            case ("tuple", *items):
                return tuple.__class_getitem__(tuple(self.hint(each, made) for each in items))
            case ("union", one, other):
                return self.hint(one, made) | self.hint(other, made)
            case ("kids", sort, number):
                own = ForwardRef(f"R{number}")
                whole: dict[str, Any] = {"list": list.__class_getitem__(own), "map": dict.__class_getitem__((str, own))}
                return whole.get(sort) or Optional[own]  # noqa: UP045 - of a name, which takes no |
        if drawn not in made:
            made[drawn] = _enumeration(drawn) if drawn[0] == "enum" else self._struct(drawn, made)
        return made[drawn]

    def _struct(self, drawn: Drawn, made: dict[Drawn, Any]) -> Any:
        _, number, slots, tag, tags, positional = drawn
        fields: list[Any] = []
        for slot in slots:
            hint = self.hint(slot.type, made)
            hint = Annotated[hint, was(*slot.was)] if slot.was else hint
            if slot.default == "kids":
                factory: Any = {"list": list, "map": dict}.get(slot.type[1])
                fields.append((slot.name, hint, msgspec.field(default_factory=factory) if factory else None))
            else:
                fields.append((slot.name, hint) if slot.default is None else (slot.name, hint, slot.default))
        module = types.ModuleType(f"drawn{id(made)}_{self.next()}")
        sys.modules[module.__name__] = module
        cls = msgspec.defstruct(
            f"R{number}",
            fields,
            tag=tag,
            kw_only=True,
            array_like=positional,
            omit_defaults=not positional,
            namespace={"__was__": tags},
            module=module.__name__,
        )
        setattr(module, cls.__name__, cls)
        return cls

    # -- values -------------------------------------------------------------------------------

    def value(self, drawn: Drawn, made: dict[Drawn, Any], records: dict[int, Drawn], depth: int = 0) -> Any:
        several = range(self.chance.randint(0, 2))
        match drawn:
            case ("leaf", name, limit):
                found = self.chance.choice(_LEAVES[name][1])
                return found[: limit[1]] if limit and name in ("str", "bytes") else found
            case ("enum", *_):
                return self.chance.choice(list(self.hint(drawn, made)))
            case ("list", items):
                return [self.value(items, made, records, depth + 1) for _ in several]
            case ("set", items):
                return {self.value(items, made, records, depth + 1) for _ in several}
            case ("map", keys, values):
                pairs = [
                    (self.value(keys, made, records), self.value(values, made, records, depth + 1)) for _ in several
                ]
                return dict(pairs)
            case ("opt", inner):
                return None if self.sometimes(0.3) else self.value(inner, made, records, depth + 1)
            case ("tuple", *items):
                return tuple(self.value(each, made, records, depth + 1) for each in items)
            case ("union", *options):
                return self.value(self.chance.choice(options), made, records, depth + 1)
            case ("kids", sort, number):
                count = several if depth < 3 else ()
                kids = [self.value(records[number], made, records, depth + 2) for _ in count]
                return {"list": kids, "map": {f"k{n}": each for n, each in enumerate(kids)}}.get(
                    sort, kids[0] if kids else None
                )
        _, number, slots, *_ = drawn
        within = {**records, number: drawn}
        given = {
            slot.name: self.value(slot.type, made, within, depth + 1)
            for slot in slots
            if slot.default is None or self.sometimes(0.5)
        }
        return self.hint(drawn, made)(**given)


def _enumeration(drawn: Drawn) -> Any:
    _, number, symbols, default = drawn
    namespace = types.new_class("Base", (enum.Enum,)) if default is None else _defaulted(default)
    return namespace(f"E{number}", [(each.upper(), each) for each in symbols])


def _defaulted(default: str) -> Any:
    class Base(enum.Enum):
        @classmethod
        def _missing_(cls, value: object) -> Any:
            return cls(default)

    return Base


def plain(value: Any) -> Any:
    """A value without its classes, which are other ones for each version."""
    if isinstance(value, msgspec.Struct):
        return type(value).__name__, {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set):
        return sorted(map(repr, value))
    if isinstance(value, dict):
        return {repr(plain(key)): plain(each) for key, each in value.items()}
    return value.value if isinstance(value, enum.Enum) else value


@pytest.mark.parametrize("seed", range(6))
def test_what_may_pass_is_read_with_one_value_in_every_format(seed: int) -> None:
    passed = sum(_passes(seed * 1_000 + number) for number in range(PAIRS))
    assert passed > PAIRS / 10


def _passes(seed: int) -> bool:
    """Whether the checker lets a drawn pair of versions pass; fails if it should not have."""
    drawing = _Drawing(random.Random(seed))
    old = drawing.record(drawing.chance.randint(1, 3))
    new = drawing.changed_record(old)
    if drawing.sometimes(0.5):
        old, new = new, old
    made: tuple[dict[Drawn, Any], dict[Drawn, Any]] = ({}, {})
    try:
        classes = drawing.hint(old, made[0]), drawing.hint(new, made[1])
    except (TypeError, ValueError):  # msgspec can't tell options apart
        return False
    values = [drawing.value(old, made[0], {}) for _ in range(3)]
    read: dict[str, list[Any]] = {}
    for name in FORMATS:
        try:
            before, after = (Reading(each, "shop.Order", format_named(name)) for each in classes)
            if breaks(after.schema, before.schema, whole=after.format.whole):
                continue
            decode = after.decoder(before.schema)
        except ContractError:  # the format has no room for it
            continue
        read[name] = [_through(before, decode, value, f"seed {seed} {name}: {old} as {new}") for value in values]
    _require_alike(read, f"seed {seed}: {old} as {new}")
    return bool(read)


def _through(before: Reading, decode: Any, value: Any, said: str) -> Any:
    """What a reader of the new version gets; None where the format refuses the value at publish."""
    try:
        data = before.codec.encode(value)
    except EncodeError:
        return None
    try:
        return plain(decode(data))
    except Exception as error:  # noqa: BLE001 - told with what was drawn
        pytest.fail(f"{said}: {value!r} can't be read: {error}")


def _require_alike(read: dict[str, list[Any]], said: str) -> None:
    for several in zip(*read.values(), strict=True):
        found = [each for each in several if each is not None]
        assert all(each == found[0] for each in found), f"{said}: {dict(zip(read, several, strict=True))}"
