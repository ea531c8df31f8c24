"""The list-append checker finds every anomaly that is planted, and none in sound histories with crashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.fault.listappend import (
    Effect,
    Ended,
    Input,
    Operation,
    Poll,
    Report,
    Send,
    Sought,
    check_history,
    check_processing,
)

# -- planted: each history breaks one promise -------------------------------------------------------


def sent(*values: str, process: str = "p", partition: int = 0, **said: Any) -> list[Operation]:
    """Acknowledged sends at offsets 0, 1, …"""
    return [Send(process, partition, value, offset=at, **said) for at, value in enumerate(values)]


def polled(*records: tuple[int, str], process: str = "c", partition: int = 0) -> Poll:
    """A poll of one partition."""
    return Poll(process, [(partition, offset, value) for offset, value in records])


A, B, C = (0, "a"), (1, "b"), (2, "c")

PLANTED: dict[str, tuple[set[str], list[Operation]]] = {
    "an acknowledged value passed over by everybody": (
        {"lost-write", "internal-poll-skip"},
        [*sent("a", "b", "c"), polled(A, C)],
    ),
    "a value acknowledged without an offset, and what its process sent later was read": (
        {"lost-write"},
        [Send("p", 0, "a"), Send("p", 0, "b"), polled((7, "b"))],
    ),
    "a committed transaction read in part": (
        {"lost-write", "internal-poll-skip"},
        [*sent("a", "b", "c", transaction=1), Ended(1), polled(A, C)],
    ),
    "an acknowledged value behind everything that was read": ({"unseen"}, [*sent("a", "b"), polled(A)]),
    "a value in a partition that nobody read": ({"unseen"}, [*sent("a")]),
    "a value read at two offsets": ({"duplicate"}, [Send("p", 0, "a"), polled(A, (1, "a"))]),
    "a value read elsewhere than it was acknowledged": ({"duplicate"}, [*sent("a"), polled((5, "a"))]),
    "two values read at one offset": (
        {"inconsistent-offsets"},
        [Send("p", 0, "a"), Send("q", 0, "b"), polled(A), polled((0, "b"), process="d")],
    ),
    "two sends acknowledged at one offset": (
        {"inconsistent-offsets"},
        [Send("p", 0, "a", offset=0), Send("q", 0, "b", "unknown", offset=0), polled(A)],
    ),
    "a value read in another partition": ({"misplaced"}, [Send("p", 1, "a"), polled(A)]),
    "a value that nobody sent": ({"phantom"}, [polled(A)]),
    "a failed send that was read": ({"aborted-read"}, [Send("p", 0, "a", "fail"), polled(A)]),
    "an aborted transaction that was read": (
        {"aborted-read"},
        [*sent("a", transaction=1), Ended(1, "fail"), polled(A)],
    ),
    "a transaction that was read before its process had committed it": (
        {"precommitted-read"},
        [*sent("a", transaction=1), polled(A, process="p"), Ended(1)],
    ),
    "a part of a transaction with an unknown end": (
        {"torn-transaction"},
        [*sent("a", "b", transaction=1), Ended(1, "unknown"), polled(B)],
    ),
    "a poll that skips what another one reads": (
        {"poll-skip"},
        [*sent("a", "b", "c"), polled(A), polled(C), polled(A, B, C, process="d")],
    ),
    "a poll that skips in the middle": (
        {"internal-poll-skip"},
        [*sent("a", "b", "c"), polled(A, C), polled(A, B, C, process="d")],
    ),
    "a poll that goes back": ({"nonmonotonic-poll"}, [*sent("a", "b"), polled(A, B), polled(A)]),
    "a poll that gives the same again": ({"nonmonotonic-poll"}, [*sent("a"), polled(A), polled(A)]),
    "a poll that goes back in the middle": ({"internal-nonmonotonic-poll"}, [*sent("a", "b"), polled(A, B, A)]),
    "a process placed anew in another partition only": (
        {"nonmonotonic-poll"},
        [*sent("a", "b"), polled(A, B), Sought("c", [1]), polled(A)],
    ),
    "a later send that lies earlier": (
        {"nonmonotonic-send"},
        [Send("p", 0, "b", offset=1), Send("p", 0, "a", offset=0), polled(A, B)],
    ),
    "a later send that is read earlier": (
        {"nonmonotonic-send"},
        [Send("p", 0, "b"), Send("p", 0, "a"), polled(A, B)],
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_anomaly_of_the_log_is_named_and_nothing_else(planted: str) -> None:
    kinds, history = PLANTED[planted]
    report = check_history(history)
    assert report.kinds == kinds, str(report)
    assert not report
    assert kinds & {line.partition(":")[0] for line in str(report).splitlines()}


SOUND: dict[str, list[Operation]] = {
    "nothing at all": [],
    "gaps": [Send("p", 0, "a", offset=3), Send("p", 0, "b", offset=9), polled((3, "a"), (9, "b"))],
    "unknown and not there": [Send("p", 0, "a", "unknown"), *sent("b"), polled((0, "b"))],
    "unknown and there, later than what its process sent next": [
        Send("p", 0, "a", "unknown"),
        *sent("b"),
        polled((0, "b"), (1, "a")),
    ],
    "failed and not there": [Send("p", 0, "a", "fail"), *sent("b"), polled((0, "b"))],
    "an aborted transaction whose offsets were told": [
        *sent("a", transaction=1),
        Ended(1, "fail"),
        Send("p", 0, "b", offset=2),
        polled((2, "b")),
    ],
    "a transaction that never ended": [*sent("a", "b", transaction=1)],
    "a transaction with an unknown end that is there as a whole": [
        *sent("a", "b", transaction=1),
        Ended(1, "unknown"),
        polled(A, B),
    ],
    "going back after being placed anew": [*sent("a", "b"), polled(A, B), Sought("c", [0]), polled(A, B)],
    "skipping by being placed anew": [
        *sent("a", "b", "c"),
        polled(A),
        Sought("c", [0]),
        polled(C),
        polled(A, B, C, process="d"),
    ],
    "two processes at one partition, each in its own order": [
        Send("p", 0, "a", offset=1),
        Send("q", 0, "b", offset=0),
        polled((0, "b"), (1, "a")),
    ],
}


@pytest.mark.parametrize("history", SOUND.values(), ids=SOUND.keys())
def test_what_looks_odd_and_is_sound_raises_nothing(history: list[Operation]) -> None:
    report = check_history(history)
    assert report, str(report)
    assert str(report) == "no anomalies"


def test_a_value_sent_twice_is_an_error_of_the_history() -> None:
    with pytest.raises(AssertionError, match="sent twice"):
        check_history([*sent("a"), *sent("a", process="q")])


# -- sound histories of a model log -----------------------------------------------------------------

PARTITIONS = 2
PROCESSES = ("p0", "p1", "p2")
FATES = ("ok", "ok", "answered without offset", "fail", "unknown, lost", "unknown, stored", "unknown, late")


class Model:
    """A log that keeps its promises, with processes that crash and outcomes that nobody learns."""

    def __init__(self) -> None:
        self.history: list[Operation] = []
        #: Of each partition what has an offset: (offset, value, its transaction while that is open, else None).
        self.log: list[list[tuple[int, str, int | None]]] = [[] for _ in range(PARTITIONS)]
        self.ends = [0] * PARTITIONS
        self.open: dict[str, int] = {}
        self.late: list[tuple[int, str]] = []
        self.positions: dict[tuple[str, int], int] = defaultdict(int)
        self.count = 0

    def act(self, action: str, who: int, where: int, how: int) -> None:
        """One step; every combination means something."""
        process, partition = PROCESSES[who], where % PARTITIONS
        match action:
            case "send":
                self.send(process, partition, FATES[how % len(FATES)])
            case "begin":
                self.count += 1
                self.open.setdefault(process, self.count)
            case "end" if process in self.open:
                self.end(process, committed=how % 2 == 0, told=how % 3 > 0)
            case "land" if self.late:
                self.store(*self.late.pop(how % len(self.late)), None)
            case "poll":
                self.poll(process, [partition] if how % 2 else range(PARTITIONS), 1 + how)
            case "crash":
                if process in self.open:
                    self.end(process, committed=False, told=None)
                self.history.append(Sought(process, range(PARTITIONS)))
                for each in range(PARTITIONS):
                    self.positions[process, each] = max(0, self.positions[process, each] - how)
            case "seek":
                self.history.append(Sought(process, [partition]))
                self.positions[process, partition] = how
            case _:
                self.ends[partition] += how % 3

    def store(self, partition: int, value: str, transaction: int | None) -> int:
        """Give it the partition's next offset."""
        offset = self.ends[partition]
        self.log[partition].append((offset, value, transaction))
        self.ends[partition] += 1
        return offset

    def send(self, process: str, partition: int, fate: str) -> None:
        """One send, in the process's transaction if it has one open."""
        self.count += 1
        value, transaction = f"v{self.count}", self.open.get(process)
        offset = None
        if fate in {"ok", "answered without offset", "unknown, stored"}:
            offset = self.store(partition, value, transaction)
        elif fate == "unknown, late" and transaction is None:
            self.late.append((partition, value))
        outcome: Any = "fail" if fate == "fail" else "unknown" if fate.startswith("unknown") else "ok"
        self.history.append(
            Send(process, partition, value, outcome, offset if fate == "ok" else None, transaction=transaction)
        )

    def end(self, process: str, *, committed: bool, told: bool | None) -> None:
        """Its transaction ends; the process learns how, or that nobody knows, or (None) nothing."""
        transaction = self.open.pop(process)
        for partition, records in enumerate(self.log):
            mine = any(each[2] == transaction for each in records)
            kept = [each for each in records if each[2] != transaction or committed]
            self.log[partition] = [(at, value, None if t == transaction else t) for at, value, t in kept]
            self.ends[partition] += mine  # a marker
        if told is not None:
            self.history.append(Ended(transaction, ("ok" if committed else "fail") if told else "unknown"))

    def poll(self, process: str, partitions: Sequence[int], count: int) -> None:
        """The next records that are committed, not past the first that may not be."""
        found: list[tuple[Any, int, Any]] = []
        for partition in partitions:
            records = self.log[partition]
            stable = next((at for at, _, transaction in records if transaction is not None), self.ends[partition])
            position = self.positions[process, partition]
            some = [(partition, at, value) for at, value, _ in records if position <= at < stable][:count]
            found += some
            if some:
                self.positions[process, partition] = some[-1][1] + 1
        self.history.append(Poll(process, found))

    def finish(self) -> list[Operation]:
        """All crash; somebody sends two more, and reads everything."""
        for process in list(self.open):
            self.end(process, committed=False, told=None)
        self.send("the last", 0, "ok")
        self.send("the last", 0, "ok")
        self.poll("the last", range(PARTITIONS), 10_000)
        return self.history


