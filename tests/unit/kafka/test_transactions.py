"""Which producer the next transaction has: one that went on after records were purged would lose as many later ones."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from postline.clock import SystemClock
from postline.log.kafka.transactions import Aborted, Died, Outgoing, Transactions

RECORDS = [Outgoing("orders", 0, b"k", b"v")]
POSITIONS: Any = ([], None)


class _Producer:
    """A producer whose positions are refused with `code`, and who has not heard of `unheard` of its records."""

    def __init__(self, code: int | None = None, unheard: int = 0, *, aborts: bool = True) -> None:
        self._code, self._unheard, self._aborts = code, unheard, aborts

    def init_transactions(self, seconds: float) -> None:
        """It begins."""

    begin_transaction = produce = commit_transaction = lambda self, *args, **options: None

    def send_offsets_to_transaction(self, *args: Any) -> None:
        """The group's coordinator has its say."""
        if self._code is not None:
            raise KafkaException(KafkaError(self._code, txn_requires_abort=True))

    def flush(self, seconds: float) -> int:
        """How many records are still under way."""
        return self._unheard

    def abort_transaction(self, seconds: float) -> None:
        """It is rolled back."""
        if not self._aborts:
            raise KafkaException(KafkaError(KafkaError._FATAL, fatal=True))


def made(*producers: _Producer) -> tuple[Transactions, list[_Producer]]:
    """Transactions with these producers, one after the other, and those that were begun with."""
    begun: list[_Producer] = []
    left = iter(producers)

    def begin(transactional_id: str, *, singly: bool) -> _Producer:
        begun.append(next(left))
        return begun[-1]

    cluster: Any = SimpleNamespace(
        transactional_producer=begin,
        clock=SystemClock(),
        stopping=threading.Event(),
        options=SimpleNamespace(transaction_seconds=1.0),
        asking=lambda doing: contextlib.nullcontext(),
    )
    return Transactions(cluster, "billing"), begun


@pytest.mark.parametrize(
    ("code", "unheard", "goes_on"),
    [
        (KafkaError.ILLEGAL_GENERATION, 0, True),
        (KafkaError.ILLEGAL_GENERATION, 1, False),
        (KafkaError.STALE_MEMBER_EPOCH, 0, True),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, 0, False),
        (KafkaError.NOT_COORDINATOR, 3, False),
    ],
)
def test_a_producer_goes_on_after_an_abort_only_if_it_has_heard_of_all_its_records(
    code: int, unheard: int, goes_on: bool
) -> None:
    transactions, begun = made(_Producer(code, unheard), _Producer())
    with pytest.raises(Aborted):
        transactions.run(RECORDS, POSITIONS)
    transactions.run(RECORDS)
    assert len(begun) == (1 if goes_on else 2)


def test_a_producer_that_cannot_abort_is_replaced() -> None:
    transactions, begun = made(_Producer(KafkaError.NOT_COORDINATOR, aborts=False), _Producer())
    with pytest.raises(Died) as ended:
        transactions.run(RECORDS, POSITIONS)
    assert not ended.value.committing
    transactions.run(RECORDS, POSITIONS)
    assert len(begun) == 2


class _Stuck(_Producer):
    """A producer that never comes back from one of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def send_offsets_to_transaction(self, *args: Any) -> None:
        """Waits for ever, whatever its time limit."""
        self.ended.wait()


def test_a_producer_that_never_returns_from_a_call_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postline.log.kafka.transactions._STUCK_SECONDS", 0.05)
    stuck = _Stuck()
    transactions, begun = made(stuck, _Producer())
    with pytest.raises(Died) as ended:
        transactions.run(RECORDS, POSITIONS)
    assert not ended.value.committing
    assert ended.value.error.code() == KafkaError._TIMED_OUT
    transactions.run(RECORDS, POSITIONS)
    assert len(begun) == 2
    stuck.ended.set()
