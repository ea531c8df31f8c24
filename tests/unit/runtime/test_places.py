"""Where errors come from: the user's own frame, whatever library raised; groups that edits elsewhere don't change."""

from __future__ import annotations

import json

from postline.errors import DecodeError
from postline.runtime.places import causes_of, place_of

_SOURCE = """
def pack(fails):
    if fails:
        raise ValueError("no")
"""


def _error_of(source: str, module: str = "shop.packing") -> BaseException:
    names = {"__name__": module}
    exec(compile(source, "/srv/shop/packing.py", "exec"), names)
    try:
        names["pack"](True)  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001 - whatever it raises
        return error
    raise AssertionError("it raised nothing")


def test_the_place_is_the_innermost_frame_of_the_users_code() -> None:
    error = _error_of("import json\ndef pack(fails):\n    return read()\ndef read():\n    return json.loads('{')\n")
    assert isinstance(error, json.JSONDecodeError)
    assert place_of(error, "elsewhere").text == "shop.packing:read (line 5)"


def test_a_group_outlives_edits_elsewhere_in_the_file() -> None:
    before, after = _error_of(_SOURCE), _error_of("\n\n\n" + _SOURCE)
    assert place_of(before, "").text != place_of(after, "").text
    assert place_of(before, "").group == place_of(after, "").group


def test_other_exceptions_and_other_places_are_other_groups() -> None:
    errors = [
        _error_of(_SOURCE),
        _error_of(_SOURCE.replace("ValueError", "KeyError")),
        _error_of(_SOURCE, module="shop.billing"),
    ]
    assert len({place_of(error, "").group for error in errors}) == 3


def test_an_error_without_a_frame_of_ones_own_is_placed_by_its_handler() -> None:
    assert place_of(ValueError("no"), "shop.packing:pack").text == "shop.packing:pack"
    assert place_of(DecodeError("no"), "reading shop.Order").text == "reading shop.Order"


def test_causes_come_nearest_first_and_end_in_circles() -> None:
    first, second, third = KeyError("1"), ValueError("2"), RuntimeError("3")
    third.__cause__, second.__context__, first.__context__ = second, first, third
    assert list(causes_of(third)) == [second, first]
    second.__suppress_context__ = True
    assert list(causes_of(third)) == [second]
