"""The demo's proof: what the log holds at the end against what plain Python says of the same files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from msgspec import structs

from postline.demo import contracts
from postline.demo.contracts import (
    InvoiceIssued,
    ParcelPacked,
    RefundPaid,
)
from postline.demo.direct import Direct
from postline.demo.moving import Moved
from postline.demo.operator import Operator
from postline.demo.shoplog import ShopLog
from postline.demo.stored import Stored, account_of, identity_of, read_messages, read_stored
from postline.demo.supervisor import Supervisor
from postline.monitor import AuditView

__all__ = [
    "Check",
    "Proof",
    "add_figures",
    "check_effects",
    "check_lines",
    "check_move",
    "check_order",
    "check_sums",
    "prove",
]

_NAMED_MAX = 5


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    name: str
    ok: bool
    detail: str


@dataclass
class Proof:
    """The figures that the shop arrived at, the checks on them, and the audit behind them."""

    figures: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    audits: list[AuditView] = field(default_factory=list)
    #: Error of each dead letter that is left, by subscription.
    dead_letters: dict[str, list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return all(check.ok for check in self.checks)

    def expect(self, name: str, found: object, wanted: object) -> None:
        """Add a check that two values are equal."""
        detail = _worded(found) if found == wanted else f"found {_worded(found)}, wanted {_worded(wanted)}"
        self.checks.append(Check(name, found == wanted, _short(detail)))

    def none_of(self, name: str, wrong: Iterable[object], right: str) -> None:
        """Add a check that there are no exceptions; `right` says what was looked at."""
        found = [str(each) for each in wrong]
        more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
        self.checks.append(Check(name, not found, _short("; ".join(found[:_NAMED_MAX])) + more if found else right))


def _worded(value: object) -> str:
    """A value as people read it: an empty collection is none."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name}: {each}" for name, each in value.items())
    return "none" if value == "" else f"{value}"


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + "…"


async def prove(shop: ShopLog, direct: Direct, supervisor: Supervisor, operator: Operator, kills: int) -> Proof:
    """Read the whole log and check it. Nothing runs any more."""
    proof = Proof()
    stored = await read_stored(shop)
    add_figures(proof, stored)
    _check_processes(proof, supervisor, kills)
    await _check_audits(proof, shop)
    outcomes = {audit.subscription: audit.outcomes for audit in proof.audits}
    check_lines(proof, stored, direct, outcomes)
    await _check_dead_letters(proof, shop, direct, operator)
    check_effects(proof, stored)
    check_order(proof, stored)
    proof.figures["exact_duplicate_lines"] = outcomes["billing"]["duplicate"] - stored.repeated
    check_sums(proof, direct)
    return proof


# Figures


def add_figures(proof: Proof, stored: Stored) -> None:
    """What the shop says of itself."""
    counted = stored.counted
    by_customer = {each.customer: each.gross + each.refunds for each in stored.customers if each.customer}
    gross = sum((each.gross for each in stored.countries), Decimal(0))
    refunds = sum((each.refunds for each in stored.countries), Decimal(0))
    proof.figures = {
        "lines": sum(each.lines for each in counted),
        "exact_duplicate_lines": 0,
        "invoices": sum(each.invoices for each in counted),
        "cancelled_lines": sum(each.cancelled for each in counted),
        "lines_without_customer": sum(each.without_customer for each in counted),
        "customers": len(by_customer),
        "unreadable_lines": sum(each.unreadable for each in counted),
        "revenue_all_lines": sum((each.revenue for each in counted), Decimal(0)),
        "gross": gross,
        "refunds": refunds,
        "net": gross + refunds,
        "net_without_customer": sum(
            (each.gross + each.refunds for each in stored.customers if not each.customer), Decimal(0)
        ),
        "net_by_customer": dict(sorted(by_customer.items())),
        "net_by_country": {
            each.country: each.gross + each.refunds for each in sorted(stored.countries, key=lambda each: each.country)
        },
    }


def check_sums(proof: Proof, direct: Direct) -> None:
    """The figures are those of the direct computation."""
    wanted = {
        "lines": direct.lines,
        "exact_duplicate_lines": direct.exact_duplicate_lines,
        "invoices": len(direct.invoice_numbers),
        "cancelled_lines": direct.cancelled_lines,
        "lines_without_customer": direct.lines_without_customer,
        "customers": len(direct.customer_ids),
        "unreadable_lines": direct.unreadable_lines,
        "revenue_all_lines": direct.revenue_all_lines,
        "gross": direct.gross,
        "refunds": direct.refunds,
        "net": direct.gross + direct.refunds,
        "net_without_customer": direct.net_without_customer,
    }
    for name, value in wanted.items():
        proof.expect(f"{name} as computed directly", proof.figures[name], value)
    for name, sums in (("net_by_customer", direct.net_by_customer), ("net_by_country", direct.net_by_country)):
        found = proof.figures[name]
        wrong = [
            f"{key!r}: {found.get(key)} instead of {sums.get(key)}"
            for key in sorted(set(found) | set(sums))
            if found.get(key) != sums.get(key)
        ]
        proof.none_of(f"{name} as computed directly", wrong, f"{len(sums)} equal sums")


# Checks


def _check_processes(proof: Proof, supervisor: Supervisor, kills: int) -> None:
    proof.expect("processes killed with SIGKILL", supervisor.kills, kills)
    proof.expect("processes that ended by themselves", supervisor.own_ends, {})
    unclean = {name: code for name, code in supervisor.exit_codes.items() if code != 0}
    proof.expect("processes that did not stop when told to", unclean, {})


