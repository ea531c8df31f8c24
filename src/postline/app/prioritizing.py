"""Subscriptions to topics with priorities, as the plans of all their siblings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace

from postline.clock import Clock
from postline.contracts import ForeignTopic, Topic
from postline.contracts.priorities import NORMAL, sibling_name
from postline.events import Subscription
from postline.runtime.crew import Crew, crew_of
from postline.runtime.limits import Limiter
from postline.runtime.plan import Plan

__all__ = ["crews_of", "doubled", "renamings", "sibling_of", "sibling_plans", "with_siblings"]


def with_siblings(topics: Sequence[Topic]) -> list[Topic]:
    """The topics, each with those of its other priorities."""
    return [sibling for topic in topics for sibling in (topic.siblings.values() or (topic,))]


def sibling_plans(plan: Plan, topic: Topic | ForeignTopic, full_name: Callable[[str], str]) -> list[Plan]:
    """One plan for each priority of the topic, from the highest to the lowest; the plan alone where there are none."""
    plan = replace(plan, declared_as=plan.name)
    return [
        replace(
            plan,
            name=sibling_name(plan.name, priority),
            topic=full_name(sibling.name),
            aliases=tuple(sibling_name(alias, priority) for alias in plan.aliases),
            priority=sibling.priority,
        )
        for priority, sibling in topic.siblings.items()
    ] or [plan]


def renamings(subscriptions: Iterable[Subscription], full_name: Callable[[str], str]) -> dict[str, str]:
    """By former full names what subscriptions are called, those of all priorities."""
    return {
        sibling_name(full_name(old), priority): sibling_name(full_name(each.name), priority)
        for each in subscriptions
        for old in each.policy.aliases
        for priority in each.topic.siblings or (NORMAL,)
    }


def sibling_of(subscriptions: Mapping[str, Subscription], name: str) -> Subscription | None:
    """The sibling that has a name such as `billing.high`, as if it had been declared by itself."""
    declared, _, priority = name.rpartition(".")
    of = subscriptions.get(declared)
    if of is None or priority not in of.topic.siblings:
        return None
    sibling = copy(of)
    sibling.name, sibling.topic = name, of.topic.siblings[priority]
    return sibling


def doubled(plans: Sequence[Plan]) -> list[str]:
    """Names that two plans have, in sentences: a subscription may be called as another one's sibling."""
    names = [plan.name for plan in plans]
    return [
        f"Subscription {name!r} is declared, and is that of a priority of another one, too; rename one."
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def crews_of(plans: Sequence[Plan], clock: Clock, door: Limiter | None) -> dict[str, Crew]:
    """The workers of each declaration, by its name: siblings share them."""
    together: dict[str, list[Plan]] = {}
    for plan in plans:
        together.setdefault(plan.declared_as, []).append(plan)
    return {name: crew_of(siblings, clock, door) for name, siblings in together.items()}
