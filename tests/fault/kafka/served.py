"""The services of a trial as a module has them, for `postline run`, with their commits written down."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from postline.log.kafka.membership import KafkaMembership
from postline.log.kafka.transactions import Transactions
from postline.log.kafka.units import UnitWriter
from postline.log.port import Assignment, CommitUnit
from tests.fault.journal import Journal
from tests.fault.kafka.plan import Plan, hold_of
from tests.fault.kafka.planted import plant
from tests.fault.kafka.services import Services, invoices

__all__ = ["billing", "ledger"]

_directory = Path(os.environ["FAULT_DIRECTORY"])
_slot, _life = os.environ["FAULT_SLOT"], int(os.environ["FAULT_LIFE"])
_journal = Journal(_directory, _slot, _life)
_plan = Plan.load(_directory)


def _watch_commits() -> None:
    plain = KafkaMembership.commit

    async def commit(self: KafkaMembership, unit: CommitUnit) -> list[Assignment]:
        """Commit, and say when it began and ended."""
        name = self._spec.subscription
        _journal.write("commit", name)
        try:
            refused = await plain(self, unit)
        finally:
            _journal.write("committed", name)
        if refused:
            _journal.write("refused", name, len(refused))
        return refused

    KafkaMembership.commit = commit  # type: ignore[method-assign]


def _hold_transactions() -> None:
    """Stand before the end of a transaction with invoices as long as the trial wants it to."""
    plain_try, plain_done, hold = UnitWriter._try, Transactions._until_done, hold_of(_directory, _slot)
    pause = threading.Event()
    #: Partitions with invoices in the transaction that is under way.
    invoiced: dict[int, int] = {}

    def attempt(self: UnitWriter, parts: Sequence[Any], metadata: Any) -> Any:
        with_appends = [part for part in parts if any(each.topic == invoices.name for each in part.commit.appends)]
        invoiced[id(self.transactions)] = len(with_appends)
        try:
            return plain_try(self, parts, metadata)
        finally:
            del invoiced[id(self.transactions)]

    def wanted(self: Transactions) -> bool:
        try:
            return invoiced.get(id(self), 0) >= int(hold.read_text() or 1)
        except FileNotFoundError:
            return False

    def until_done(self: Transactions, step: Callable[[float], Any]) -> None:
        if getattr(step, "__name__", "") == "commit_transaction" and wanted(self):
            assert self._producer is not None
            self._producer.flush(10)
            _journal.write("stands", self.id)
            while hold.exists():
                pause.wait(0.005)
        plain_done(self, step)

    UnitWriter._try = attempt  # type: ignore[method-assign]
    Transactions._until_done = until_done  # type: ignore[method-assign]


# For a trial that is stuck: where every thread stands.
faulthandler.register(signal.SIGUSR1, all_threads=True)
_watch_commits()
_hold_transactions()
plant(_plan.planted)
_services = Services(_plan, _journal, f"{_slot}.{_life}")
billing, ledger = _services.billing, _services.ledger
_journal.write("ready")
