"""Example values of single types within their limits: a typical one, then the ends, then others between."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

from postline.contracts.examples_patterns import text_matching
from postline.contracts.schema import NO_LIMITS, Limits, Scalar

__all__ = ["scalar_example"]

_TEXTS = (
    "text",
    "a",
    "Zoë, 東京 🙂",
    "1",
    "x-1",
    "ABC",
    "abc",
    "EUR",
    "2026-01-02",
    "a@example.com",
    "https://example.com",
    "123",
)
#: No longer ones are made only to show that they are allowed.
_LENGTH_SHOWN_MAX = 200
_TRIES = 50
_FAR = 1_000_000
_PLAIN: dict[str, tuple[Any, ...]] = {
    "null": (None,),
    "boolean": (True, False),
    "date": ("2026-01-02", "1970-01-01", "9999-12-31", "2024-02-29"),
    "time": ("12:30:00", "00:00:00", "23:59:59.999999"),
    "datetime": ("2026-01-02T12:30:00Z", "1970-01-01T00:00:00Z", "2026-06-30T23:59:59.999999+02:00"),
    "duration": ("PT1H", "PT0S", "-P1DT0.5S"),
    "any": ({"note": "anything"}, None, [1, "two"]),
}


def scalar_example(part: Scalar, number: int) -> Any:
    """The example of that number, as JSON has it: 0 is typical, 1 the least, 2 the greatest.

    Raises LookupError if it knows none, with the limits in words.
    """
    if (make := _MAKERS.get(part.kind)) is not None:
        return make(part, number)
    values = _PLAIN[part.kind]
    return values[number % len(values)]


def _uuid(part: Scalar, number: int) -> str:
    return "6ba7b810-9dad-41d1-80b4-00c04fd430c8" if number == 0 else f"00000000-0000-0000-0000-{number - 1:012x}"


# -- numbers ------------------------------------------------------------------------------------------


def _whole(part: Scalar, number: int) -> int:
    limits = part.limits
    low, high = _bounds(limits)
    if part.bits:
        unsigned = part.wire.startswith(("u", "fixed"))
        least = Fraction(0 if unsigned else -(2 ** (part.bits - 1)))
        most = Fraction(2 ** (part.bits - (0 if unsigned else 1)) - 1)
        low = least if low is None else max(low, least)
        high = most if high is None else min(high, most)
    step = Fraction(limits.multiple_of or 1)
    step = Fraction(step.numerator)  # the whole numbers among the multiples of a fraction
    first = None if low is None else math.floor(low / step) + 1 if _opens(limits.gt, low) else math.ceil(low / step)
    last = None if high is None else math.ceil(high / step) - 1 if _opens(limits.lt, high) else math.floor(high / step)
    return _nth(first, last, number, limits) * int(step)


def _bounds(limits: Limits) -> tuple[Fraction | None, Fraction | None]:
    lows = [Fraction(each) for each in (limits.ge, limits.gt) if each is not None]
    highs = [Fraction(each) for each in (limits.le, limits.lt) if each is not None]
    return max(lows, default=None), min(highs, default=None)


def _opens(limit: float | None, bound: Fraction) -> bool:
    return limit is not None and Fraction(limit) == bound


def _nth(first: int | None, last: int | None, number: int, limits: Limits) -> int:
    """A whole number of a range that may be open; different for different numbers, as far as there are so many."""
    if first is None and last is None:
        return (1, 0, _FAR, -1)[number] if number < 4 else number
    if last is None:
        assert first is not None
        return first + _beside(number)
    if first is None:
        return last - _beside(number)
    if first > last:
        raise LookupError(f"no number keeps {_said(limits)}")
    if last - first >= 2 * _FAR:  # what is usual lies near zero, not near an end
        near = min(max(first, 0), last)
        return (min(near + 1, last), first, last)[number] if number < 3 else min(near + number, last)
    size = last - first + 1
    number %= size
    return (first + min(1, size - 1), first, last)[number] if number < 3 else first + number - 1


def _beside(number: int) -> int:
    return (1, 0, _FAR)[number] if number < 3 else number - 1


def _number(part: Scalar, number: int) -> float:
    limits = part.limits
    if limits == NO_LIMITS:
        return (1.5, 0.0, -2.25)[number] if number < 3 else number + 0.5
    if limits.multiple_of:
        return _multiple(part, number)
    low, high = _bounds(limits)
    found = list(islice((each for each in _between(low, high) if _keeps(each, limits)), number + 1))
    if not found:
        raise LookupError(f"no number keeps {_said(limits)}")
    return found[number % len(found)]


def _between(low: Fraction | None, high: Fraction | None) -> Iterator[float]:
    if low is None or high is None:
        bound, sign = (low, 1) if low is not None else (high, -1)
        for each in (1.5, 0, _FAR, 0.01, *(n + 0.5 for n in range(2, _TRIES))):
            yield float((bound or 0) + sign * Fraction(each))
        return
    for share in (Fraction(1, 2), Fraction(0), Fraction(1), *(Fraction(n, n + 1) for n in range(2, _TRIES))):
        yield float(low + share * (high - low))


def _multiple(part: Scalar, number: int) -> float:
    limits = part.limits
    low, high = _bounds(limits)
    step = Fraction(str(limits.multiple_of))
    first = None if low is None else math.ceil(low / step)
    last = None if high is None else math.floor(high / step)
    for each in range(number, number + _TRIES):
        value = float(_nth(first, last, each, limits) * step)
        # Validators divide in binary.
        if _keeps(value, limits) and math.fmod(value, limits.multiple_of or 1) == 0:
            return value
    raise LookupError(f"no number keeps {_said(limits)}")


def _keeps(value: float | Decimal, limits: Limits) -> bool:
    return (
        (limits.ge is None or value >= limits.ge)
        and (limits.gt is None or value > limits.gt)
        and (limits.le is None or value <= limits.le)
        and (limits.lt is None or value < limits.lt)
    )


def _decimal(part: Scalar, number: int) -> str:
    if part.precision:
        most = Decimal(10**part.precision - 1).scaleb(-part.scale)
        usual = [Decimal(min(1250, 10**part.precision - 1)).scaleb(-part.scale), Decimal(0), most, -most]
        usual += [Decimal(each % 10**part.precision).scaleb(-part.scale) for each in range(1, _TRIES)]
    else:
        usual = [Decimal("12.50"), Decimal(0), Decimal("-0.01"), *(Decimal(each) for each in range(1, _TRIES))]
    if part.limits != NO_LIMITS:
        usual += [Decimal(repr(each)) for each in _between(*_bounds(part.limits))]
    found = [each for each in usual if _keeps(each, part.limits) and _is_multiple(each, part.limits.multiple_of)]
    if not found:
        raise LookupError(f"no decimal keeps {_said(part.limits)}")
    return f"{found[number % len(found)]:f}"


def _is_multiple(value: Decimal, of: float | None) -> bool:
    return not of or value % Decimal(str(of)) == 0


# -- texts --------------------------------------------------------------------------------------------


def _text(part: Scalar, number: int) -> str:
    limits = part.limits
    least, most = int(limits.min_length or 0), limits.max_length
    if limits.pattern is None:
        return _free_text(least, most, number)
    common = [each for each in _TEXTS if _has_length(each, least, most) and _found(limits.pattern, each)]
    made = text_matching(limits.pattern, least, most, number)
    if made is None:
        if not common:
            raise LookupError(f"no text that could be made keeps {_said(limits)}")
        return common[number % len(common)]
    # What people write is nicer to read than what only matches; others show what else does.
    return common[0] if common and number == 0 else made


def _free_text(least: int, most: int | None, number: int) -> str:
    if most is not None and least > most:
        raise LookupError(f"no text has {least} and at most {most} characters")
    if number == 1 and least:
        return "x" * least
    if number == 2 and most is not None and most <= _LENGTH_SHOWN_MAX:
        return "x" * most
    fitting = [each for each in _TEXTS if _has_length(each, least, most)]
    if number < len(fitting):
        return fitting[number]
    # Different ones for different numbers, for sets and keys.
    shown = ((fitting[0] if fitting else "x") + str(number)).rjust(least, "x")
    return shown if most is None else shown[max(0, len(shown) - most) :]


def _has_length(text: str, least: int, most: int | None) -> bool:
    return least <= len(text) and (most is None or len(text) <= most)


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):  # another language's
        return False


def _bytes(part: Scalar, number: int) -> str:
    least, most = int(part.limits.min_length or 0), part.limits.max_length
    if part.size:
        least = most = part.size
    size = (max(2, least), least, most if most is not None and most <= _LENGTH_SHOWN_MAX else least + 3)
    length = size[number] if number < len(size) else least + number
    made = bytes((number + 1 + each) % 256 for each in range(length if most is None else min(length, most)))
    return base64.b64encode(made).decode()


def _said(limits: Limits) -> str:
    names = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")
    return ", ".join(f"{name} {value!r}" for name in names if (value := getattr(limits, name)) is not None)


_MAKERS: dict[str, Callable[[Scalar, int], Any]] = {
    "integer": _whole,
    "number": _number,
    "decimal": _decimal,
    "text": _text,
    "bytes": _bytes,
    "uuid": _uuid,
}
