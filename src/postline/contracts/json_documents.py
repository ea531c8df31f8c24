"""Schema documents that are JSON: read strictly, since what is lost in them is lost for every record."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from postline.errors import ContractError

__all__ = ["json_document"]


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


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ContractError(
                f"The schema has {key!r:.100} twice in one object, and every reader would take another one.",
                remedy="Remove one of the two.",
            )
        seen.add(key)
