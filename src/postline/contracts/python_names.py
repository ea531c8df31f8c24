"""Names and literals of generated Python: identifiers for names on the wire, and source text for plain values."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Container
from itertools import chain, count
from typing import Any

from postline.contracts.schema import Enumeration

__all__ = ["attribute_name", "class_name", "literal", "members_of", "text_literal"]

#: Names that a generated module imports or that its annotations use: no class may be called so.
_MODULE_NAMES = frozenset(
    {"Annotated", "Any", "ForeignTopic", "Meta", "Schemas", "Sensitive", "Struct", "Topic", "None", "True", "False"}
)
#: No attribute may be called so either, since annotations and defaults are looked up in the class first.
_CLASS_NAMES = _MODULE_NAMES | frozenset(
    {"bool", "bytes", "convert", "datetime", "decimal", "dict", "enum", "field", "float", "int", "list", "mro"}
    | {"number", "set", "str", "tuple", "uuid", "was"}
)
#: Symbols may be whole sentences.
_MEMBER_MAX = 60
#: Letters that look like digits; linters refuse them (E741).
_AMBIGUOUS = frozenset({"I", "O", "l"})


def class_name(wire: str) -> str:
    """A class's name for a record, an enumeration or a wire name: its last part in capitalised words."""
    words = [each for each in re.split(r"[^A-Za-z0-9]+", wire.rpartition(".")[2]) if each]
    made = "".join(word[:1].upper() + word[1:] for word in words) or "Value"
    made = f"Type{made}" if made[0].isdigit() else made
    return f"{made}Type" if made in _MODULE_NAMES else made


def attribute_name(wire: str, *taken: Container[str]) -> str:
    """An attribute's name for a field: public, in ASCII, no keyword, and none of those that are taken."""
    # Two leading underscores would be mangled, and one would be private.
    made = re.sub(r"\W", "_", wire, flags=re.ASCII).lstrip("_") or "value"
    made = f"n{made}" if made[0].isdigit() else made
    while keyword.iskeyword(made) or any(made in each for each in (_CLASS_NAMES, _AMBIGUOUS, *taken)):
        made += "_"
    return made


def members_of(enumeration: Enumeration) -> dict[str | int, str]:
    """The members' names by their symbols."""
    members: dict[str | int, str] = {}
    taken: set[str] = set()
    for symbol in enumeration.symbols:
        signed = f"minus_{-symbol}" if isinstance(symbol, int) and symbol < 0 else str(symbol)
        made = re.sub(r"\W", "_", signed.upper(), flags=re.ASCII).strip("_")[:_MEMBER_MAX] or "VALUE"
        made = f"N{made}" if made[0].isdigit() else f"{made}_" if made in _AMBIGUOUS else made
        names = chain([made], (f"{made}_{number}" for number in count(2)))
        members[symbol] = next(each for each in names if each not in taken)
        taken.add(members[symbol])
    return members


def text_literal(value: str) -> str:
    """A string's source, in the quotes that formatters choose."""
    quoted = json.dumps(value, ensure_ascii=False)
    if '"' in value and "'" not in value:
        quoted = "'" + quoted[1:-1].replace('\\"', '"') + "'"
    # What can't be written to a file in UTF-8, or can't be seen in it.
    return "".join(each if each.isprintable() else each.encode("unicode-escape").decode() for each in quoted)


def literal(value: Any) -> str:
    """The source of what JSON carries, and of tuples."""
    match value:
        case str():
            return text_literal(value)
        case list():
            return f"[{', '.join(map(literal, value))}]"
        case tuple():
            return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
        case dict():
            return f"{{{', '.join(f'{literal(key)}: {literal(each)}' for key, each in value.items())}}}"
    return repr(value)
