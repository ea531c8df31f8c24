"""Whether a trial's journals, a reader's polls, the audit and the state show every guarantee kept."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from postline.clock import SystemClock
from postline.log.port import Log
from postline.monitor import Monitor
from postline.runtime.entries import USER_STATE
from tests.fault.journal import Entry, entries
from tests.fault.kafka.plan import Plan
from tests.fault.kafka.reader import Seen
from tests.fault.kafka.services import SUBSCRIPTIONS, Invoice, Ledger, Order, invoices, orders
from tests.fault.kafka.trial import Trial
from tests.fault.listappend import Effect, Input, Operation, Poll, Send, check_history, check_processing

__all__ = ["Verdict", "judge", "judged"]


@dataclass
class Verdict:
    """What is wrong, and what was seen."""

    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([*self.problems[:20], f"{len(self.problems)} problems; {self.figures}"])


async def judge(directory: Path, log: Log, polls: Sequence[Sequence[Seen]]) -> Verdict:
    """Everything that the guarantees say about a trial that has come to rest and was read to its end."""
    plan, verdict = Plan.load(directory), Verdict()
    read = _Read(polls)
    history = [*_sends_of_orders(directory), *_sends_of_invoices(directory), *_polls(polls)]
    history.sort(key=lambda timed: timed[0])
    verdict.problems += map(str, check_history([operation for _, operation in history]).anomalies)
    handled = read.handled(plan)
    inputs = [Input(at[0], at[1], order.customer) for at, order in handled.items()]
    verdict.problems += map(str, check_processing(inputs, read.effects()).anomalies)
    verdict.problems += _totals(read)
    verdict.problems += await _states(log, handled.values())
    verdict.problems += await _audits(log, read, len(handled), verdict)
    verdict.figures |= _figures(directory, read)
    return verdict


async def judged(trial: Trial) -> Verdict:
    """Bring a trial to rest, read it to its end, and judge it; AssertionError with the seed if anything is wrong."""
    await trial.come_to_rest()
    polls = await asyncio.to_thread(trial.reader.finish)
    (trial.directory / "polls.json").write_bytes(msgspec.json.encode(polls))
    async with trial.log() as log:
        verdict = await judge(trial.directory, log, polls)
    assert not verdict.problems, f"seed {trial.plan.seed}, history in {trial.directory}: {verdict}"
    return verdict


class _Read:
    """What a reader of committed records saw."""

    def __init__(self, polls: Sequence[Sequence[Seen]]) -> None:
        self.orders: dict[tuple[int, int], Order] = {}
        self.invoices: dict[tuple[int, int], Invoice] = {}
        for seen in (each for poll in polls for each in poll):
            at = (seen.partition, seen.offset)
            if seen.topic == orders.name:
                self.orders[at] = msgspec.json.decode(seen.value, type=Order)
            else:
                self.invoices[at] = msgspec.json.decode(seen.value, type=Invoice)
        #: Of each order the place of its first copy; the others are duplicates.
        self.first: dict[tuple[str, int], tuple[int, int]] = {}
        for at, order in sorted(self.orders.items()):
            self.first.setdefault((order.customer, order.number), at)

    def handled(self, plan: Plan) -> dict[tuple[int, int], Order]:
        """The orders that must have an effect, by their places."""
        kept = {at for of, at in self.first.items() if plan.mood(*of) != "thrown"}
        return {at: self.orders[at] for at in sorted(kept)}

    def effects(self) -> list[Effect]:
        """Each invoice, as the effect of its order's first copy."""
        found = []
        for place, invoice in self.invoices.items():
            of = (invoice.partition, invoice.offset)
            order = self.orders.get(of)
            first = self.first[order.customer, order.number] if order else of
            found.append(Effect(first, place))
        return found


def _sends_of_orders(directory: Path) -> Iterator[tuple[int, Operation]]:
    tries: dict[tuple[str, ...], Entry] = {}
    for entry in entries(directory, "publisher-*"):
        if entry.mark == "try":
            tries[entry.fields] = entry
        elif entry.mark == "ack":
            of, partition, offset = entry.fields[:3], *map(int, entry.fields[3:])
            del tries[of]
            yield entry.time_ns, _send_of_order(entry, of, partition, offset)
    partitions = {fields[0]: int(fields[3]) for fields in _marked(directory, "publisher-*", "ack")}
    for of, entry in tries.items():
        if of[0] in partitions:
            yield entry.time_ns, _send_of_order(entry, of, partitions[of[0]], None)


def _marked(directory: Path, slots: str, mark: str) -> list[tuple[str, ...]]:
    return [entry.fields for entry in entries(directory, slots) if entry.mark == mark]


