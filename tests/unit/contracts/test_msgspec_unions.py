"""Classes whose decoders msgspec 0.22 frees wrongly are refused before there is one, and no others."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, NewType, TypedDict, TypeVar

import pytest
from msgspec import Meta, Struct, defstruct

from postline.contracts.kinds import Kind
from postline.contracts.reflection import schema_of
from postline.errors import ContractError

Code = Annotated[str, Meta(pattern="^a")]
Short = Annotated[str, Meta(max_length=3)]
Count = Annotated[int, Meta(ge=1)]
Named = NewType("Named", Code)
T = TypeVar("T")


class Plain(Struct):
    x: int


class Item(Struct):
    of: list[Count | tuple[int, int]]


@dataclass
class Data:
    of: Code | dict[str, int]


class Typed(TypedDict):
    of: Code | list[int]


class Tuple(NamedTuple):
    of: Code | set[int]


class Generic_(Struct, Generic[T]):  # noqa: N801
    of: T | list[int]


class Bound(Generic_[Code]):
    pass


class Chain(Struct):
    next: Chain | None = None
    of: Code | tuple[int, ...] | None = None


UNSAFE = [
    Count | tuple[int, int],
    Short | tuple[int, int] | None,
    Annotated[bytes, Meta(max_length=1)] | tuple[int],
    Annotated[dict[str, int], Meta(min_length=6)] | tuple[()],
    Code | list[int],
    Code | Plain | list[int],
    Code | tuple[int, ...],
    Code | frozenset[int],
    Code | tuple,
    Named | list[int],
    Annotated[Code, Meta(description="d")] | dict[str, int],
    Item,
    Data,
    Typed,
    Tuple,
    Generic_[Code],
    Bound,
    Chain,
    dict[str, list[Item]],
]
SAFE = [
    tuple[int, int] | None,
    tuple[int, int] | str,
    tuple[int, int] | Plain,
    tuple[int, int] | Code,
    tuple[Count, int] | str,
    Short | list[int],
    Count | list[int],
    Code | Plain,
    Code | None,
    Annotated[list[int], Meta(max_length=3)] | str,
    list[Code] | str,
    dict[Code, list[int]],
    Generic_[str],
]


@pytest.mark.parametrize("hint", UNSAFE, ids=str)
def test_a_class_that_would_end_the_process_is_refused_with_the_path(hint: Any) -> None:
    cls = defstruct("Order", [("x", hint)])
    for make in (Kind, schema_of):
        with pytest.raises(ContractError, match=r"Order\.x.* in one union") as refused:
            make(cls)
        assert refused.value.remedy


@pytest.mark.parametrize("hint", SAFE, ids=str)
def test_a_class_that_msgspec_holds_safely_is_taken(hint: Any) -> None:
    cls = defstruct("Order", [("x", hint)])
    assert Kind(cls).cls is cls


_TRIAL = """
import gc
from typing import Annotated
from msgspec import Meta, defstruct, json
for each in range(15):
    json.Decoder(defstruct("Order", [("x", {hint})]))
    gc.collect()
"""


@pytest.mark.parametrize(
    ("hint", "ends"),
    [
        ("Annotated[int, Meta(ge=1)] | tuple[int, int]", True),
        ("Annotated[str, Meta(pattern='^a')] | tuple[int, int]", False),
        ("Annotated[int, Meta(ge=1)] | list[int]", False),
    ],
)
def test_msgspec_still_is_as_the_refusal_says(hint: str, ends: bool) -> None:
    """When this fails, a newer msgspec has mended it, and `msgspec_unions` can go."""
    done = subprocess.run([sys.executable, "-c", _TRIAL.format(hint=hint)], capture_output=True, check=False)
    assert (done.returncode < 0) == ends, done.stderr
