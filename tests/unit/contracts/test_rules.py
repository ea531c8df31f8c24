"""Rules: what they say of messages, what they refuse, how they travel, and what is proven about two of them."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import reduce
from operator import and_, or_
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pydantic
import pytest
from hypothesis import example, given
from msgspec import UNSET, Struct, UnsetType

from postline import ContractError, Rule, UsageError, disjoint, field
from postline.contracts.rules import covered
from tests.unit.contracts.rules_drawn import messages, rules


class Colour(Enum):
    RED = "red"


class Address(Struct):
    country: str | None = None


class Order(Struct):
    total: Decimal = Decimal(0)
    address: Address | None = None
    colour: Colour = Colour.RED
    placed: datetime | None = None
    express: bool = False
    note: str | UnsetType = UNSET


@dataclass
class Parcel:
    address: Address
    weight: float = 0.0


class Visit(pydantic.BaseModel):
    address: dict[str, str]
    pages: int


def test_fields_are_compared_with_constants():
    order = Order(Decimal("99.5"), Address("de"))
    assert (field("total") > 99)(order)
    assert not (field("total") > 100)(order)
    assert (field("total") == Decimal("99.50"))(order)
    assert field("address.country").is_in("de", "at")(order)
    assert field("address.country").startswith("d")(order)
    assert (field("colour") == "red")(order)
    assert (field("colour") == Colour.RED)(order)


def test_rules_are_joined():
    order = Order(Decimal(50), Address("de"))
    cheap, german = field("total") < 100, field("address.country") == "de"
    assert (cheap & german)(order)
    assert (cheap & ~german)(order) is False
    assert (~cheap | german)(order)
    assert (~~cheap) == cheap


def test_dataclasses_models_and_dicts_are_asked_alike():
    german = field("address.country") == "de"
    assert german(Parcel(Address("de")))
    assert german(Visit(address={"country": "de"}, pages=1))
    assert german({"address": {"country": "de"}})


@pytest.mark.parametrize(
    "missing", [{}, {"x": None}, {"x": UNSET}, {"x": math.nan}, {"x": Decimal("snan")}, {"x": "1"}]
)
def test_a_comparison_is_false_where_there_is_nothing_comparable(missing):
    x = field("x")
    for rule in (x == 1, x != 1, x < 1, x <= 1, x > 1, x >= 1, x.is_in(1)):
        assert rule(missing) is False
        assert (~rule)(missing) is True


def test_true_is_no_number():
    assert not (field("express") == 1)({"express": True})
    assert not (field("express") == True)({"express": 1})  # noqa: E712 - a rule, not a comparison


def test_presence_is_asked_by_exists():
    rule = field("address.country").exists()
    assert rule(Order(address=Address("de")))
    assert not rule(Order(address=Address()))
    assert not rule(Order())
    assert not field("note").exists()(Order())
    assert field("x").exists()({"x": []})


def test_times_are_compared_as_moments():
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    there = datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    assert (field("placed") == noon)(Order(placed=there))
    assert not (field("placed") >= noon)(Order(placed=datetime(2027, 1, 1)))  # noqa: DTZ001 - one without a zone


def test_one_of_nothing_is_never():
    assert not field("x").is_in()({"x": 1})
    assert disjoint(field("x").is_in(), field("y").exists())


def test_a_rule_asked_without_a_message_says_so():
    with pytest.raises(UsageError, match="not by `and`"):
        _ = (field("x") > 1) and (field("x") < 5)
    with pytest.raises(UsageError, match="chain of comparisons"):
        _ = 1 < field("x") < 5
    with pytest.raises(TypeError):
        (field("x") > 1) & (lambda value: True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: field("") == 1, "can't be a field"),
        (lambda: field("a..b") == 1, "can't be a field"),
        (lambda: field("a.__class__") == 1, "can't be a field"),
        (lambda: field("a" * 201) == 1, "can't be a field"),
        (lambda: field("a") == None, "can't be compared"),  # noqa: E711 - a rule, not a comparison
        (lambda: field("a") > Decimal("nan"), "can't be compared"),
        (lambda: field("a") > Decimal("Infinity"), "can't be compared"),
        (lambda: field("a") == Decimal("snan"), "can't be compared"),
        (lambda: field("a") == [1], "can't be compared"),
        (lambda: field("a") == field("b"), "can't be compared"),
        (lambda: field("a") > True, "no order"),
        (lambda: field("a") < UUID(int=1), "no order"),
        (lambda: field("a").startswith(1), "only text"),  # type: ignore[arg-type]
        (lambda: field("a").is_in(1, "x"), "one kind"),
        (lambda: field("a").is_in(*range(1_001)), "up to 1,000"),
        (lambda: field("a") == "x" * 10_001, "Use up to"),
        (lambda: field("a") == 1 << 5_000, "bits"),
        (lambda: field("a") == "\ud800", "no Unicode"),
        (lambda: reduce(or_, [field("a") == n for n in range(1_001)]), "1,000 parts"),
    ],
)
def test_what_can_be_no_rule_is_refused_where_it_is_made(make, said):
    with pytest.raises(ContractError, match=said):
        make()


# -- against a contract ---------------------------------------------------------------------------


def test_a_rule_fits_a_class_that_has_its_fields():
    rule = (
        (field("total") > 100)
        & (field("address.country") != "de")
        & (field("colour") == "red")
        & (field("placed") < datetime(2026, 1, 1, tzinfo=UTC))
        & (field("express") == True)  # noqa: E712 - a rule, not a comparison
        & field("note").startswith("x")
        & field("address").exists()
    )
    assert rule.problems(Order) == []
    assert field("address.anything").is_in("x").problems(Visit) == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (field("totl") > 1, "'totl': Order has no field 'totl' \\(it has address, .*total\\)"),
        (field("address.county") == "de", "'address.county': Order.address has no field 'county' \\(it has country"),
        (field("address.country.code") == "de", "Order.address.country has no field 'code'"),
        (field("total") == "100", "'total' holds number, and is compared with text: '100'"),
        (field("address") == "de", "'address' holds what can't be compared"),
        (field("express") == 1, "holds true or false"),
        (field("total") == 0.1, r"write Decimal\('0.1'\)"),
        (field("total").is_in(1, 0.1), r"write Decimal\('0.1'\)"),
        (field("colour") == 1, "holds text"),
        (field("encode") == 1, "no field 'encode'"),
    ],
)
def test_what_a_class_can_not_be_asked_is_named(rule, said):
    with pytest.raises(ContractError, match=said):
        rule.require(Order)


def test_all_problems_are_named_at_once():
    with pytest.raises(ContractError, match=r"totl.*adress"):
        ((field("totl") > 1) | (field("adress") == "x")).require(Order)


Cents = NewType("Cents", int)


class Mixed(Struct):
    either: int | str
    choice: Literal["a", "b"]
    cents: Cents
    noted: Annotated[str, "a note"]
    anything: Any = None
    items: list[int] = []


def test_wrapped_types_are_looked_into():
    for rule in (field("either") == 1, field("either") == "x", field("choice") == "a", field("cents") > 1):
        assert rule.problems(Mixed) == []
    assert (field("noted") == "x").problems(Mixed) == []
    assert (field("anything.at.all") == b"x").problems(Mixed) == []
    assert field("items").exists().problems(Mixed) == []
    assert (field("items") == 1).problems(Mixed)
    assert (field("choice") == 1).problems(Mixed)


# -- as data --------------------------------------------------------------------------------------


@given(rules())
def test_a_rule_survives_json(rule):
    again = Rule.from_data(json.loads(json.dumps(rule.to_data())))
    assert again == rule
    assert hash(again) == hash(rule)
    assert repr(again) == repr(rule)
    assert pickle.loads(pickle.dumps(rule)) == rule


@given(rules(), messages())
def test_a_rule_read_again_says_the_same(rule, message):
    assert Rule.from_data(rule.to_data())(message) is rule(message)


def test_rules_are_equal_by_what_they_say():
    assert (field("x") == 1) == (field("x") == 1.0)
    assert (field("x") == 1) != (field("x") == True)  # noqa: E712 - a rule, not a comparison
    assert ((field("x") == 1) | (field("y") == 1)) != ((field("x") == 1) & (field("y") == 1))


def test_the_data_are_as_others_write_them():
    data = {"all": [{"field": "total", "gt": {"decimal": "99.5"}}, {"not": {"field": "address.country", "in": ["de"]}}]}
    rule = Rule.from_data(data)
    assert rule == (field("total") > Decimal("99.5")) & ~field("address.country").is_in("de")
    assert rule.to_data() == data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "no part of a rule"),
        ([[[[[[[[["x"]]]]]]]]] * 1_000, "no part of a rule"),
        (dict.fromkeys((str(n) for n in range(10_000)), 1) | {"field": "x"}, "compares by"),
        ([], "no part of a rule"),
        ({}, "no part of a rule"),
        ({"field": "x"}, "compares by nothing"),
        ({"field": "x", "gt": 1, "lt": 5}, "compares by gt, lt"),
        ({"field": "x", "matches": ".*"}, "compares by matches"),
        ({"field": 1, "eq": 1}, "has a field 1"),
        ({"field": "x", "eq": None}, "can't be compared"),
        ({"field": "x", "eq": {"date": "soon"}}, "'soon' is no date"),
        ({"field": "x", "eq": {"decimal": "1e"}}, "is no decimal"),
        ({"field": "x", "eq": {"decimal": "nan"}}, "can't be compared"),
        ({"field": "x", "eq": {"microseconds": "9" * 30}}, "is no microseconds"),
        ({"field": "x", "eq": {"bytes": "?"}}, "is no bytes"),
        ({"field": "x", "eq": {"bytes": "A" * 20_001}}, "no constant"),
        ({"field": "x", "eq": {"uuid": 5}}, "no constant"),
        ({"field": "x", "exists": False}, 'under "not"'),
        ({"field": "x", "in": "de"}, "takes a list"),
        ({"field": "x", "in": list(range(1_001))}, "up to 1,000"),
        ({"all": {}}, "no part of a rule"),
        ({"all": [{"any": [{"field": "x", "eq": 1}, 5]}]}, r"5 at all\[0\].any\[1\]"),
        ({"not": {"not": 1}}, "at not.not"),
        ({"any": [{"field": "x", "eq": 1}] * 1_000}, "too large at"),
    ],
)
def test_data_that_are_no_rule_are_refused_with_their_place(data, said):
    with pytest.raises(ContractError, match=said):
        Rule.from_data(data)


def test_data_nested_too_deep_are_refused():
    data: Any = {"field": "x", "eq": 1}
    for _ in range(10_000):
        data = {"not": data}
    with pytest.raises(ContractError, match=r"too large at not\.not"):
        Rule.from_data(data)


# -- disjointness ---------------------------------------------------------------------------------


@given(rules(), rules(), messages())
@example(~(field("x") == 1), ~(field("x") != 1), {})
@example(field("x") != True, ~(field("x") == False), {"x": None})  # noqa: E712 - rules, not comparisons
def test_no_message_satisfies_two_rules_that_are_disjoint(first, second, message):
    if first(message) and second(message):
        assert not disjoint(first, second)


@given(rules(), messages())
def test_a_rule_and_its_opposite_leave_nothing_out(rule, message):
    assert rule(message) is not (~rule)(message)


@given(rules(leaves=4))
def test_a_rule_and_its_opposite_are_disjoint(rule):
    assert disjoint(rule, ~rule)


x, country = field("x"), field("country")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (x > 100, x <= 100),
        (x == 1, x == 2),
        (x == 1, x == "1"),
        (x < 5, (x > 5) | (x == 5)),
        (country.is_in("de", "at"), country.is_in("ch", "fr")),
        (country.is_in("de", "at"), ~country.is_in("de", "at", "ch")),
        (country.startswith("de"), country.startswith("at")),
        (country.startswith("de"), country == "at"),
        (country.startswith("de"), country < "d"),
        ((x > 1) & (country == "de"), (country == "at") | (x < 0)),
        (x.exists(), ~x.exists()),
        (x == True, x != True),  # noqa: E712 - rules, not comparisons
        ((x != True) & (x != False), x.exists()),  # noqa: E712 - rules, not comparisons
        (x == datetime(2026, 1, 1, tzinfo=UTC), x > datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_rules_that_exclude_each_other_are_proven_to(first, second):
    assert disjoint(first, second)
    assert disjoint(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (x > 100, x >= 100),
        (x > 5, x < 6),
        (x == 1, field("y") == 2),
        (x != 1, x != 2),
        (~(x > 100), ~(x <= 100)),  # a message without x
        (country.startswith("de"), country.startswith("d")),
        (x.exists(), x == 1),
    ],
)
def test_rules_that_may_both_hold_are_not(first, second):
    assert not disjoint(first, second)


@given(rules(leaves=3), rules(leaves=3), rules(leaves=3), messages())
def test_a_rule_that_is_covered_holds_with_one_of_the_others(first, second, third, message):
    if covered(first, [second, third]) and first(message):
        assert second(message) or third(message)


def test_a_rule_may_be_covered_by_several_together():
    assert covered((x > 1) & (x < 9), [x <= 5, x > 5])
    assert not covered(x.exists(), [x <= 5, x > 5])
    assert not covered(x > 1, [])
    assert covered(x.is_in(), [])


def test_rules_as_large_as_can_be_are_compared():
    many = [field(f"a{n}") == n for n in range(999)]
    assert disjoint(reduce(and_, many), ~many[998])
    assert not disjoint(reduce(or_, many), reduce(and_, many))
    assert disjoint(x.is_in(*range(1_000)), x.is_in(*range(1_000, 2_000)))


def test_what_takes_too_long_to_prove_is_unknown():
    many = [(field(f"a{n}") == 1) | (field(f"b{n}") == 1) for n in range(20)]
    first = reduce(lambda a, b: a & b, many)
    assert not disjoint(first & (x == 1), first & (x == 2))
