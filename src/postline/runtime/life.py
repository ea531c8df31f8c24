"""What a process says in its log of a subscription's life: one line for each event, none for a message."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from postline.errors import LogError, PostlineError
from postline.log.port import Assignment
from postline.logs.events import event
from postline.runtime.plan import Plan

__all__ = ["Life"]

#: What goes well has a logger of its own, so that a program can leave it out by its name.
_life = logging.getLogger("postline.lifecycle")
_log = logging.getLogger("postline.runtime")


class Life:
    """Tells of one subscription in this process."""

    def __init__(self, plan: Plan) -> None:
        self._name, self._topic = plan.name, plan.topic

    def joined(self) -> None:
        """It is a member of its group now; partitions come next, or none if there are more members."""
        _life.info(
            "subscription %s has joined: it reads %s",
            *(self._name, self._topic),
            extra=event("subscription.joined", subscription=self._name, topic=self._topic),
        )

    def left(self) -> None:
        """It has left its group, with everything committed."""
        _life.info("subscription %s has left", self._name, extra=event("subscription.left", subscription=self._name))

    def assigned(self, assignments: Sequence[Assignment]) -> None:
        """These partitions are handled here from now on."""
        partitions = _partitions_of(assignments)
        if partitions:
            _life.info(
                "subscription %s handles partitions %s of %s",
                *(self._name, _short(partitions), self._topic),
                extra=event("partitions.assigned", subscription=self._name, topic=self._topic, partitions=partitions),
            )

    def revoked(self, assignments: Sequence[Assignment]) -> None:
        """These partitions were settled, committed, and given to another process."""
        partitions = _partitions_of(assignments)
        if partitions:
            _life.info(
                "subscription %s has given back partitions %s of %s",
                *(self._name, _short(partitions), self._topic),
                extra=event("partitions.revoked", subscription=self._name, topic=self._topic, partitions=partitions),
            )

    def lost(self, partition: int) -> None:
        """A partition went without having been asked for; what was not committed is handled again elsewhere."""
        _log.warning(
            "subscription %s lost partition %d: another process may own it by now",
            *(self._name, partition),
            extra=event("partition.lost", subscription=self._name, topic=self._topic, partition=partition),
        )

    def moved_by_others(self, assignment: Assignment, target: int) -> None:
        """Another program moved the position."""
        _log.error(
            "subscription %s: another program moved %s partition %d from %d to %d; it goes on there, and its counts"
            " begin anew as after a reset",
            *(self._name, self._topic, assignment.partition, assignment.position, target),
            extra=event(
                "position.moved_by_others",
                subscription=self._name,
                topic=self._topic,
                partition=assignment.partition,
                offset=target,
            ),
        )

    def commit_is_late(self) -> None:
        """Partitions leave before what settled of them is committed."""
        _log.error(
            "subscription %s could not commit in time before partitions left it",
            self._name,
            extra=event("commit.late", subscription=self._name, topic=self._topic),
        )

    def reads_again(self, delay_seconds: float, error: LogError) -> None:
        """The log can't be read for now."""
        _log.warning(
            "subscription %s can't read and tries again in %g s: %s",
            *(self._name, delay_seconds, error),
            extra=event("log.unavailable", subscription=self._name, topic=self._topic),
        )

    def skips_control(self, partition: int, error: PostlineError) -> None:
        """What an operator asked can't be read."""
        _log.error(
            "subscription %s: %s",
            *(self._name, error),
            extra=event("control.unreadable", subscription=self._name, topic=self._topic, partition=partition),
        )

    def paused(self, partition: int) -> None:
        """An operator stopped it in a partition."""
        _life.info(
            "subscription %s pauses partition %d of %s, as was asked: `postline subscriptions resume %s`",
            *(self._name, partition, self._topic, self._name),
            extra=event("partition.paused", subscription=self._name, topic=self._topic, partition=partition),
        )

    def resumed(self, partition: int) -> None:
        """An operator let it go on in a partition."""
        _life.info(
            "subscription %s goes on with partition %d of %s, as was asked",
            *(self._name, partition, self._topic),
            extra=event("partition.resumed", subscription=self._name, topic=self._topic, partition=partition),
        )


def _partitions_of(assignments: Sequence[Assignment]) -> list[int]:
    return sorted(each.partition for each in assignments)


def _short(partitions: Sequence[int]) -> str:
    """`0-3, 7`: stretches, since a log may have thousands."""
    stretches: list[list[int]] = []
    for each in partitions:
        if stretches and each == stretches[-1][-1] + 1:
            stretches[-1][1:] = [each]
        else:
            stretches.append([each])
    return ", ".join("-".join(map(str, stretch)) for stretch in stretches)
