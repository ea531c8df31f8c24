"""Rules on the fields of messages, as data: built in Python or read from JSON, checked against contracts, compiled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from postline.contracts.rules_checking import problems_of
from postline.contracts.rules_data import compare, term_from_data, term_to_data
from postline.contracts.rules_disjoint import excluded
from postline.contracts.rules_terms import AllOf, AnyOf, Comparison, NoneOf, Term, Test, compiled, joined
from postline.errors import ContractError, UsageError

__all__ = ["Field", "Rule", "covered", "disjoint", "field"]


class Rule:
    """Whether a message satisfies comparisons of its fields, joined by `&`, `|` and `~`. Immutable; thread-safe.

    Call it with a message (a Struct, a dataclass, a pydantic model or a dict). A comparison, `!=` included, is false
    where the field is missing, None or NaN, or holds another kind of value than the constant; `~` is true of whatever
    the rule is false of. Rules are equal if they are the same data.
    """

    __slots__ = ("_test", "term")

    #: What it consists of.
    term: Term

    def __init__(self, term: Term) -> None:
        self.term = term
        self._test: Test | None = None

    def __call__(self, message: Any) -> bool:
        """Whether the message satisfies it."""
        test = self._test
        if test is None:
            test = self._test = compiled(self.term)
        return test(message)

    def __and__(self, other: object) -> Rule:
        return Rule(joined(AllOf, self.term, other.term)) if isinstance(other, Rule) else NotImplemented

    def __or__(self, other: object) -> Rule:
        return Rule(joined(AnyOf, self.term, other.term)) if isinstance(other, Rule) else NotImplemented

    def __invert__(self) -> Rule:
        return Rule(self.term.terms[0] if isinstance(self.term, NoneOf) else NoneOf((self.term,)))

    def __bool__(self) -> bool:
        raise UsageError(
            f"The rule {self!r:.200} was asked whether it is true, without a message.",
            remedy="Join rules by &, | and ~ in brackets, not by `and`, `or`, `not` or a chain of comparisons; call it "
            "with a message to ask it.",
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and self.term == other.term

    def __hash__(self) -> int:
        return hash(self.term)

    def __reduce__(self) -> tuple[Any, ...]:
        return Rule, (self.term,)

    def __repr__(self) -> str:
        return _shown(self.term)

    def to_data(self) -> dict[str, Any]:
        """The rule as plain JSON data, which `from_data` reads."""
        return term_to_data(self.term)

    @staticmethod
    def from_data(data: Any) -> Rule:
        """The rule of plain JSON data, written by whomever: `{"field": "total", "gt": 100}`, `{"all": […]}`, ….

        Raises ContractError, with the place in the data, for what is no rule, is nested more than 20 deep, or has more
        than 1,000 parts. `require` then says whether a contract has its fields.
        """
        return Rule(term_from_data(data))

    def problems(self, cls: type) -> list[str]:
        """Every field that messages of the class don't have, or can't compare so, in sentences; [] if none."""
        return problems_of(self.term, cls)

    def require(self, cls: type) -> None:
        """Raise ContractError naming all `problems` with messages of the class."""
        if problems := self.problems(cls):
            raise ContractError(
                f"A rule can't be asked of {cls.__qualname__}: {' '.join(problems)}",
                remedy="Name fields as the class has them, with constants of their kind.",
            )


class Field:
    """A field of messages, or the dotted way to one; comparing it with a constant gives a `Rule`.

    Names are those of the class (of a dict its keys), not the ones that a format writes.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        if not isinstance(path, str):
            raise ContractError(f"{path!r:.80} can't be a field of a rule.", remedy='Name it by text: field("total").')
        self.path = path

    def __eq__(self, constant: object) -> Rule:  # type: ignore[override]
        return Rule(compare(self.path, "eq", constant))

    def __ne__(self, constant: object) -> Rule:  # type: ignore[override]
        return Rule(compare(self.path, "ne", constant))

    __hash__ = None  # type: ignore[assignment]

    def __lt__(self, constant: Any) -> Rule:
        return Rule(compare(self.path, "lt", constant))

    def __le__(self, constant: Any) -> Rule:
        return Rule(compare(self.path, "le", constant))

    def __gt__(self, constant: Any) -> Rule:
        return Rule(compare(self.path, "gt", constant))

    def __ge__(self, constant: Any) -> Rule:
        return Rule(compare(self.path, "ge", constant))

    def is_in(self, *constants: Any) -> Rule:
        """One of these, up to 1,000 of one kind."""
        return Rule(compare(self.path, "in", constants))

    def startswith(self, prefix: str) -> Rule:
        """Text that begins so."""
        return Rule(compare(self.path, "starts_with", prefix))

    def exists(self) -> Rule:
        """It is there and isn't None."""
        return Rule(compare(self.path, "exists"))


def field(path: str) -> Field:
    """A field to make a rule of: `field("total") > 100`, `field("address.country").is_in("de", "at")`.

    Making the rule raises ContractError for what can't be a path or a constant.
    """
    return Field(path)


def disjoint(first: Rule, second: Rule) -> bool:
    """Whether it is proven that no message whatever satisfies both.

    False means that one may, or that it could not be shown within a limit: that integers lie between 5 and 6, say,
    or what two fields have to do with each other, is not known here.
    """
    return excluded((first.term, second.term))


def covered(rule: Rule, others: Iterable[Rule]) -> bool:
    """Whether it is proven that whatever message satisfies the rule satisfies one of the others; as `disjoint`."""
    return excluded([rule.term], [each.term for each in others])


_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _shown(term: Term) -> str:
    """The term as the Python that makes it."""
    if isinstance(term, Comparison):
        said = f"field({term.path!r})"
        if term.operator in _SIGNS:
            return f"{said} {_SIGNS[term.operator]} {term.constant!r}"
        if term.operator == "in":
            return f"{said}.is_in({', '.join(map(repr, term.constant))})"
        return f"{said}.exists()" if term.operator == "exists" else f"{said}.startswith({term.constant!r})"
    if isinstance(term, NoneOf):
        return f"~({_shown(term.terms[0])})"
    return _between(" & " if isinstance(term, AllOf) else " | ", term.terms)


def _between(sign: str, terms: Iterable[Term]) -> str:
    return sign.join(f"({_shown(each)})" for each in terms) or f"(no rule in{sign.rstrip()})"
