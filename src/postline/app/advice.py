"""What is doubtful in what apps declare, each with its remedy: rules over the facts, and over what the log says now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from postline.app.explaining import Facts, SubscriptionFacts, TopicFacts
from postline.runtime.dedup import OWN_ID_WINDOW

__all__ = ["Advice", "Standing", "advice_on"]

#: From this part of a retention on, an age is near it.
_NEAR = 0.5


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that may lose order, do something twice, or lose records, and what can be done about it."""

    #: One of the codes in docs/howto/explain.md.
    code: str
    #: The subscription or topic.
    about: str
    said: str
    remedy: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a subscription stands on a log now."""

    lag_seconds: float
    #: Its topic's, as the log has it; None for one that keeps everything.
    retention_seconds: float | None
    #: None where there are none.
    oldest_dead_letter_seconds: float | None
    dead_letters_kept_seconds: float | None


def advice_on(facts: Facts, standings: Mapping[str, Standing], read_elsewhere: Mapping[str, set[str]]) -> list[Advice]:
    """Everything that is doubtful, by subscription and topic.

    `standings` are by subscription, as far as there is a log; `read_elsewhere` are, by topic, the types that other
    services are known to read.
    """
    found: list[Advice] = []
    for each in facts.subscriptions:
        found += [*_duplicates(each), *_order(each), *_windows(each)]
        found += _retention(each, next((topic for topic in facts.topics if topic.name == each.topic), None))
        if (standing := standings.get(each.name)) is not None:
            found += _standing(each, standing)
    for topic in facts.topics:
        found += _unread(topic, read_elsewhere.get(topic.name, set()))
    return found


def _duplicates(each: SubscriptionFacts) -> Iterator[Advice]:
    if each.foreign and each.dedup == "own ids" and not _answers(each):
        yield Advice(
            code="no-dedup",
            about=each.name,
            said=f"Topic {each.topic!r} is written by others, whose repetitions nobody marks, and nothing drops them.",
            remedy="Say what tells a duplicate: dedup=Dedup(by_id=True), Dedup(field=…) or Dedup(digest=True); "
            "or make the handlers do no harm when they run twice.",
        )


def _answers(each: SubscriptionFacts) -> bool:
    return any(handler.kind == "reply" for handler in each.handlers)


def _order(each: SubscriptionFacts) -> Iterator[Advice]:
    if not each.keyed or all(handler.kind in ("task", "command", "query", "schedule") for handler in each.handlers):
        return
    if each.order == "none":
        yield Advice(
            code="order-lost",
            about=each.name,
            said=f'order="none" handles records of one key of {each.topic!r} in any order.',
            remedy='Leave it out (order="key"), unless every handler gives the same result in any order.',
        )
    elif each.after == "continue":
        yield Advice(
            code="order-lost",
            about=each.name,
            said='after="continue" handles later records of a key although an earlier one was given up.',
            remedy='Use after="hold", or see that a handler can do without what it did not get.',
        )
    if each.priorities:
        yield Advice(
            code="order-lost",
            about=each.name,
            said=f"Records of one key have an order within a priority of {each.topic!r}, and none between them.",
            remedy="Give all messages of a key one priority.",
        )


def _windows(each: SubscriptionFacts) -> Iterator[Advice]:
    longest = max((handler.retry.seconds_max for handler in each.handlers), default=0.0)
    window = each.dedup_window_seconds
    if window < longest:
        own = each.dedup == "own ids"
        yield Advice(
            code="window-short",
            about=each.name,
            said=f"Marks of {each.dedup} are kept for {_span(window)}, and a record may be tried for {_span(longest)}.",
            remedy=f"Shorten the ladder: marks of own ids are kept for {OWN_ID_WINDOW[0].days} days."
            if own
            else "Make the window longer than the ladder: Dedup(window=…).",
        )


def _retention(each: SubscriptionFacts, topic: TopicFacts | None) -> Iterator[Advice]:
    longest = max((handler.retry.seconds_max for handler in each.handlers), default=0.0)
    if topic is not None and topic.retention_seconds is not None and topic.retention_seconds < longest:
        yield Advice(
            code="retention-short",
            about=each.name,
            said=f"Topic {topic.name!r} keeps records for {_span(topic.retention_seconds)}, and one may be tried for"
            f" {_span(longest)}: what waits behind it, beyond what a partition holds, may be lost to retention.",
            remedy="Keep the topic longer than the ladder: Topic(retention=…); or shorten the ladder.",
        )


def _standing(each: SubscriptionFacts, now: Standing) -> Iterator[Advice]:
    kept = now.retention_seconds
    if kept is not None and now.lag_seconds > kept * _NEAR:
        yield Advice(
            code="retention-near",
            about=each.name,
            said=f"It is {_span(now.lag_seconds)} behind, and {each.topic!r} keeps records for {_span(kept)}.",
            remedy="Find out what holds it up (`postline lag`), add workers, or keep the topic longer.",
        )
    oldest, kept = now.oldest_dead_letter_seconds, now.dead_letters_kept_seconds
    if oldest is not None and kept is not None and oldest > kept * _NEAR:
        yield Advice(
            code="dead-letters-old",
            about=each.name,
            said=f"Its oldest dead letter is {_span(oldest)} old; full copies are kept for {_span(kept)}.",
            remedy="Redrive or discard: `postline dlq`.",
        )


def _unread(topic: TopicFacts, read_elsewhere: set[str]) -> Iterator[Advice]:
    for name in topic.unhandled:
        if name not in read_elsewhere:
            yield Advice(
                code="nobody-consumes",
                about=topic.name,
                said=f"Nobody is known to handle {name!r}.",
                remedy="Name the apps that do beside this one, or the log that they run on (--url); else leave it out.",
            )


def _span(seconds: float) -> str:
    for size, unit in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
