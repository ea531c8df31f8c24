"""Why a subscription doesn't go on: what its owners wrote into partition state, and what the figures say."""

from __future__ import annotations

from collections.abc import Sequence

from postline.log.port import PartitionInfo
from postline.monitor.statuses import HELD
from postline.monitor.views import CauseView, SubscriptionView
from postline.runtime.progress import Cause, Standing

__all__ = ["causes_of", "standing_causes"]


def causes_of(stored: Sequence[PartitionInfo], standings: Sequence[Standing]) -> list[CauseView]:
    """What the partitions' owners say stands in the way now; of those that are gone, what stood when they went."""
    found: dict[tuple[str, str], tuple[Cause, list[int]]] = {}
    for each, standing in zip(stored, standings, strict=True):
        for cause in standing.causes:
            if cause.kind == "handler" and not each.owner:
                continue  # it ended with its process
            first, partitions = found.setdefault((cause.kind, cause.name), (cause, []))
            partitions.append(each.partition)
            if cause.since_ms < first.since_ms:
                found[cause.kind, cause.name] = (cause, partitions)
    return [
        CauseView(kind=kind, name=name, since_ms=cause.since_ms, detail=cause.detail, partitions=partitions)
        for (kind, name), (cause, partitions) in sorted(found.items())
    ]


def standing_causes(view: SubscriptionView) -> list[CauseView]:
    """Why a subscription that lags may handle nothing: all that is known to stand in its way, else "unknown"."""
    lagging = [each for each in view.partitions if each.lag_records]
    unowned = [each.partition for each in lagging if not each.owner]
    paused = [each.partition for each in view.partitions if each.paused]
    found = [_simple("no member", unowned)] if unowned or not view.members else []
    found += [_simple("paused", paused)] if paused else []
    found += view.causes
    if view.held:
        held = [each.partition for each in view.partitions if each.held]
        what = f"{view.retrying} records retry, {view.blocked} wait behind others of their key"
        found.append(_simple("held", held, f"{what}; {view.dead_letters} dead letters"))
    if view.unserved:
        held = [each.partition for each in view.partitions if each.unserved]
        found.append(_simple("unserved", held, f"{view.unserved} records wait for a version with a handler for them"))
    # What is held keeps back later records of its keys alone, unless a partition holds as much as it may.
    known = {number for cause in found if cause.kind not in ("held", "unserved") for number in cause.partitions}
    stopped = known | {each.partition for each in view.partitions if each.held and each.status == HELD}
    unknown = [each.partition for each in lagging if each.partition not in stopped]
    if unknown or not found:
        where = f" in partitions {', '.join(map(str, unknown))}" if found else ""
        found.append(_simple("unknown", unknown, f"nothing is known to stand in its way{where}"))
    return found


def _simple(kind: str, partitions: list[int], detail: str = "") -> CauseView:
    return CauseView(kind=kind, name="", since_ms=None, detail=detail, partitions=partitions)
