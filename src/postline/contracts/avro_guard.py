"""What Avro bytes say, gone through without making values: where they are wrong, and whether reading them is safe.

fastavro bounds neither depth nor count: a few kilobytes of a type that contains itself end the whole process, and an
array of items that take no bytes may claim to have 2**62 of them. So bytes of such types are gone through before they
are read; those of all others only to say where they are wrong.
"""

from __future__ import annotations

import graphlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from postline.contracts.avro_names import INTEGERS
from postline.contracts.avro_writing import Misfit
from postline.errors import ContractError

__all__ = ["Guard"]

#: From the bytes, a position and what is left of empty items: the position behind the value. It raises Misfit.
_Scan: TypeAlias = Callable[[bytes, int, list[int]], int]

#: As many types may lie within each other in bytes that are not gone through; fastavro takes a few thousand.
_DEPTH_UNSEEN_MAX = 1000
#: Of items that take no bytes, in one message.
_EMPTY_ITEMS_MAX = 10_000
_LONG_BYTES_MAX = 10
#: Of Python's dates and times, as their logical types count them.
_MOMENTS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
_RANGES = {
    "date": (-719_162, 2_932_896),
    "time-millis": (0, 86_399_999),
    "time-micros": (0, 86_399_999_999),
    "timestamp-micros": _MOMENTS,
    "local-timestamp-micros": _MOMENTS,
    "timestamp-millis": (_MOMENTS[0] // 1000, _MOMENTS[1] // 1000),
    "local-timestamp-millis": (_MOMENTS[0] // 1000, _MOMENTS[1] // 1000),
}
_SIZES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}


class Guard:
    """Goes through bytes of one schema; `content` is as `Layout` has it. Thread-safe.

    Raises ContractError for a type that contains itself always, so that no value of it could end.
    """

    def __init__(self, content: Any) -> None:
        self._named = {_full(each): each for each in _within(content) if isinstance(each, dict) and "name" in each}
        self._sizes = self._least_sizes()
        if math.isinf(self._least(content)):
            endless = ", ".join(sorted(name for name, size in self._sizes.items() if math.isinf(size)))
            raise ContractError(
                f"It is no Avro schema: values of {endless} would have no end, since each contains another.",
                remedy="Make the field that contains it optional, or a list.",
            )
        self._scans: dict[str, _Scan] = {}
        self._scan = self._of(content)
        self._size_unseen = self._size_that_is_safe(content)

    def check(self, data: bytes) -> None:
        """Raises Misfit, with the path, for bytes that must not be read. Cheap where a type can't be dangerous."""
        if len(data) > self._size_unseen:
            self._check(data)

    def fault_in(self, data: bytes) -> Misfit | None:
        """Where the bytes are wrong; None if they are not, as far as they tell. Slow, for errors only."""
        try:
            self._check(data)
        except Misfit as misfit:
            return misfit
        return None

    def _check(self, data: bytes) -> None:
        try:
            end = self._scan(data, 0, [_EMPTY_ITEMS_MAX])
        except IndexError:  # where no path could be added
            raise Misfit(_ENDED) from None
        except RecursionError:
            raise Misfit("its values are nested too deeply") from None
        if end < len(data):
            raise Misfit(f"{len(data) - end} bytes are left over")

    # -- what the schema tells ----------------------------------------------------------------

    def _least_sizes(self) -> dict[str, float]:
        """The fewest bytes that a value of each named type takes; infinite for one without end."""
        self._sizes = dict.fromkeys(self._named, math.inf)
        while True:
            found = {name: self._least_of(each) for name, each in self._named.items()}
            if found == self._sizes:
                return found
            self._sizes = found

    def _least(self, content: Any) -> float:
        if isinstance(content, str):
            return _SIZES[content] if content in _SIZES else self._sizes[content]
        if isinstance(content, list):
            return 1 + min(self._least(each) for each in content)
        return self._sizes[_full(content)] if "name" in content else self._least_of(content)

    def _least_of(self, content: dict[str, Any]) -> float:
        match content["type"]:
            case "record":
                return sum(self._least(field["type"]) for field in content["fields"])
            case "fixed":
                return int(content["size"])
            case "array" | "map" | "enum":
                return 1
            case inner:
                return self._least(inner)

    def _size_that_is_safe(self, content: Any) -> int:
        types = list(_within(content))
        if any(isinstance(each, dict) and each["type"] == "array" and not self._least(each["items"]) for each in types):
            return -1
        inside = {
            name: {
                each if isinstance(each, str) else _full(each)
                for each in _within(found, own=True)
                if (isinstance(each, str) and each in self._named) or (isinstance(each, dict) and "name" in each)
            }
            for name, found in self._named.items()
        }
        try:
            graphlib.TopologicalSorter(inside).prepare()
        except graphlib.CycleError:
            # A byte or more for each time round, since a type that takes none has no end.
            return _DEPTH_UNSEEN_MAX // len(types)
        return sys.maxsize

    # -- the bytes ----------------------------------------------------------------------------

    def _of(self, content: Any) -> _Scan:
        if isinstance(content, list):
            return _union([self._of(each) for each in content])
        if isinstance(content, str):
            return self._name(content) if content in self._named else _PRIMITIVES[content]
        match content["type"]:
            case "record":
                steps: list[tuple[str, _Scan]] = []
                self._scans[_full(content)] = found = _record(steps)  # its fields may refer to it
                steps += [(field["name"], self._of(field["type"])) for field in content["fields"]]
                return found
            case "enum":
                return self._kept(content, _enumeration(len(content["symbols"])))
            case "fixed":
                return self._kept(content, _sized(content["size"]))
            case "array":
                items = self._of(content["items"])  # also where it is not called: it may define a type
                return _blocks(items) if self._least(content["items"]) else _empty_items
            case "map":
                return _blocks(_entry(self._of(content["values"])))
            case inner if content.get("logicalType") in _RANGES and inner in {"int", "long"}:
                return _integer(*_RANGES[content["logicalType"]])
            case inner:
                return self._of(inner)

    def _name(self, name: str) -> _Scan:
        return self._scans[name]

    def _kept(self, content: dict[str, Any], scan: _Scan) -> _Scan:
        self._scans[_full(content)] = scan
        return scan


_ENDED = "the bytes end there"


def _full(content: dict[str, Any]) -> str:
    namespace = content.get("namespace")
    return f"{namespace}.{content['name']}" if namespace else str(content["name"])


def _within(content: Any, *, own: bool = False) -> Iterator[Any]:
    """Every type in a document, itself first; with `own` without itself, and not what named types in it contain."""
    if not own:
        yield content
    match content:
        case list():
            inner = content
        case {"type": "record"}:
            inner = [field["type"] for field in content["fields"]]
        case {"type": "array" | "map"}:
            inner = [content["items"] if "items" in content else content["values"]]
        case _:
            inner = []
    for each in inner:
        if own and isinstance(each, dict) and "name" in each:
            yield each
        elif own:
            yield each
            yield from _within(each, own=True)
        else:
            yield from _within(each)


def _long(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    number, shift, start = byte & 0x7F, 7, at
    while byte >= 0x80:
        at += 1
        if at - start == _LONG_BYTES_MAX:
            raise Misfit("a number takes more than 10 bytes there")
        byte = data[at]
        number |= (byte & 0x7F) << shift
        shift += 7
    return (number >> 1) ^ -(number & 1), at + 1


def _integer(low: int, high: int) -> _Scan:
    def scan(data: bytes, at: int, room: list[int]) -> int:
        number, at = _long(data, at)
        if not low <= number <= high:
            raise Misfit(f"{number} is not from {low} to {high}")
        return at

    return scan


def _sized(size: int) -> _Scan:
    def scan(data: bytes, at: int, room: list[int]) -> int:
        if at + size > len(data):
            raise Misfit(_ENDED)
        return at + size

    return scan


def _bytes(data: bytes, at: int, room: list[int]) -> int:
    size, at = _long(data, at)
    if not 0 <= size <= len(data) - at:
        raise Misfit(f"it has {size} bytes, of which {len(data) - at} are there")
    return at + size


def _string(data: bytes, at: int, room: list[int]) -> int:
    size, start = _long(data, at)
    end = _bytes(data, at, room)
    try:
        data[start:end].decode()
    except UnicodeDecodeError:
        raise Misfit(f"its {size} bytes are no UTF-8") from None
    return end


def _boolean(data: bytes, at: int, room: list[int]) -> int:
    if data[at] > 1:
        raise Misfit(f"{data[at]} is neither false nor true")
    return at + 1


def _enumeration(count: int) -> _Scan:
    def scan(data: bytes, at: int, room: list[int]) -> int:
        number, at = _long(data, at)
        if not 0 <= number < count:
            raise Misfit(f"it has no symbol {number}")
        return at

    return scan


def _union(options: list[_Scan]) -> _Scan:
    def scan(data: bytes, at: int, room: list[int]) -> int:
        number, at = _long(data, at)
        if not 0 <= number < len(options):
            raise Misfit(f"it has no alternative {number}")
        return options[number](data, at, room)

    return scan


def _record(steps: list[tuple[str, _Scan]]) -> _Scan:
    def scan(data: bytes, at: int, room: list[int]) -> int:
        for name, step in steps:
            try:
                at = step(data, at, room)
            except Misfit as misfit:
                raise misfit.under(name) from None
            except IndexError:
                raise Misfit(_ENDED).under(name) from None
        return at

    return scan


def _blocks(item: _Scan) -> _Scan:
    def scan(data: bytes, at: int, room: list[int]) -> int:
        index = 0
        while True:
            count, at = _block(data, at)
            if not count:
                return at
            for number in range(index, index + count):
                try:
                    at = item(data, at, room)
                except Misfit as misfit:
                    raise misfit.under(f"[{number}]") from None
                except IndexError:
                    raise Misfit(_ENDED).under(f"[{number}]") from None
            index += count

    return scan


def _block(data: bytes, at: int) -> tuple[int, int]:
    """The count of a block's items; a negative one has the block's size behind it."""
    count, at = _long(data, at)
    return (-count, _long(data, at)[1]) if count < 0 else (count, at)


def _empty_items(data: bytes, at: int, room: list[int]) -> int:
    while True:
        count, at = _block(data, at)
        room[0] -= count
        if room[0] < 0:
            raise Misfit(f"the message has more than {_EMPTY_ITEMS_MAX:,} items that take no bytes")
        if not count:
            return at


def _entry(value: _Scan) -> _Scan:
    return lambda data, at, room: value(data, _string(data, at, room), room)


_PRIMITIVES: dict[str, _Scan] = {
    "null": lambda data, at, room: at,
    "boolean": _boolean,
    "int": _integer(*INTEGERS[32]),
    "long": _integer(*INTEGERS[64]),
    "float": _sized(4),
    "double": _sized(8),
    "bytes": _bytes,
    "string": _string,
}
