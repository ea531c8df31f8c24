"""The checker finds planted loss, doubling, reordering and inventions, and nothing in a sound history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from tests.simulation.checks import (
    AuditLine,
    Execution,
    History,
    Problem,
    StoredRecord,
    check_audit,
    check_effects,
    check_equal,
    check_executions,
    check_publishing,
)


@dataclass
class Case:
    """A history of two keys with three messages each, all handled."""

    history: History
    records: list[StoredRecord]
    effects: list[StoredRecord]

    def problems(self) -> list[Problem]:
        return [
            *check_publishing(self.history, "orders", self.records),
            *check_effects(self.history, "billing", self.records, self.effects),
            *check_executions(self.history, "billing", self.records),
        ]

    def kinds(self) -> set[str]:
        return {problem.kind for problem in self.problems()}


def sound() -> Case:
    """Nothing is wrong with it."""
    case = Case(History(), [], [])
    for sequence in range(3):
        for partition, key in enumerate((b"a", b"b")):
            identity = ("shop", f"{key.decode()}{sequence}")
            case.history.publishing("orders", identity, key, sequence)
            case.history.acknowledged(identity)
            case.records.append(StoredRecord(partition, sequence, key, identity))
            case.history.executed(Execution("billing", identity, True, partition, 1, "p1"))
            effect = StoredRecord(partition, sequence, key, ("billing", f"out-{identity[1]}"), identity)
            case.effects.append(effect)
    return case


def lose_a_record(case: Case) -> None:
    del case.records[2], case.effects[2]


def lose_the_last_record(case: Case) -> None:
    del case.records[-1], case.effects[-1]


def lose_an_effect(case: Case) -> None:
    del case.effects[3]


def double_an_effect(case: Case) -> None:
    case.effects.append(replace(case.effects[0], offset=9))


def store_out_of_order(case: Case) -> None:
    first, second = case.records[0], case.records[2]
    case.records[0], case.records[2] = replace(first, offset=1), replace(second, offset=0)


def swap_effects(case: Case) -> None:
    first, second = case.effects[1], case.effects[3]
    case.effects[1], case.effects[3] = replace(first, offset=1), replace(second, offset=0)


def swap_executions(case: Case) -> None:
    runs = case.history.executions
    runs[0], runs[2] = runs[2], runs[0]


def run_past_a_failure(case: Case) -> None:
    runs = case.history.executions
    runs[0] = replace(runs[0], ok=False)
    runs.append(replace(runs[0], ok=True))


def run_twice_under_one_assignment(case: Case) -> None:
    case.history.executed(case.history.executions[0])


def split_a_key(case: Case) -> None:
    case.records[4] = replace(case.records[4], partition=1, offset=7)


def invent_a_record(case: Case) -> None:
    case.records.append(StoredRecord(0, 9, b"a", ("nobody", "x")))
    case.effects.append(StoredRecord(0, 9, b"a", ("billing", "y"), ("nobody", "x")))


def invent_an_effect(case: Case) -> None:
    case.effects.append(StoredRecord(0, 9, b"a", ("billing", "y"), ("nobody", "x")))


def store_what_was_refused(case: Case) -> None:
    identity = ("shop", "a2")
    case.history.publications[identity].acknowledged = False
    case.history.refused(identity)


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lose_a_record, "lost"),
        (lose_the_last_record, "lost"),
        (lose_an_effect, "lost"),
        (double_an_effect, "doubled"),
        (run_twice_under_one_assignment, "doubled"),
        (store_out_of_order, "reordered"),
        (swap_effects, "reordered"),
        (swap_executions, "reordered"),
        (run_past_a_failure, "reordered"),
        (split_a_key, "reordered"),
        (invent_a_record, "phantom"),
        (invent_an_effect, "phantom"),
        (store_what_was_refused, "phantom"),
    ],
)
def test_a_planted_fault_is_found(plant: Callable[[Case], None], kind: str) -> None:
    case = sound()
    plant(case)
    assert kind in case.kinds()


def test_a_sound_history_has_no_problem() -> None:
    assert sound().problems() == []


def test_copies_of_a_repeated_publish_are_one_message() -> None:
    case = sound()
    case.records.append(replace(case.records[0], offset=3))
    assert case.problems() == []


def test_a_publish_of_unknown_outcome_may_be_there_or_not() -> None:
    case = sound()
    case.history.publishing("orders", ("shop", "a3"), b"a", 3)
    assert case.problems() == []


def test_a_run_repeated_by_the_next_owner_is_no_problem() -> None:
    case = sound()
    for execution in case.history.executions[:4]:
        case.history.executed(replace(execution, epoch=2, process="p2"))
    assert case.problems() == []


def test_what_ended_otherwise_needs_no_effect_and_may_have_none() -> None:
    case = sound()
    poison = ("shop", "a2")
    done = [effect for effect in case.effects if effect.cause != poison]
    assert check_effects(case.history, "billing", case.records, done, excluded={poison}) == []
    problems = check_effects(case.history, "billing", case.records, case.effects, excluded={poison})
    assert {problem.kind for problem in problems} == {"phantom"}


def test_an_audit_that_does_not_add_up_is_found() -> None:
    balanced = AuditLine("billing", 0, 5, 12, {"done": 4, "held": 2, "gaps": 1})
    assert check_audit([balanced]) == []
    for counts in ({"done": 4, "held": 2}, {"done": 8}, {"done": 8, "held": -1}):
        assert [p.kind for p in check_audit([replace(balanced, counts=counts)])] == ["audit"]


def test_a_wrong_sum_is_found() -> None:
    assert check_equal("sums", {"a": 1}, {"a": 1}) == []
    for actual in ({"a": 2}, {}, {"a": 1, "b": 0}):
        assert [problem.kind for problem in check_equal("sums", {"a": 1}, actual)] == ["wrong"]