def _send_of_order(entry: Entry, of: tuple[str, ...], partition: int, offset: int | None) -> Send:
    outcome = "unknown" if offset is None else "ok"
    process = f"{entry.process}/{of[0]}"  # each customer's orders are published one after another
    return Send(process, f"{orders.name}/{partition}", ("order", of[0], int(of[1]), int(of[2])), outcome, offset)  # type: ignore[arg-type]


def _sends_of_invoices(directory: Path) -> Iterator[tuple[int, Operation]]:
    """What each attempt would publish; whether it was stored only its transaction knows."""
    for entry in entries(directory, "worker-*"):
        if entry.mark == "ok":
            run, _, _, partition, *_ = entry.fields
            yield entry.time_ns, Send(entry.process, f"{invoices.name}/{partition}", ("invoice", run), "unknown")


def _polls(polls: Sequence[Sequence[Seen]]) -> Iterator[tuple[int, Operation]]:
    for poll in polls:
        records = [(f"{seen.topic}/{seen.partition}", seen.offset, _value(seen)) for seen in poll]
        yield poll[0].time_ns, Poll("reader", records)


def _value(seen: Seen) -> tuple[object, ...]:
    if seen.topic == orders.name:
        order = msgspec.json.decode(seen.value, type=Order)
        return ("order", order.customer, order.number, order.copy)
    return ("invoice", msgspec.json.decode(seen.value, type=Invoice).run)


def _totals(read: _Read) -> Iterator[str]:
    """Each invoice's total is the sum so far: state and effects went on together."""
    sums = Counter[str]()
    for place, invoice in sorted(read.invoices.items()):
        sums[invoice.customer] += invoice.number + 1
        if invoice.total != sums[invoice.customer]:
            yield f"wrong-total: {invoice} at {place}, where the sum is {sums[invoice.customer]}"


async def _states(log: Log, handled: Sequence[Order] | Any) -> list[str]:
    expected: dict[str, Ledger] = defaultdict(Ledger)
    for order in sorted(handled, key=lambda each: each.number):
        before = expected[order.customer]
        expected[order.customer] = Ledger(before.count + 1, before.amount + order.number + 1, order.number)
    totals = {
        customer: msgspec.json.decode(data, type=int) for customer, data in (await _state(log, "billing")).items()
    }
    ledgers = {
        customer: msgspec.json.decode(data, type=Ledger) for customer, data in (await _state(log, "ledger")).items()
    }
    wanted = {customer: ledger.amount for customer, ledger in expected.items()}
    return [*_different("state of billing", wanted, totals), *_different("state of ledger", expected, ledgers)]


def _different(what: str, wanted: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            yield f"wrong-state: {what} has {found.get(key)} for {key}, not {wanted.get(key)}"


async def _state(log: Log, name: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for info in await log.partitions(name):
        after = b""
        while page := await log.peek_state(name, info.partition, USER_STATE, after=after):
            found.update({key.decode(): data for key, data in page})
            after = page[-1][0]
    return found


async def _audits(log: Log, read: _Read, handled: int, verdict: Verdict) -> list[str]:
    """Every partition has come to its end and its counts are even, and are what was read."""
    monitor, problems = Monitor(log, SystemClock()), list[str]()
    wanted = {
        "billing": {
            "done": handled,
            "discarded": len(read.first) - handled,
            "duplicate": len(read.orders) - len(read.first),
        },
        "ledger": {"done": len(read.invoices)},
    }
    for name in SUBSCRIPTIONS:
        view = await monitor.subscription(name)
        audit = await monitor.audit(name)
        ends = {part.partition: part.end for part in view.partitions}
        problems += [
            f"audit: {name} is not at its end ({ends[part.partition]}) and even: {part}"
            for part in audit.partitions
            if not part.balanced or part.position != ends[part.partition] or part.outcomes["held"]
        ]
        found = {outcome: count for outcome, count in audit.outcomes.items() if count}
        if found != {outcome: count for outcome, count in wanted[name].items() if count}:
            problems.append(f"audit: {name} counts {found}, not {wanted[name]}")
        verdict.figures[f"outcomes of {name}"] = found
    return problems


def _figures(directory: Path, read: _Read) -> dict[str, Any]:
    runs = [entry for entry in entries(directory, "worker-*") if entry.mark in ("ok", "bad")]
    newest, late = Counter[int](), 0
    for entry in runs:
        partition, epoch = int(entry.fields[3]), int(entry.fields[5])
        newest[partition] = max(newest[partition], epoch)
        late += epoch < newest[partition]
    return {
        "orders": len(read.first),
        "copies": len(read.orders) - len(read.first),
        "invoices": len(read.invoices),
        "attempts": len(runs),
        "late attempts": late,
        "refused commits": len(_marked(directory, "worker-*", "refused")),
        "assignments": sum(newest.values()),
    }
