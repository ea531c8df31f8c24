"""JSON that is read strictly: schema documents, of which a loss is one for every record, and what comes in at edges."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from postline.errors import ContractError, DecodeError

__all__ = ["json_document", "require_unique_keys"]


def json_document(text: str) -> Any:
    """What the text says. Raises ContractError for no JSON, a key twice in one object, or what nests too deeply."""
    try:
        found = msgspec.json.decode(text)
        json.loads(text, object_pairs_hook=_once)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ContractError(f"The schema is no JSON: {error}.", remedy="Correct it.") from error
    except RecursionError as error:
        raise ContractError("The schema nests too deeply to be read.", remedy="Correct it.") from error
    return found


def require_unique_keys(text: bytes | str) -> None:
    """Raises DecodeError for a key twice in one object; nothing for what is no JSON, which whoever reads it says.

    It takes a second, slow parse (10 times that of reading), so it is for edges, where somebody can still be told.
    """
    try:
        json.loads(text, object_pairs_hook=_unrepeated, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return


def _once(pairs: list[tuple[str, Any]]) -> None:
    if (key := _repeated(pairs)) is not None:
        raise ContractError(
            f"The schema has {key!r:.100} twice in one object, and every reader would take another one.",
            remedy="Remove one of the two.",
        )


def _unrepeated(pairs: list[tuple[str, Any]]) -> None:
    if (key := _repeated(pairs)) is not None:
        raise DecodeError(f"It has the key {key!r:.100} twice in one object.", remedy="Remove one of the two.")


def _repeated(pairs: list[tuple[str, Any]]) -> str | None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    return None
