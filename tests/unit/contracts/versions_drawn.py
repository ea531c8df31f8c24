"""Two versions of one contract, drawn at random, with content in the words of each."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

import msgspec
from hypothesis import strategies as st
from pydantic import Field, create_model

from postline.contracts.marks import was

__all__ = ["versions"]

_NUMBERS = st.integers(-(2**40), 2**40)
_FRACTIONS = st.decimals(-1000, 1000, places=3).map(lambda value: msgspec.Raw(str(value).encode()))
_TEXT = st.text(max_size=4)
#: The old type, the new one, and what stands in JSON for both.
_LEAVES: list[tuple[Any, Any, st.SearchStrategy[Any]]] = [
    (int, int, _NUMBERS),
    (int, float, _NUMBERS),
    (int, Decimal, _NUMBERS),
    (float, float, _FRACTIONS),
    (float, Decimal, _FRACTIONS),
    (bool, bool, st.booleans()),
    (str, str, _TEXT),
    (Decimal, Decimal, st.decimals(-1000, 1000, places=2).map(str)),
    (Decimal, str, st.decimals(-1000, 1000, places=2).map(str)),
    (datetime.date, datetime.date, st.dates().map(str)),
    (datetime.date, str, st.dates().map(str)),
    (uuid.UUID, uuid.UUID, st.uuids().map(str)),
]


class Drawn(NamedTuple):
    """A type in both versions, and pairs of JSON values that mean the same in them."""

    old: Any
    new: Any
    values: st.SearchStrategy[tuple[Any, Any]]


class _Slot(NamedTuple):
    """A field as it was, as it is (None for dropped), and its type."""

    old: str
    new: str | None
    drawn: Drawn


class _Drawing:
    """Draws types; every class gets a name of its own."""

    def __init__(self, data: st.DataObject, kind: str) -> None:
        self._data, self._kind, self._number = data, kind, 0

    def _one_of(self, choices: list[Any]) -> Any:
        return self._data.draw(st.sampled_from(choices))

    def _yes(self) -> bool:
        return bool(self._data.draw(st.booleans()))

    def type_(self, depth: int) -> Drawn:
        """Any type, not nested deeper than `depth`."""
        kinds = ["leaf"] if depth == 0 else ["leaf", "record", "list", "map", "optional", "tuple", "union"]
        if self._kind == "model" and depth:
            kinds.remove("union")
        match self._one_of(kinds):
            case "record":
                return self.record(depth - 1)
            case "list":
                item = self.type_(depth - 1)
                return Drawn(_of(list, item.old), _of(list, item.new), _both(st.lists(item.values, max_size=3)))
            case "map":
                item = self.type_(depth - 1)
                values = st.dictionaries(_TEXT, item.values, max_size=2)
                return Drawn(_of(dict, str, item.old), _of(dict, str, item.new), values.map(_of_map))
            case "optional":
                item = self.type_(depth - 1)
                return Drawn(item.old | None, item.new | None, st.just((None, None)) | item.values)
            case "tuple":
                one, other = self.type_(depth - 1), self.type_(depth - 1)
                pairs = _both(st.tuples(one.values, other.values))
                return Drawn(_of(tuple, one.old, other.old), _of(tuple, one.new, other.new), pairs)
            case "union":
                positional = self._yes()  # msgspec can't tell a mixture apart
                one, other = (self.record(depth - 1, tagged=True, positional=positional) for _ in range(2))
                return Drawn(one.old | other.old, one.new | other.new, one.values | other.values)
        old, new, values = self._one_of(_LEAVES)
        return Drawn(old, new, values.map(lambda value: (value, value)))

    def record(self, depth: int, *, tagged: bool = False, positional: bool | None = None) -> Drawn:
        """A record that was renamed, reordered, widened, shortened and lengthened, here and there."""
        self._number += 1
        name = f"Record{self._number}"
        slots = [self._slot(each, depth) for each in range(self._one_of([1, 2, 3]))]
        tags = (f"was{name}" if self._yes() else name, name) if tagged else None
        if positional is None:
            positional = self._kind == "struct" and self._yes() and self._yes()
        old_fields: list[Any] = [(each.old, each.drawn.old) for each in slots]
        if positional:
            slots = [each._replace(new=each.new or each.old) for each in slots]
        old = msgspec.defstruct(name, old_fields, tag=tags and tags[0], tag_field=tags and "tag", array_like=positional)
        kept = [each for each in slots if each.new is not None]
        if not positional:
            kept = self._data.draw(st.permutations(kept))
        fields: list[Any] = [(each.new, _marked(each), dataclasses.MISSING) for each in kept]
        fields += [("added", int, 7)] if self._yes() else []
        new = self._made(name, fields, tags, positional)
        return Drawn(old, new, _values_of(slots, tags, positional))

    def _slot(self, number: int, depth: int) -> _Slot:
        old, drawn = f"f{number}", self.type_(depth)
        return _Slot(old, self._one_of([old, f"new_{old}", None]), drawn)

    def _made(self, name: str, fields: list[Any], tags: tuple[str, str] | None, positional: bool) -> Any:
        kind = self._kind if self._kind != "mixed" else self._one_of(["struct", "dataclass", "slots"])
        if tags or kind == "struct":
            given = [field[:2] if field[2] is dataclasses.MISSING else field for field in fields]
            return msgspec.defstruct(
                name,
                given,
                tag=tags and tags[1],
                tag_field=tags and "tag",
                array_like=positional,
                namespace={"__was__": (tags[0],)} if tags else {},
                frozen=self._yes(),
                kw_only=self._yes(),
                forbid_unknown_fields=False,
            )
        if kind == "model":
            content: dict[str, Any] = {
                each: (hint, ... if value is dataclasses.MISSING else Field(value)) for each, hint, value in fields
            }
            return create_model(name, **content)
        declared = [(each, hint, dataclasses.field(default=value)) for each, hint, value in fields]
        return dataclasses.make_dataclass(name, declared, slots=kind == "slots", frozen=self._yes())


def _of(container: Any, *items: Any) -> Any:
    """The container of types that are known at run time only."""
    return container[items if len(items) > 1 else items[0]]


def _marked(slot: _Slot) -> Any:
    return slot.drawn.new if slot.new == slot.old else Annotated[slot.drawn.new, was(slot.old)]


def _both(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    return values.map(lambda pairs: ([one for one, _ in pairs], [other for _, other in pairs]))


def _of_map(values: dict[str, tuple[Any, Any]]) -> tuple[Any, Any]:
    return {name: one for name, (one, _) in values.items()}, {name: other for name, (_, other) in values.items()}


def _values_of(
    slots: list[_Slot], tags: tuple[str, str] | None, positional: bool
) -> st.SearchStrategy[tuple[Any, Any]]:
    def made(values: tuple[tuple[Any, Any], ...]) -> tuple[Any, Any]:
        tagged = [{"tag": each} for each in tags] if tags else [{}, {}]
        old = tagged[0] | {each.old: one for each, (one, _) in zip(slots, values, strict=True)}
        new = tagged[1] | {each.new: other for each, (_, other) in zip(slots, values, strict=True) if each.new}
        return (list(old.values()), list(new.values())) if positional else (old, new)

    return st.tuples(*(each.drawn.values for each in slots)).map(made)


def versions(data: st.DataObject, kind: str) -> tuple[Any, Any, bytes, bytes]:
    """An old class and a new one, and the JSON of one content in the words of each.

    `kind` says what the new one and those in it are: "struct", "dataclass", "model", or "mixed" for all that msgspec
    reads, dataclasses with slots among them.
    """
    drawn = _Drawing(data, kind).record(2)
    old, new = data.draw(drawn.values)
    return drawn.old, drawn.new, msgspec.json.encode(old), msgspec.json.encode(new)
