"""What a `sqlite://` URL can ask for after its question mark."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from postline.errors import SettingsError
from postline.log.sqlite.storage import Settings

__all__ = ["read_options"]

_DURABILITY = {"full": True, "relaxed": False}


def read_options(options: Mapping[str, str]) -> Settings:
    """The settings that the URL's options name. Raises SettingsError that names all that is wrong.

    `durability=full|relaxed`; `lock_seconds`, `reserve_mb` (0: none) and `upkeep_seconds` are numbers.
    """
    settings, problems = Settings(), []
    for name, text in options.items():
        if name == "durability" and text in _DURABILITY:
            settings = msgspec.structs.replace(settings, durable=_DURABILITY[text])
        elif name in ("lock_seconds", "reserve_mb", "upkeep_seconds") and _is_number(text):
            value: dict[str, float] = {name: float(text)}
            if name == "reserve_mb":
                value = {"reserve_bytes": int(float(text) * (1 << 20))}
            settings = msgspec.structs.replace(settings, **value)
        else:
            problems.append(f"{name}={text}")
    if problems:
        raise SettingsError(
            f"The sqlite URL has options that mean nothing: {', '.join(problems)}.",
            remedy="Known: durability=full|relaxed, lock_seconds=N, reserve_mb=N, upkeep_seconds=N.",
        )
    return settings


def _is_number(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False
