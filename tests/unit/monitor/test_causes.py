"""Why a subscription stands still: what is held is no reason for the lag of a partition that may hold more."""

from __future__ import annotations

import pytest

from postline.monitor.causes import standing_causes
from postline.monitor.views import MemberView, PartitionView, SubscriptionView

ZERO = {
    "reason": "",
    "overtaken": 0,
    "unserved": 0,
    "dead_letters": 0,
    "holding": 0,
    "next_attempt_ms": None,
}


def partition(number: int, *, lag: int, retrying: int, status: str, owner: str = "worker") -> PartitionView:
    return PartitionView(
        partition=number,
        status=status,
        position=0,
        end=lag,
        lag_records=lag,
        lag_seconds=9.0,
        ahead=0,
        retrying=retrying,
        blocked=0,
        paused=False,
        owner=owner,
        epoch=1,
        **ZERO,  # type: ignore[arg-type]
    )


def billing(*partitions: PartitionView) -> SubscriptionView:
    held = sum(each.held for each in partitions)
    return SubscriptionView(
        name="billing",
        topic="shop.orders",
        service="shop",
        created_ms=0,
        status="stalled",
        lag_records=sum(each.lag_records for each in partitions),
        lag_seconds=9.0,
        held=held,
        retrying=held,
        blocked=0,
        topic_partitions=len(partitions),
        beyond=0,
        members=[MemberView(member="worker", instance="host", joined_ms=0, partitions=[0, 1])],
        partitions=list(partitions),
        **ZERO,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("partitions", "kinds"),
    [
        (
            [partition(0, lag=0, retrying=1, status="ok"), partition(1, lag=20, retrying=0, status="ok")],
            "held, unknown",
        ),
        ([partition(0, lag=20, retrying=1, status="stalled")], "held, unknown"),
        ([partition(0, lag=20, retrying=9, status="held by a key")], "held"),
        ([partition(0, lag=20, retrying=0, status="ok")], "unknown"),
        ([partition(0, lag=20, retrying=1, status="no member", owner="")], "no member, held"),
    ],
)
def test_a_lag_that_nothing_known_explains_is_said_to_be_unknown(partitions: list[PartitionView], kinds: str) -> None:
    causes = standing_causes(billing(*partitions))
    assert [each.kind for each in causes] == kinds.split(", ")
    if kinds == "held, unknown":
        stands = [each.partition for each in partitions if each.lag_records]
        assert causes[-1].partitions == stands
        assert causes[-1].said == f"nothing is known to stand in its way in partitions {stands[0]}"
