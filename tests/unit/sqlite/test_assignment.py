"""The target of an assignment: balanced, sticky, the same for everyone."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from postline.log.sqlite.assignment import target

MEMBERS = st.lists(st.text(alphabet="abcdef", min_size=1, max_size=4), unique=True, max_size=6)


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[int, str | None], list[str]]:
    members = draw(MEMBERS)
    gone = draw(MEMBERS)
    owners = st.none() | st.sampled_from(members + gone) if members + gone else st.none()
    current = draw(st.dictionaries(st.integers(0, 40), owners, max_size=24))
    return current, members


@given(situations(), st.text(max_size=5))
def test_every_partition_goes_to_a_live_member_in_equal_shares(
    situation: tuple[dict[int, str | None], list[str]], salt: str
) -> None:
    current, members = situation
    result = target(current, members, salt)
    assert result.keys() == current.keys()
    if not members:
        assert set(result.values()) <= {None}
        return
    shares = Counter(dict.fromkeys(members, 0))
    shares.update(owner for owner in result.values() if owner is not None)
    assert set(shares) == set(members)
    assert sum(shares.values()) == len(current)
    assert max(shares.values()) - min(shares.values()) <= 1


@given(situations(), st.text(max_size=5))
def test_no_partition_moves_that_need_not(situation: tuple[dict[int, str | None], list[str]], salt: str) -> None:
    current, members = situation
    result = target(current, members, salt)
    moved = sum(1 for partition in current if result[partition] != current[partition])
    if not members:
        return
    had = sorted((sum(1 for owner in current.values() if owner == member) for member in members), reverse=True)
    share, larger = divmod(len(current), len(members))
    # The best that any balanced assignment can keep: the larger shares for those that have most.
    best = sum(min(count, share + (place < larger)) for place, count in enumerate(had))
    assert moved == len(current) - best


@given(situations(), st.text(max_size=5))
def test_the_target_is_stable_and_independent_of_the_members_order(
    situation: tuple[dict[int, str | None], list[str]], salt: str
) -> None:
    current, members = situation
    once = target(current, members, salt)
    assert target(once, members, salt) == once
    assert target(current, list(reversed(members)), salt) == once


def test_single_partitions_of_many_subscriptions_do_not_all_go_to_one_member() -> None:
    firsts = {target({0: None}, ["left", "right"], f"subscription-{number}")[0] for number in range(50)}
    assert firsts == {"left", "right"}
