"""What subscriptions have to do, out of the read model."""

from __future__ import annotations

from typing import Any

from postline.monitor import CauseView, MemberView, PartitionView, PriorityView, SubscriptionView, loads_of


def partition(number: int, *, position: int = 10, end: int = 10, ahead: int = 0, paused: bool = False) -> PartitionView:
    return PartitionView(
        partition=number,
        status="ok",
        reason="",
        position=position,
        end=end,
        lag_records=end - position - ahead,
        lag_seconds=0.0,
        overtaken=0,
        ahead=ahead,
        retrying=0,
        blocked=0,
        unserved=0,
        dead_letters=0,
        holding=0,
        next_attempt_ms=None,
        paused=paused,
        owner="",
        epoch=1,
    )


def subscription(name: str, *partitions: PartitionView, members: int = 1, **more: Any) -> SubscriptionView:
    return SubscriptionView(
        name=name,
        topic="shop.orders",
        service="shop",
        created_ms=0,
        status="ok",
        reason="",
        lag_records=sum(each.lag_records for each in partitions),
        lag_seconds=0.0,
        overtaken=0,
        held=0,
        retrying=0,
        blocked=0,
        unserved=0,
        dead_letters=0,
        holding=0,
        next_attempt_ms=None,
        topic_partitions=len(partitions),
        beyond=0,
        members=[MemberView(member=str(at), instance="", joined_ms=0, partitions=[]) for at in range(members)],
        partitions=list(partitions),
        **more,
    )


def test_what_is_done_ahead_of_the_position_is_no_backlog() -> None:
    (load,) = loads_of([subscription("billing", partition(0, end=30, ahead=5), partition(1))])
    assert (load.backlog, load.backlogged, load.partitions, load.passed, load.end) == (15, 1, 2, 25, 40)


def test_partitions_that_are_paused_have_nothing_to_do_and_their_end_counts_all_the_same() -> None:
    (load,) = loads_of([subscription("billing", partition(0, end=30, paused=True), partition(1, end=12))])
    assert (load.backlog, load.backlogged, load.end) == (2, 1, 42)


def test_subscriptions_that_nobody_serves_keep_no_workers() -> None:
    assert loads_of([subscription("old", partition(0, end=1_000_000), members=0)]) == ()


def test_the_priorities_of_a_topic_are_one_as_they_have_one_crew() -> None:
    views = [
        subscription(
            f"billing.{name}",
            partition(0, end=end),
            partition(1),
            members=2,
            priority=PriorityView(declared_as="billing", name=name, rank=rank, share=0.0),
        )
        for rank, (name, end) in enumerate([("high", 12), ("low", 40)])
    ]
    (load,) = loads_of(views)
    assert (load.name, load.backlog, load.backlogged, load.partitions, load.members) == ("billing", 32, 1, 2, 2)


def test_what_more_workers_would_not_mend_is_named() -> None:
    def cause(kind: str) -> CauseView:
        return CauseView(kind=kind, name="shop.Paid", since_ms=None, detail="nobody is there", partitions=[0])

    (load,) = loads_of([subscription("billing", partition(0), causes=[cause("handler"), cause("breaker")])])
    assert load.obstacle == "breaker open for shop.Paid"
    (load,) = loads_of([subscription("billing", partition(0), causes=[cause("handler")])])
    assert load.obstacle == ""
