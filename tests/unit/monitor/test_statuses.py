"""One word for how a subscription is: which cause comes first, and that the reason says more."""

from __future__ import annotations

import pytest

from postline.monitor.statuses import Status, partition_status, subscription_status
from postline.monitor.trends import Trend
from postline.runtime.progress import Standing

FULL, BOUND, HOLDING = Standing(pauses=["held records"], blocked=7), Standing(pauses=["bound"]), Standing(holding=2)


def status(
    standing: Standing | None = None, trend: Trend = Trend.OK, *, owned: bool = True, paused: bool = False
) -> Status:
    return partition_status(
        standing or Standing(), trend, owned=owned, paused=paused, lag_records=1_500, lag_seconds=61.2
    )


@pytest.mark.parametrize(
    ("found", "name", "reason"),
    [
        (status(), "ok", ""),
        (status(FULL, Trend.STALLED, owned=False, paused=True), "paused", "operator"),
        (status(FULL, Trend.STALLED, owned=False), "no member", "no worker has it"),
        (status(FULL, Trend.STALLED), "held by a key", "it holds 7 records, as many as it may: they wait for retries"),
        (status(Standing(pauses=["held records"], blocked=7, holding=1)), "held by a key", "redrive or discard"),
        (status(BOUND, Trend.STALLED), "waits for a bound", "over its bound"),
        (status(HOLDING, Trend.STALLED), "stalled", "1,500 records wait, the oldest for 61 s"),
        (status(HOLDING, Trend.REWOUND), "rewound", "1,500 records to read again"),
        (status(HOLDING, Trend.GROWING), "growing", "more come than are settled"),
        (status(HOLDING), "held by a key", "dead letters hold 2 keys"),
        (status(Standing(holding=1)), "held by a key", "dead letters hold 1 key:"),
        (status(Standing(pauses=["window"])), "ok", ""),
    ],
)
def test_the_cause_that_explains_most_comes_first(found: Status, name: str, reason: str) -> None:
    assert found.name == name
    assert reason in found.reason
    assert bool(found.reason) == bool(reason)


SEVERITIES = {"stalled": 5, "growing": 3, "held by a key": 1}


def named(*names: str) -> list[tuple[int, Status]]:
    return [(number, Status(name, f"because {name}", SEVERITIES.get(name, 0))) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("names", "served", "name", "reason"),
    [
        ([], True, "ok", ""),
        ([], False, "no member", "no worker is there"),
        (["ok", "ok"], True, "ok", ""),
        (["paused", "paused"], False, "paused", "an operator paused it"),
        (["paused", "ok"], True, "partly paused", "an operator paused some partitions"),
        (["paused", "ok"], False, "no member", "no worker is there"),
        (["growing", "stalled", "ok"], True, "stalled", "partition 1: because stalled"),
        (["ok", "growing", "growing", "growing"], True, "growing", "partition 1 (and 2 others): because growing"),
        (["held by a key", "growing"], True, "growing", "partition 1: because growing"),
        (["growing"], True, "growing", "because growing"),
    ],
)
def test_a_subscription_is_as_its_worst_partition(names: list[str], served: bool, name: str, reason: str) -> None:
    assert subscription_status(named(*names), served=served)[:2] == (name, reason)
