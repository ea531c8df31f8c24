"""What all owned partitions of a subscription share in one process."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from postline.clock import Clock
from postline.log.port import Append, Log
from postline.message import Envelope
from postline.runtime.alarms import DeadLetterAlarms
from postline.runtime.complaints import Complaints
from postline.runtime.destinations import Destinations
from postline.runtime.gates import Gates
from postline.runtime.life import Life
from postline.runtime.outlet import Outlet
from postline.runtime.plan import Plan
from postline.runtime.versions import SchemaSource, Versions

__all__ = ["Surroundings"]


class Surroundings:
    """What all partitions of a subscription in this process share."""

    def __init__(
        self,
        plan: Plan,
        log: Log,
        clock: Clock,
        outlet: Outlet,
        randomness: random.Random,
        schemas: SchemaSource,
    ) -> None:
        self.plan = plan
        self.versions = Versions(plan.handlers, schemas)
        self.log = log
        self.clock = clock
        self.outlet = outlet
        self.random = randomness
        #: What `App(lifespan=…)` yielded; set before the first record is handled.
        self.resources: Any = None
        #: Of the topics that have a bound; set before the first record is handled.
        self.gates = Gates(log, clock, {})
        #: Makes the record that gives a later reply, where the app answers commands.
        self.later: Callable[[str, Any], Append] | None = None
        self.alarms = DeadLetterAlarms(plan.name, plan.dead_letter_policy)
        #: Whether slow handlers are named.
        self.watches = False
        self.complaints = Complaints(plan.name, clock)
        self.life = Life(plan)
        #: Types that were filtered because nobody ever handled them; each is named once.
        self.filtered_types: set[str] = set()
        #: Where what waited goes by now.
        self.destinations = Destinations(log)
        #: The record that asks a partition's owner to cancel a delayed message; set by the consumer.
        self.cancellation: Callable[[str, Envelope], Append] | None = None
