"""The alarm about a subscription's dead letters in one process: said once when it begins, and once when it ends."""

from __future__ import annotations

import logging

from postline.logs.events import event
from postline.runtime.dead_letter_policy import DeadLetterPolicy

__all__ = ["DeadLetterAlarms"]

_log = logging.getLogger("postline.runtime")


class DeadLetterAlarms:
    """Adds up the partitions that this process owns. Event loop only."""

    def __init__(self, subscription: str, policy: DeadLetterPolicy) -> None:
        self._subscription, self._policy = subscription, policy
        self._counts: dict[int, int] = {}
        self._old: set[int] = set()
        self._many = self._aged = False

    def tell(self, partition: int, count: int, *, is_old: bool) -> None:
        """How many dead letters a partition has now, and whether one is over the alarm's age."""
        self._counts[partition] = count
        (self._old.add if is_old else self._old.discard)(partition)
        self._judge()

    def forget(self, partition: int) -> None:
        """The partition went to another owner, who tells it there; that ends no alarm."""
        self._counts.pop(partition, None)
        self._old.discard(partition)

    def _judge(self) -> None:
        most, age, total = self._policy.alarm_count, self._policy.alarm_age, sum(self._counts.values())
        many, aged = most is not None and total > most, bool(self._old)
        if many != self._many:
            self._many = many
            limit = "more" if many else "no more"
            self._say(many, f"{total} dead letters in this process, {limit} than {most}")
        if aged != self._aged:
            self._aged = aged
            number = "a" if aged else "no"
            self._say(aged, f"{number} dead letter older than {age} in this process")

    def _say(self, begins: bool, has: str) -> None:
        if begins:
            _log.error(
                "alarm: subscription %s has %s: `postline dlq groups %s`",
                *(self._subscription, has, self._subscription),
                extra=event("dead_letters.alarm", subscription=self._subscription),
            )
        else:
            _log.warning(
                "the alarm is over: subscription %s has %s",
                *(self._subscription, has),
                extra=event("dead_letters.alarm_over", subscription=self._subscription),
            )
