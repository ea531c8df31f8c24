"""The values of single settings: durations, sizes, counts, names; each refused with its remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from urllib.parse import urlsplit

from postline.errors import SettingsError

__all__ = [
    "meant",
    "parse_count",
    "parse_duration_ms",
    "parse_namespace",
    "parse_partitions",
    "parse_registry",
    "parse_seconds",
    "parse_size",
    "parse_text",
    "parse_timedelta",
]

PARTITIONS_MAX = 10_000

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_PLAIN_NUMBER = re.compile(_NUMBER)
_DURATION_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile("".join(rf"(?:{_NUMBER}{unit}(?![a-z]))?" for unit in _DURATION_UNITS))
_DURATION_MS_MAX = 36_500 * _DURATION_UNITS["d"]
_SIZE = re.compile(rf"{_NUMBER} ?([KMGT]?i?B)?", re.IGNORECASE)
_SIZE_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_INTEGER_MAX = (1 << 63) - 1
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


def parse_duration_ms(value: object) -> int:
    """Milliseconds of "14d", "1h30m", "250ms" (units w d h m s ms, largest first), or of a number of seconds.

    Raises SettingsError for anything else, and for nothing at all or more than a hundred years.
    """
    text = str(value).strip()
    amount = Decimal(0)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        pass
    elif _PLAIN_NUMBER.fullmatch(text):
        amount = Decimal(text) * 1000
    elif found := _DURATION.fullmatch(text.replace(" ", "").lower()):
        amounts = zip(found.groups(), _DURATION_UNITS.values(), strict=True)
        amount = sum((Decimal(number) * unit for number, unit in amounts if number), start=amount)
    if not 1 <= amount <= _DURATION_MS_MAX:
        raise SettingsError(
            f"{value!r} is no duration from 1 ms to 100 years.", remedy='Write one such as "14d", "1h30m" or "250ms".'
        )
    return int(amount)


def parse_size(value: object) -> int:
    """Bytes of "64MiB" (1024s), "10MB" (1000s) or of a plain number. Raises SettingsError for anything else."""
    amount = Decimal(0)
    found = _SIZE.fullmatch(str(value).strip()) if isinstance(value, (str, int)) else None
    if found:
        unit = (found[2] or "").lower()
        amount = Decimal(found[1]) * (1024 if "i" in unit else 1000) ** _SIZE_POWERS[unit[:1].strip("b")]
    if not 1 <= amount <= _INTEGER_MAX:
        raise SettingsError(
            f"{value!r} is no size in bytes.", remedy='Write one such as 1048576, "64MiB" (1024s) or "10MB" (1000s).'
        )
    return int(amount)


def parse_seconds(value: object) -> float:
    """A duration as `parse_duration_ms` reads it, in seconds."""
    return parse_duration_ms(value) / 1000


def parse_timedelta(value: object) -> timedelta:
    """A duration as `parse_duration_ms` reads it, as a span of time."""
    return timedelta(milliseconds=parse_duration_ms(value))


def parse_count(value: object) -> int:
    """A whole number of 1 or more, or its digits. Raises SettingsError for anything else."""
    number = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _INTEGER_MAX:
        raise SettingsError(f"{value!r} is no whole number of 1 or more.", remedy="Write one such as 8.")
    return number


def parse_partitions(value: object) -> int:
    """A number of partitions that engines can bear. Raises SettingsError for anything else."""
    if (count := parse_count(value)) > PARTITIONS_MAX:
        raise SettingsError(f"{count} partitions are too many.", remedy=f"Use 1 to {PARTITIONS_MAX:,}.")
    return count


def parse_text(value: object) -> str:
    """One line of text without the blanks around it. Raises SettingsError, not showing the value: it may be secret."""
    text = value.strip() if isinstance(value, str) else ""
    if not text or _CONTROL_CHARACTER.search(text):
        raise SettingsError("this is no line of text.", remedy="Write one line of text.")
    return text


def parse_registry(value: object) -> str:
    """The URL of a schema registry. Raises SettingsError, not showing the value: it may hold a password."""
    text = parse_text(value)
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError("this is no registry's URL.", remedy='Write one such as "https://registry.example:8081".')
    return text


def parse_namespace(value: object) -> str:
    """A prefix for names in the log. Raises SettingsError for what a topic's name can't begin with."""
    if not isinstance(value, str) or not _SAFE_NAME.fullmatch(value):
        raise SettingsError(
            f"{value!r} can't prefix the names of topics.",
            remedy="Use up to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
        )
    return value


def meant(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the known one that is nearest, else all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known are {', '.join(known)}."
