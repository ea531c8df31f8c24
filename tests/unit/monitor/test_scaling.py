"""How many workers a backlog needs: within bounds, no flapping, monotone in the lag, and it comes to rest."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.monitor import Decision, Load, Look, Policy, Scale, advance
from tests.unit.monitor.team import Team, burst, day, steady

POLICY = Policy(workers_min=1, workers_max=8)

policies = st.builds(
    lambda least, more, drain, cool: Policy(
        workers_min=least, workers_max=least + more, drain_seconds=drain, cool_down_seconds=cool
    ),
    st.integers(1, 5),
    st.integers(0, 10),
    st.floats(0.5, 600),
    st.floats(0, 600),
)
#: What happens from one look to the next: seconds, records handled and come in, members, partitions with a backlog.
steps = st.lists(
    st.tuples(
        st.floats(0.1, 100),
        st.integers(0, 100_000),
        st.integers(0, 100_000),
        st.integers(0, 20),
        st.integers(0, 12),
        st.sampled_from(["", "", "", "", "an operator paused it"]),
    ),
    min_size=1,
    max_size=40,
)


class Seen:
    """Looks that follow on each other, and what was decided on them."""

    def __init__(self, policy: Policy, partitions: int = 12) -> None:
        self.policy, self.partitions = policy, partitions
        self.at, self.workers = 0.0, policy.workers_min
        self.passed = self.end = 0
        self.scale = Scale()
        self.decisions: list[tuple[float, Decision]] = []

    def load(self, members: int, backlogged: int, obstacle: str = "", more: int = 0) -> Load:
        return Load(
            name="billing",
            partitions=self.partitions,
            backlogged=backlogged,
            backlog=self.end + more - self.passed,
            passed=self.passed,
            end=self.end + more,
            members=members,
            obstacle=obstacle,
        )

    def pass_time(self, seconds: float, handled: int, come: int) -> None:
        self.at += seconds
        self.passed = min(self.end, self.passed + handled)
        self.end += come

    def look(self, load: Load, took: float = 0.0) -> Decision:
        look = Look(at=self.at, workers=self.workers, loads=(load,), took=took)
        self.scale, decision = advance(self.policy, self.scale, look)
        self.workers = decision.desired
        self.decisions.append((self.at, decision))
        return decision


def seen(policy: Policy, happened: list[tuple[float, int, int, int, int, str]]) -> Seen:
    run = Seen(policy)
    for seconds, handled, come, members, backlogged, obstacle in happened:
        run.pass_time(seconds, handled, come)
        run.look(run.load(members, backlogged, obstacle))
    return run


@given(policies, steps)
@settings(max_examples=300)
def test_whatever_is_seen_the_number_stays_within_bounds(policy: Policy, happened: list) -> None:
    for _, decision in seen(policy, happened).decisions:
        assert policy.workers_min <= decision.desired <= policy.workers_max
        assert decision.desired <= max(decision.workers, 12), "more than there are partitions"
        assert decision.reason


@given(policies, steps)
@settings(max_examples=300)
def test_it_goes_down_one_by_one_and_never_within_the_cool_down(policy: Policy, happened: list) -> None:
    changed_at = -math.inf
    for at, decision in seen(policy, happened).decisions:
        if decision.desired < decision.workers:
            assert decision.desired == decision.workers - 1
            assert at - changed_at >= policy.cool_down_seconds
        if decision.desired != decision.workers:
            changed_at = at


@given(policies, steps, st.integers(0, 1_000_000), st.integers(0, 20), st.integers(0, 12))
@settings(max_examples=300)
def test_a_larger_backlog_never_asks_for_fewer(
    policy: Policy,
    happened: list,
    more: int,
    members: int,
    backlogged: int,
) -> None:
    run = seen(policy, happened)
    run.pass_time(5.0, 1_000, 1_000)
    answers = [
        advance(
            policy, run.scale, Look(at=run.at, workers=run.workers, loads=(run.load(members, backlogged, more=each),))
        )[1].desired
        for each in (0, more)
    ]
    assert answers[0] <= answers[1]


# Not within a tenth of a worker above what whole workers do: there the backlog grows too slowly to be waited for.
@given(
    st.integers(0, 7),
    st.floats(10, 100),
    st.sampled_from([20.0, 60.0]),
    st.sampled_from([30.0, 120.0]),
    st.integers(0, 100_000),
)
@settings(max_examples=30, deadline=None)
def test_it_comes_to_rest_with_enough_workers_and_hardly_more(
    hundreds: int, more: float, drain: float, cool_down: float, backlog: int
) -> None:
    rate = 100 * hundreds + more
    policy = Policy(workers_min=1, workers_max=10, drain_seconds=drain, cool_down_seconds=cool_down)
    team = Team(policy, steady(rate))
    team.add(backlog)
    team.run(9_000)
    changes = len(team.changes)
    team.run(1_800)
    assert len(team.changes) == changes, team.changes
    assert math.ceil(rate / team.rate) <= team.workers <= math.ceil(rate / team.rate / 0.8) + 1
    assert team.backlog <= rate * drain


def test_it_rises_at_once_by_as_many_as_the_backlog_needs() -> None:
    team = Team(POLICY, steady(0))
    team.add(30_000)
    team.run(30)
    # 30,000 within 60 s, of which each does 100 a second.
    assert [(before, after) for _, before, after, _ in team.changes] == [(1, 5)]
    assert "29,300 to read take 293 s" in team.changes[0][3]


def test_each_one_less_waits_for_a_cool_down_of_its_own() -> None:
    team = Team(POLICY, steady(50))
    team.add(30_000)
    team.run(1_500)
    falls = [at for at, before, after, _ in team.changes if after < before]
    assert (len(falls), team.workers) == (5, 1)
    assert all(later - sooner >= POLICY.cool_down_seconds for sooner, later in itertools.pairwise(falls))


def test_a_backlog_that_drains_in_time_is_no_reason() -> None:
    team = Team(POLICY, steady(0))
    team.add(5_500)
    team.run(120)
    assert (team.changes, team.backlog) == ([], 0)


def test_more_than_the_partitions_would_have_nothing_to_do() -> None:
    team = Team(POLICY, steady(700), partitions=3)
    team.run(600)
    assert team.workers == 3
    assert max(after for _, _, after, _ in team.changes) == 3


def test_a_backlog_of_one_partition_is_not_helped_by_more_workers() -> None:
    run = Seen(POLICY)
    for _ in range(60):
        run.pass_time(5.0, 500, 2_000)
        decision = run.look(run.load(members=1, backlogged=1))
    assert decision.desired == 1
    assert decision.reason.endswith("; 1 of 12 partitions have something to read")


def test_it_rises_before_the_target_is_missed_when_more_comes_in_than_is_handled() -> None:
    team = Team(POLICY, steady(500))
    team.run(11)
    ((_, before, after, reason),) = team.changes
    assert 1 == before < after
    assert "take 43 s" in reason


def test_a_crash_is_no_reason_for_more() -> None:
    team = Team(Policy(workers_min=1, workers_max=8, cool_down_seconds=300), steady(150))
    team.run(900)
    changes = list(team.changes)
    for _ in range(10):
        team.crash()
        team.run(60)
    assert team.changes == changes


def test_a_look_that_took_long_says_nothing_of_how_fast_a_worker_is() -> None:
    # A broker is away: the first look takes 6 s, in which positions are read at once, and a worker does 100 a second.
    run = Seen(Policy(workers_min=1, workers_max=8, drain_seconds=8.0))
    run.pass_time(0.0, 0, 3_000)
    before = run.load(members=1, backlogged=12)
    run.pass_time(6.0, 600, 0)
    run.look(before, took=6.0)
    run.pass_time(1.0, 100, 0)
    run.look(run.load(members=1, backlogged=12), took=0.1)
    assert run.scale.paces["billing"].per_worker == 0.0, "700 in one second"
    run.pass_time(1.0, 100, 0)
    decision = run.look(run.load(members=1, backlogged=12), took=0.1)
    assert run.scale.paces["billing"].per_worker == pytest.approx(100)
    assert decision.desired == 3


def test_looks_that_always_take_long_tell_how_fast_a_worker_is_after_some_of_them() -> None:
    run = Seen(POLICY)
    run.pass_time(0.0, 0, 30_000)
    for _ in range(10):
        run.look(run.load(members=1, backlogged=12), took=4.0)
        assert "nothing was handled" not in run.decisions[-1][1].reason
        run.pass_time(5.0, 500, 0)
    assert run.scale.paces["billing"].per_worker == pytest.approx(100)
    assert run.workers == 5


def test_what_waits_for_a_backend_or_a_bound_asks_for_nothing() -> None:
    run = Seen(POLICY)
    for _ in range(100):
        run.pass_time(5.0, 100, 5_000)
        decision = run.look(run.load(members=1, backlogged=12, obstacle="backend away"))
    assert decision.desired == 1
    assert decision.reason == "billing: backend away"


def test_what_handles_nothing_at_all_asks_for_nothing() -> None:
    run = Seen(POLICY)
    run.pass_time(5.0, 0, 10_000)
    for _ in range(4):
        run.look(run.load(members=1, backlogged=12))
        run.pass_time(5.0, 500, 0)
    workers = run.workers
    for _ in range(100):
        decision = run.look(run.load(members=workers, backlogged=12))
        run.pass_time(5.0, 0, 200)
    assert decision.desired == workers == 2
    assert "nothing was handled for 495 s" in decision.reason


def test_a_single_record_that_takes_for_ever_keeps_no_workers() -> None:
    run = Seen(POLICY)
    run.pass_time(5.0, 0, 30_000)
    while run.passed < 29_999:
        run.look(run.load(members=run.workers, backlogged=12))
        run.pass_time(5.0, min(500 * run.workers, 29_999 - run.passed), 0)
    assert run.workers > 1
    for _ in range(500):
        run.look(run.load(members=run.workers, backlogged=1))
        run.pass_time(5.0, 0, 0)
    assert run.workers == 1


def test_handlers_that_are_slow_but_keep_up_ask_for_nothing() -> None:
    # Each takes ten seconds, so that 500 are always under way; as many are done as come in.
    run = Seen(POLICY)
    run.pass_time(10.0, 0, 500)
    for _ in range(200):
        run.look(run.load(members=1, backlogged=12))
        run.pass_time(5.0, 250, 250)
    assert run.workers == 1


def test_new_workers_are_waited_for_before_more_are_asked_for() -> None:
    team = Team(POLICY, burst(10, times=70, begin=50, seconds=300))
    team.run(50)
    team.join_seconds = 25.0
    team.run(300)
    rises = [at for at, before, after, _ in team.changes if after > before]
    assert len(rises) > 1
    assert all(later - sooner >= 25.0 for sooner, later in itertools.pairwise(rises))


@pytest.mark.parametrize(("others", "workers"), [(0, 5), (2, 3)])
def test_others_that_work_for_it_elsewhere_are_counted_in(others: int, workers: int) -> None:
    run = Seen(POLICY)
    run.pass_time(5.0, 0, 30_000)
    for _ in range(3):
        run.look(run.load(members=1 + others, backlogged=12))
        run.pass_time(5.0, 500 * (1 + others), 0)
    assert run.workers == workers


def test_a_reset_is_neither_progress_nor_arrivals() -> None:
    run = Seen(POLICY)
    run.pass_time(5.0, 0, 50_000)
    for _ in range(3):
        run.look(run.load(members=1, backlogged=12))
        run.pass_time(5.0, 5_000, 0)
    run.look(run.load(members=1, backlogged=12))
    pace = run.scale.paces["billing"]
    run.passed = 0
    run.pass_time(5.0, 0, 0)
    run.look(run.load(members=1, backlogged=12))
    after = run.scale.paces["billing"]
    assert (after.per_worker, after.added) == (pace.per_worker, 0.0)


@pytest.mark.parametrize(
    ("team", "seconds", "wait", "workers"),
    [
        (Team(POLICY, steady(250)), 3_600, 60, 3.0),
        (Team(POLICY, burst(50, times=10, begin=600, seconds=300)), 3_600, 60, 2.5),
        (Team(POLICY, day(40, 600)), 86_400, 60, 4.0),
    ],
    ids=["steady", "burst", "day"],
)
def test_under_patterns_of_real_load_nothing_waits_longer_than_the_target(
    team: Team, seconds: float, wait: float, workers: float
) -> None:
    team.run(seconds)
    assert team.worst_wait_seconds <= wait
    assert team.mean_workers <= workers