ACTIONS = ("send", "send", "send", "begin", "end", "land", "poll", "poll", "crash", "seek", "gap")


STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2), st.integers(0, 2), st.integers(0, 8)), max_size=40
)


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Histories of the model."""
    model = Model()
    for step in draw(STEPS):
        model.act(*step)
    return model.finish()


def acknowledged(history: Sequence[Operation]) -> list[Send]:
    """Sends that must be there, outside transactions."""
    return [each for each in history if isinstance(each, Send) and each.outcome == "ok" and each.transaction is None]


@given(histories())
def test_a_sound_history_with_crashes_and_unknown_outcomes_raises_nothing(history: list[Operation]) -> None:
    report = check_history(history)
    assert report, f"{report}\n{history}"


@given(histories(), st.data())
def test_an_acknowledged_value_taken_out_of_any_sound_history_is_missed(
    history: list[Operation], data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from(acknowledged(history))).value
    without = [
        replace(each, records=[record for record in each.records if record[2] != lost])
        if isinstance(each, Poll)
        else each
        for each in history
    ]
    assert check_history(without).kinds & {"lost-write", "unseen"}


@given(histories(), st.data())
def test_a_value_stored_again_at_the_end_of_any_sound_history_is_a_duplicate(
    history: list[Operation], data: st.DataObject
) -> None:
    doubled = data.draw(st.sampled_from(acknowledged(history)))
    again = Poll("another", [(doubled.partition, 1_000_000, doubled.value)])
    assert "duplicate" in check_history([*history, again]).kinds


@given(histories())
def test_two_records_given_the_wrong_way_round_are_noticed_in_any_sound_history(history: list[Operation]) -> None:
    last = history[-1]
    assert isinstance(last, Poll)
    backwards = replace(last, records=list(last.records)[::-1])
    assert "internal-nonmonotonic-poll" in check_history([*history[:-1], backwards]).kinds


# -- processing -------------------------------------------------------------------------------------

INPUTS = [Input(0, 0, "k"), Input(0, 1, "l"), Input(0, 4, "k"), Input(1, 0, "m")]


def effects(*of: tuple[int, int], partition: int = 0) -> list[Effect]:
    """Effects of these inputs, in this order."""
    return [Effect(place, (partition, at)) for at, place in enumerate(of)]


@pytest.mark.parametrize(
    ("kinds", "stored"),
    [
        (set(), effects((0, 0), (0, 1), (0, 4), (1, 0))),
        (set(), effects((1, 0), (0, 1), (0, 0), (0, 4))),
        ({"unprocessed"}, effects((0, 0), (0, 1), (0, 4))),
        ({"processed-twice"}, effects((0, 0), (0, 1), (0, 1), (0, 4), (1, 0))),
        ({"phantom-effect"}, effects((0, 0), (0, 1), (0, 4), (1, 0), (1, 9))),
        ({"effects-out-of-order"}, effects((0, 4), (0, 1), (0, 0), (1, 0))),
        ({"scattered-effects"}, [*effects((0, 0), (0, 1), (1, 0)), *effects((0, 4), partition=1)]),
    ],
)
def test_a_planted_anomaly_of_processing_is_named_and_nothing_else(kinds: set[str], stored: list[Effect]) -> None:
    report = check_processing(INPUTS, stored)
    assert report.kinds == kinds, str(report)


def test_excused_inputs_may_have_no_effect_and_keyless_ones_no_order() -> None:
    assert check_processing(INPUTS, effects((0, 0), (0, 1), (0, 4)), excused={(1, 0)})
    assert check_processing([Input(0, 0), Input(0, 1)], effects((0, 1), (0, 0)))


@st.composite
def processing(draw: st.DrawFn) -> tuple[list[Input], list[Effect], set[tuple[Any, int]]]:
    """Inputs, and effects as processes leave them that take up where the last one's commit ended."""
    keys = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(1, 3)), max_size=40))
    ends: dict[int, int] = defaultdict(int)
    lanes: dict[str, list[Input]] = defaultdict(list)
    inputs = []
    for partition, key, gap in keys:
        each = Input(partition, ends[partition], f"{partition}/{key}")
        ends[partition] += gap
        inputs.append(each)
        lanes[f"{partition}/{key}"].append(each)
    stored: list[Effect] = []
    excused: set[tuple[Any, int]] = set()
    while lanes:
        key_text = draw(st.sampled_from(sorted(lanes)))
        each = lanes[key_text].pop(0)
        if draw(st.integers(0, 9)) == 0:
            excused.add(each.place)
        else:
            stored.append(Effect(each.place, (key_text, len(stored))))
        if not lanes[key_text]:
            del lanes[key_text]
    return inputs, stored, excused


@given(processing())
def test_sound_processing_raises_nothing(
    processed: tuple[list[Input], list[Effect], set[tuple[Any, int]]],
) -> None:
    inputs, stored, excused = processed
    report = check_processing(inputs, stored, excused=excused)
    assert report, str(report)


@given(processing(), st.data())
def test_an_effect_that_is_lost_or_doubled_is_noticed(
    processed: tuple[list[Input], list[Effect], set[tuple[Any, int]]], data: st.DataObject
) -> None:
    inputs, stored, excused = processed
    assume(stored)
    at = data.draw(st.integers(0, len(stored) - 1))
    assert _kinds(inputs, stored[:at] + stored[at + 1 :], excused) == {"unprocessed"}
    again = replace(stored[at], place=(stored[at].place[0], 1_000_000))
    assert "processed-twice" in _kinds(inputs, [*stored, again], excused)


def _kinds(inputs: list[Input], stored: list[Effect], excused: set[tuple[Any, int]]) -> set[str]:
    report: Report = check_processing(inputs, stored, excused=excused)
    return report.kinds
