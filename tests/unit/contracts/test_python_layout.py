"""Lines of generated Python are as long as formatters want them, and mean what they meant."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.contracts.python_layout import WIDTH, imports_of, laid_out
from postline.contracts.python_names import literal

_VALUES = st.recursive(
    st.integers() | st.text(max_size=6) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(_VALUES)
def test_a_broken_line_means_what_it_meant(value: object) -> None:
    line = f"value = {literal(value)}"
    assert ast.dump(ast.parse(laid_out(line))) == ast.dump(ast.parse(line))
    assert ast.literal_eval(literal(value)) == value


def test_brackets_are_broken_from_the_last_and_commas_follow_several_parts() -> None:
    line = f'    a: Annotated[int, Meta(ge=1)] = field(name="{"n" * 30}", default_factory=lambda: [1, 2])'
    assert laid_out(line).splitlines() == [
        "    a: Annotated[int, Meta(ge=1)] = field(",
        f'        name="{"n" * 30}",',
        "        default_factory=lambda: [1, 2],",
        "    )",
    ]
    assert laid_out(f"    a: list[{'x' * 80}]").splitlines() == ["    a: list[", f"        {'x' * 80}", "    ]"]


def test_alternatives_stand_on_lines_of_their_own() -> None:
    names = [letter * 30 for letter in "ABC"]
    assert laid_out(f"    a: ({' | '.join(names)})").splitlines() == [
        "    a: (",
        f"        {names[0]}",
        f"        | {names[1]}",
        f"        | {names[2]}",
        "    )",
    ]


@pytest.mark.parametrize("line", ["    a: int = 1", f'    a = "{"(" * WIDTH}"'])
def test_what_is_short_or_can_not_be_broken_stays(line: str) -> None:
    assert laid_out(line) == line


def test_only_names_that_are_used_are_imported() -> None:
    text = 'a: Annotated[int, Meta(ge=1)]\nb: datetime.date = "uuid.UUID Any was(1)"\n'
    assert imports_of(text).splitlines() == [
        "from __future__ import annotations",
        "",
        "import datetime",
        "from typing import Annotated",
        "",
        "from msgspec import Meta",
    ]