def check_move(proof: Proof, moved: Moved) -> None:
    """The log was moved while the shop worked, and everything was found equal on both sides."""
    proof.expect("migrations killed with SIGKILL and taken up again", moved.kills, moved.kills_wanted)
    name = "records and state entries equal on both sides of the move"
    proof.none_of(name, [] if moved.records and moved.entries else ["none"], f"{moved.records:,} and {moved.entries:,}")


async def _check_audits(proof: Proof, shop: ShopLog) -> None:
    """Every record of every partition has its outcome, and nothing waits."""
    for info in await shop.log.subscriptions():
        audit = structs.replace(await shop.monitor.audit(info.name), subscription=shop.short(info.name))
        proof.audits.append(audit)
        bounds = await shop.log.bounds(info.topic)
        wrong = [
            f"partition {part.partition} at {part.position} of {bounds[part.partition].end}, "
            f"{part.missing} unaccounted, {part.outcomes['held']} held"
            for part in audit.partitions
            if not part.balanced or part.position != bounds[part.partition].end or part.outcomes["held"] or part.start
        ]
        outcomes = ", ".join(f"{count:,} {name}" for name, count in audit.outcomes.items() if count)
        proof.none_of(f"{audit.subscription}: every message accounted for", wrong, f"{audit.handled:,} = {outcomes}")


def check_lines(proof: Proof, stored: Stored, direct: Direct, outcomes: Mapping[str, Mapping[str, int]]) -> None:
    """Every line of the files is on the log, and was billed once or has another outcome."""
    proof.expect("lines of the files on the log", len(stored.lines), direct.lines)
    # Counting has no handler for closings, so repeated ones are filtered there.
    proof.expect("lines published again dropped by id", outcomes["counting"]["duplicate"], stored.repeated_lines)
    read = outcomes["billing"]["done"] + outcomes["billing"]["dead-lettered"] + direct.exact_duplicate_lines
    proof.expect("lines billed once, dead-lettered or exact duplicates", read - stored.closings, direct.lines)


async def _check_dead_letters(proof: Proof, shop: ShopLog, direct: Direct, operator: Operator) -> None:
    for info in await shop.log.subscriptions():
        letters = await shop.monitor.dead_letters(info.name)
        if letters:
            proof.dead_letters[shop.short(info.name)] = [letter.error for letter in letters]
    kept = {message.text async for message in read_messages(shop, contracts.lines, "billing.dead-letters")}
    lost = sorted(direct.unreadable - kept)
    proof.none_of("unreadable lines kept as dead letters", lost, f"{len(direct.unreadable)} kept whole")
    proof.expect(
        "dead letters left",
        {name: len(found) for name, found in proof.dead_letters.items()},
        {"billing": len(direct.unreadable)} if direct.unreadable else {},
    )
    if operator.poison:
        shown = operator.shown
        found = "none" if shown is None else shown.letter.error
        proof.checks.append(
            Check(
                "the poison message was dead-lettered, shown and redriven", shown is not None and operator.obeyed, found
            )
        )


def check_effects(proof: Proof, stored: Stored) -> None:
    """Nothing is there twice, nothing is missing: invoices, parcels, payments."""
    issued = Counter(identity_of(each) for each in stored.invoices)
    goods = {identity_of(each) for each in stored.invoices if each.gross > 0}
    money = {identity_of(each): -each.refunds for each in stored.invoices if each.refunds < 0}
    packed = Counter(identity_of(each) for each in stored.parcels)
    paid = Counter(identity_of(each) for each in stored.payments)
    for name, found in (("invoices", issued), ("parcels", packed), ("refunds", paid)):
        proof.none_of(
            f"no {name} doubled", (key for key, count in found.items() if count > 1), f"{len(found):,} unique"
        )
    proof.none_of("a parcel for each invoice with goods", goods ^ set(packed), f"{len(goods):,} of each")
    amounts = {identity_of(each): each.amount for each in stored.payments}
    proof.none_of(
        "a refund for each invoice that asks for one",
        set(money.items()) ^ set(amounts.items()),
        f"{len(money):,} of each",
    )


def check_order(proof: Proof, stored: Stored) -> None:
    """What came out of each key stands in the order of what went in."""
    late = sum(each.out_of_order for each in stored.counted)
    proof.expect("lines counted out of their invoice's order", late, 0)
    proof.expect(
        "invoices summed out of their customer's order", sum(each.out_of_order for each in stored.customers), 0
    )
    issued = _byaccount_of(each for each in stored.invoices if each.gross > 0)
    proof.none_of(
        "parcels in the order of the customer's invoices",
        _differing(issued, _byaccount_of(stored.parcels)),
        f"{len(issued):,} customers",
    )
    asked = _byaccount_of(each for each in stored.invoices if each.refunds < 0)
    proof.none_of(
        "refunds in the order of the customer's invoices",
        _differing(asked, _byaccount_of(stored.payments)),
        f"{len(asked):,} customers",
    )
    wrong = []
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for each in stored.payments:
        if sums[account_of(each)] != each.paid_before:
            wrong.append(identity_of(each))
        sums[account_of(each)] += each.amount
    proof.none_of("each refund knows all that were paid before it", wrong, f"{len(stored.payments):,} refunds")


Keyed = dict[tuple[str, str], list[tuple[str, int, str, str]]]


def _byaccount_of(messages: Iterable[InvoiceIssued | ParcelPacked | RefundPaid]) -> Keyed:
    found: Keyed = defaultdict(list)
    for message in messages:
        found[account_of(message)].append(identity_of(message))
    return found


def _differing(wanted: Keyed, found: Keyed) -> list[tuple[str, str]]:
    return [key for key in sorted(set(wanted) | set(found)) if wanted.get(key) != found.get(key)]
