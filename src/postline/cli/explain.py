"""`postline explain`: what apps do with each message, at worst, and what is doubtful in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from postline.app.advice import Advice, Standing, advice_on
from postline.app.explaining import BreakerFacts, Facts, HandlerFacts, RetryFacts, SubscriptionFacts, facts_of
from postline.cli.failures import NEGATIVE, OK, alarm
from postline.cli.loading import load_apps
from postline.cli.opening import Opened, settings_for, url_option, with_log
from postline.cli.output import duration, emit_json, json_option, plain, wants_json
from postline.errors import LogUnavailable
from postline.log.port import TopicSpec
from postline.runtime.plan import DEAD_LETTER_SUFFIX

__all__ = ["command"]

_EPILOG = """\b
Examples:
  postline explain shop:app billing:app
  postline explain shop:app --strict          in CI: exit code 1 if anything is doubtful, a line for each on stderr
  postline explain shop:app --url kafka://broker:9092 --json | jq '.warnings'
"""


class _Explained(Facts, frozen=True, kw_only=True):
    """What is written as JSON."""

    #: By subscription; {} where there is no log.
    standings: dict[str, Standing]
    warnings: list[Advice]


@click.command(epilog=_EPILOG)
@click.argument("targets", metavar="APP...", nargs=-1, required=True)
@click.option("--strict", is_flag=True, help="Exit with 1 if there is a warning.")
@click.option("--declared", is_flag=True, help="Only what the code says: open no log.")
@json_option
@url_option
def command(targets: tuple[str, ...], strict: bool, declared: bool, as_json: bool | None, url: str | None) -> int:
    """Explain what apps do with each message: order, attempts at worst, duplicates, outputs, and what may happen twice.

    APP is module:name, or a file. What is doubtful comes last, each with its remedy. If there is a log,
    retention is held against how far subscriptions are behind, and other services' readers are known.
    """
    facts = facts_of(load_apps(targets))
    standings, elsewhere = ({}, {}) if declared else _look(facts, url)
    warnings = advice_on(facts, standings, elsewhere)
    if wants_json(as_json):
        emit_json(
            _Explained(
                subscriptions=facts.subscriptions,
                topics=facts.topics,
                schedules=facts.schedules,
                standings=standings,
                warnings=warnings,
            )
        )
        for warning in warnings if strict else ():  # for whoever reads why a check of theirs failed
            alarm(f"{_warned(warning)} fix: {plain(warning.remedy)}", "warning")
    else:
        _tell(facts, standings, warnings)
    return NEGATIVE if strict and warnings else OK


# -- the log ------------------------------------------------------------------------------------------------


def _look(facts: Facts, url: str | None) -> tuple[dict[str, Standing], dict[str, set[str]]]:
    """How the subscriptions stand, and which types of which topics others read; nothing where there is no log yet."""
    where = settings_for(url).url
    if where.in_memory or (where.path is not None and not Path(where.path).exists()):
        return {}, {}

    async def work(opened: Opened) -> tuple[dict[str, Standing], dict[str, set[str]]]:
        specs = {spec.name: spec for spec in await opened.log.topics()}
        there = {info.name for info in await opened.log.subscriptions()}
        standings = {
            each.name: await _standing(opened, specs, full, opened.settings.full_name(each.topic))
            for each in facts.subscriptions
            if (full := opened.settings.full_name(each.name)) in there
        }
        read: dict[str, set[str]] = {}
        names = {opened.settings.full_name(topic.name): topic.name for topic in facts.topics}
        for view in await opened.views():
            if view.topic in names:
                read.setdefault(names[view.topic], set()).add(view.type)
        return standings, read

    try:
        return with_log(url, work)
    except LogUnavailable as error:
        click.echo(f"warning: what the log says is left out: {error.message}", err=True)
        return {}, {}


async def _standing(opened: Opened, specs: dict[str, TopicSpec], name: str, topic: str) -> Standing:
    now = await opened.monitor.subscription(name)
    oldest = None
    if now.dead_letters:
        failed = min(letter.failed_ms for letter in await opened.monitor.dead_letters(name))
        oldest = (opened.clock.now_ms() - failed) / 1000
    return Standing(
        lag_seconds=now.lag_seconds,
        retention_seconds=_kept(specs.get(topic)),
        oldest_dead_letter_seconds=oldest,
        dead_letters_kept_seconds=_kept(specs.get(name + DEAD_LETTER_SUFFIX)),
    )


def _kept(spec: TopicSpec | None) -> float | None:
    return None if spec is None or spec.retention_ms is None else spec.retention_ms / 1000


# -- for people ---------------------------------------------------------------------------------------------


def _tell(facts: Facts, standings: dict[str, Standing], warnings: Sequence[Advice]) -> None:
    for each in facts.subscriptions:
        _tell_subscription(each, standings.get(each.name))
    for topic in facts.topics:
        kept = "for ever" if topic.retention_seconds is None else f"for {duration(topic.retention_seconds)}"
        how = "the newest of each key, " if topic.compacted else ""
        _say(f"topic {topic.name} of {topic.owner}: {topic.partitions} partitions, keeps {how}{kept}")
        _say(f"  types        {', '.join(topic.types) or 'none'}")
    for schedule in facts.schedules:
        _say(f"schedule {schedule.name} of {schedule.service}: {schedule.rule}, missed runs: {schedule.missed}")
    _say("")
    for warning in warnings:
        _say(f"warning {_warned(warning)}")
        _say(f"  fix: {warning.remedy}")
    _say(f"{len(warnings)} warning{'s' * (len(warnings) != 1)}" if warnings else "Nothing is doubtful.")


def _warned(warning: Advice) -> str:
    return plain(f"[{warning.code}] {warning.about}: {warning.said}")


def _tell_subscription(each: SubscriptionFacts, standing: Standing | None) -> None:
    _say(f"subscription {each.name} of {each.service}, on topic {each.topic}")
    _say(f"  order        {_order(each)}")
    _say(f"  duplicates   dropped by {each.dedup}, for {duration(each.dedup_window_seconds)} at least")
    _say(f"  dead letters {_dead_letters(each)}")
    if standing is not None:
        _say(f"  now          {duration(standing.lag_seconds)} behind")
    for handler in each.handlers:
        _tell_handler(handler)
    _say("")


def _tell_handler(each: HandlerFacts) -> None:
    _say(f"  {each.kind} {each.message} -> {each.function}")
    _say(f"    attempts   {_ladder(each.retry)}{_limit(each)}")
    if each.breaker is not None:
        _say(f"    breaker    {_breaker(each.breaker)}")
    outputs = [*each.returns, *(f"anything of {name}" for name in each.may_publish_to)]
    _say(f"    publishes  {', '.join(outputs) or 'nothing'}")
    for line in each.effects_twice:
        _say(f"    twice      {line}")


def _order(each: SubscriptionFacts) -> str:
    if each.order == "none" or not each.keyed:
        return f"none; {each.concurrency} at once in each process"
    held = "the key waits behind a dead letter" if each.after == "hold" else "later records go on after a dead letter"
    of = "of a key" if each.order == "key" else "of a partition"
    batch = f", up to {each.batch} in a call" if each.batch else ""
    return f"{of}; {each.concurrency} at once in each process{batch}; {held}"


def _ladder(retry: RetryFacts) -> str:
    delays = ", ".join(duration(seconds) for seconds in retry.delays_seconds)
    steps = [f"{retry.immediate} at once"] * bool(retry.immediate) + [f"after {delays}"] * bool(delays)
    more = f" (then {'; '.join(steps)})" if steps else ""
    return f"{retry.attempts_max} at most{more}, over {duration(retry.seconds_max)}"


def _breaker(breaker: BreakerFacts) -> str:
    errors = "" if breaker.errors == ["Exception"] else f" of {', '.join(breaker.errors)}"
    probes = f"every {duration(breaker.probe_seconds)} to {duration(breaker.probe_seconds_max)}"
    return (
        f"opens after {breaker.failures} failures in a row{errors}; then one attempt {probes}, and nothing is given up"
    )


def _dead_letters(each: SubscriptionFacts) -> str:
    age, count = each.dead_letters_alarm_seconds, each.dead_letters_alarm_count
    alarms = ([f"more than {count}"] if count is not None else []) + ([f"older than {duration(age)}"] if age else [])
    ends = each.dead_letters_discarded_seconds
    found = [f"discarded after {duration(ends)}"] if ends else ["kept until somebody disposes of them"]
    return "; ".join(found + [f"an alarm if {' or '.join(alarms)}"] * bool(alarms))


def _limit(each: HandlerFacts) -> str:
    return "" if each.timeout_seconds is None else f", each of {duration(each.timeout_seconds)} at most"


def _say(line: str) -> None:
    click.echo(plain(line))
