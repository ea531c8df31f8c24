"""Whether a kill loop's file and journals show every guarantee kept; the checks are the simulation's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgspec

from postline.clock import SystemClock
from postline.log.port import Log, Record
from postline.monitor import Monitor
from postline.runtime.entries import USER_STATE
from tests.fault.journal import entries
from tests.fault.process import LOG, open_log
from tests.fault.scenario import Scenario
from tests.fault.services import Balance, Invoice, Ledger, balances, invoices, order_id, orders
from tests.simulation.checks import (
    AuditLine,
    Execution,
    History,
    Identity,
    Problem,
    StoredRecord,
    check_audit,
    check_effects,
    check_equal,
    check_executions,
    check_publishing,
)

__all__ = ["Findings", "judge"]

_SUBSCRIPTIONS = ("billing", "ledger", "mirror", "watching")


@dataclass
class Findings:
    """What is wrong, and what was seen."""

    problems: list[Problem] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Found:
    """All that the file holds."""

    orders: list[StoredRecord]
    invoices: list[StoredRecord]
    #: Newest of each customer.
    balances: dict[str, Balance]
    states: dict[str, dict[str, bytes]]


async def judge(directory: Path) -> Findings:
    """Everything that the guarantees say about a run that has come to rest."""
    findings = Findings()
    _check_file(directory / LOG, findings)
    scenario, history = Scenario.load(directory), _history(directory)
    async with open_log(scenario, directory) as log:
        found = await _read(log)
        outcomes = await _audit(log, findings)
    _check(scenario, history, found, outcomes, findings)
    findings.figures["late attempts"] = _late(history)
    findings.figures["refused commits"] = sum(entry.mark == "refused" for entry in entries(directory))
    return findings


def _check_file(path: Path, findings: Findings) -> None:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    said = [text for (text,) in connection.execute("PRAGMA integrity_check")]
    connection.close()
    if said != ["ok"]:
        findings.problems.append(Problem("wrong", f"integrity_check says {said[:5]}"))


# Reading


def _history(directory: Path) -> History:
    history = History()
    for entry in entries(directory):
        match entry.mark, entry.fields:
            case "try", (customer, number):
                identity = ("shop", order_id(customer, int(number)))
                history.publishing("orders", identity, customer.encode(), int(number))
            case "ack", (customer, number):
                history.acknowledged(("shop", order_id(customer, int(number))))
            case "ok" | "bad", (subscription, customer, number, partition, epoch):
                identity = ("shop", order_id(customer, int(number)))
                ok = entry.mark == "ok"
                history.executed(Execution(subscription, identity, ok, int(partition), int(epoch), entry.process))
    return history


async def _read(log: Log) -> _Found:
    newest: dict[str, Balance] = {}
    for _, record in await _records(log, balances.name):
        balance = msgspec.json.decode(record[4] or b"", type=Balance)
        newest[balance.customer] = balance

    def of_order(partition: int, record: Record) -> StoredRecord:
        envelope = log.envelope(record)
        return StoredRecord(partition, record[0], record[2], (envelope.source, envelope.id))

    def of_invoice(partition: int, record: Record) -> StoredRecord:
        envelope = log.envelope(record)
        invoice = msgspec.json.decode(record[4] or b"", type=Invoice)
        cause = ("shop", order_id(invoice.customer, invoice.number))
        return StoredRecord(partition, record[0], record[2], (envelope.source, envelope.id), cause)

    async def stored(topic: str, read: Callable[[int, Record], StoredRecord]) -> list[StoredRecord]:
        return [read(partition, record) for partition, record in await _records(log, topic)]

    states = {name: await _states(log, name) for name in ("billing", "ledger", "mirror")}
    return _Found(await stored(orders.name, of_order), await stored(invoices.name, of_invoice), newest, states)


async def _records(log: Log, topic: str) -> list[tuple[int, Record]]:
    found: list[tuple[int, Record]] = []
    for partition, bounds in enumerate(await log.bounds(topic)):
        offset = bounds.start
        while records := await log.read(topic, partition, offset):
            found += [(partition, record) for record in records]
            offset = records[-1][0] + 1
    return found


async def _states(log: Log, subscription: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for info in await log.partitions(subscription):
        after = b""
        while page := await log.peek_state(subscription, info.partition, USER_STATE, after=after):
            found.update({key.decode(): data for key, data in page})
            after = page[-1][0]
    return found


async def _audit(log: Log, findings: Findings) -> dict[str, Counter[str]]:
    """The audit of every partition, which must have come to the end; gives the outcomes of each subscription."""
    monitor, sums = Monitor(log, SystemClock()), defaultdict[str, Counter[str]](Counter)
    for name in _SUBSCRIPTIONS:
        view = await monitor.subscription(name)
        ends = {part.partition: part.end for part in view.partitions}
        for part in (await monitor.audit(name)).partitions:
            counts = {**part.outcomes, "gaps": part.gaps}
            sums[name].update(counts)
            findings.problems += check_audit([AuditLine(name, part.partition, part.start, part.position, counts)])
            if not part.balanced or part.position != ends[part.partition] or part.outcomes["held"]:
                findings.problems.append(Problem("audit", f"{name} is not at its end and even: {part}"))
    return sums


# Judging


def _late(history: History) -> int:
    """How many attempts ended after their partition had begun work under a newer owner."""
    newest, late = Counter[int](), 0
    for each in history.executions:
        newest[each.partition] = max(newest[each.partition], each.epoch)
        late += each.epoch < newest[each.partition]
    return late


def _check(
    scenario: Scenario, history: History, found: _Found, outcomes: dict[str, Counter[str]], findings: Findings
) -> None:
    places = {identity: (each.key.decode(), each.sequence) for identity, each in history.publications.items()}
    moods = {identity: scenario.mood(*place) for identity, place in places.items()}
    without = {identity for identity, mood in moods.items() if mood in ("thrown", "hopeless")}
    copies = len(found.orders) - len({record.identity for record in found.orders})
    findings.problems += [
        *check_publishing(history, "orders", found.orders),
        *check_effects(history, "billing", found.orders, found.invoices, excluded=without),
        *check_executions(history, "billing", found.orders, excluded=without),
        *_check_chain(history, without, found),
        *check_equal(
            "outcomes of billing",
            {"done": len(moods) - len(without), "discarded": len(without), "duplicate": copies, "gaps": 0},
            {name: outcomes["billing"][name] for name in ("done", "discarded", "duplicate", "gaps")},
        ),
    ]
    findings.figures |= {
        "orders": len(moods),
        "copies": copies,
        "attempts": len(history.executions),
        "attempts by": dict(Counter(each.process.partition(".")[0] for each in history.executions)),
        "invoices": len(found.invoices),
        "cancellations": sum(scenario.cancels(*place) for place in places.values()),
        "moods": dict(Counter(mood for mood in moods.values() if mood)),
        "outcomes": {name: {key: count for key, count in each.items() if count} for name, each in outcomes.items()},
    }


def _check_chain(history: History, without: set[Identity], found: _Found) -> list[Problem]:
    """Sums along the chain: state of billing, entries of the ledger, newest balances and their mirror."""
    expected: dict[str, Ledger] = defaultdict(Ledger)
    for identity, each in sorted(history.publications.items(), key=lambda item: item[1].sequence):
        if identity not in without:
            customer = each.key.decode()
            before = expected[customer]
            expected[customer] = Ledger(before.count + 1, before.amount + each.sequence + 1, each.sequence)
    states = found.states
    return [
        *check_equal(
            "totals of billing",
            {customer: ledger.amount for customer, ledger in expected.items()},
            {customer: msgspec.json.decode(data, type=int) for customer, data in states["billing"].items()},
        ),
        *check_equal("ledger", expected, _ledgers(states["ledger"])),
        *check_equal(
            "newest balances",
            {customer: Balance(customer, each.count, each.amount) for customer, each in expected.items()},
            found.balances,
        ),
        *check_equal(
            "mirror",
            {customer: Ledger(each.count, each.amount, each.count) for customer, each in expected.items()},
            _ledgers(states["mirror"]),
        ),
    ]


def _ledgers(states: dict[str, bytes]) -> dict[str, Ledger]:
    return {customer: msgspec.json.decode(data, type=Ledger) for customer, data in states.items()}
