"""Reading JSON that another version of a contract wrote: what plain decoding can't bridge is compiled once for a pair.

The value is the one that plain decoding makes of the same content in the reader's own names. Of JSON with a key twice
the last value counts, as in plain decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw

from postline.contracts.compatibility import breaks
from postline.contracts.finiteness import finite_reader
from postline.contracts.kinds import Kind
from postline.contracts.resolution_pairs import Pairs
from postline.contracts.resolution_rewriting import rewriter
from postline.contracts.resolution_shadows import shadow_decoder
from postline.contracts.schema import Schema
from postline.errors import ContractError

__all__ = ["needs_resolution", "resolver"]


def needs_resolution(reader: Schema, writer: Schema) -> bool:
    """Whether plain decoding as the reader's class would misread what the writer wrote.

    `reader` is the class's own schema, and can read the writer's (`compatibility.breaks`).
    """
    return reader != writer and Pairs(reader, writer).differ


def resolver(cls: Any, name: str, reader: Schema, writer: Schema) -> Callable[[bytes], Any]:
    """What reads the writer's JSON as values of the reader's class, whose schema `reader` is. Thread-safe.

    It raises what plain decoding raises, with the path in the writer's names (the reader's, for those few classes that
    its content is rewritten for). Raises ContractError if the reader can't read what the writer writes.
    """
    if found := breaks(reader, writer):
        raise ContractError(
            f"{name} can't be read from that version: {found[0].path or 'the value'}: {found[0].said}.",
            remedy=found[0].remedy,
        )
    pairs = Pairs(reader, writer)
    if not pairs.differ:
        return Kind(cls, name=name).decode
    return _quick(cls, pairs) or _by_rewriting(cls, name, pairs)


def _quick(cls: Any, pairs: Pairs) -> Callable[[bytes], Any] | None:
    if not hasattr(cls, "__pydantic_validator__"):
        decode = shadow_decoder(cls, pairs)
        return None if decode is None else finite_reader(cls, decode)
    from postline.contracts.resolution_pydantic import model_decoder

    return model_decoder(cls, pairs)


def _by_rewriting(cls: Any, name: str, pairs: Pairs) -> Callable[[bytes], Any]:
    decode, rewrite = Kind(cls, name=name).decode, rewriter(pairs)
    return lambda data: decode(bytes(rewrite(Raw(data))))
