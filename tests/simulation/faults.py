"""What goes wrong in a simulation, drawn by seed: one plan of rates, and the draws made from it."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, fields

from postline.errors import LogError, LogFull, LogUnavailable

__all__ = ["FaultPlan", "Faults", "Trace"]


@dataclass(frozen=True)
class FaultPlan:
    """Rates of faults; shares are probabilities of one call, rates are per virtual second and process."""

    #: Seconds that an engine call takes on average; a third of them take none at all.
    latency_seconds: float = 0.001
    slow_share: float = 0.0
    slow_seconds: float = 0.5
    #: Refused before anything is stored.
    append_refused_share: float = 0.0
    commit_refused_share: float = 0.0
    #: Reads of state, records and bounds that raise LogUnavailable.
    read_refused_share: float = 0.0
    #: Stored, and the caller gets LogUnavailable.
    append_unknown_share: float = 0.0
    #: The same for commits. The port forbids it ("with nothing stored"); for experiments only.
    commit_unknown_share: float = 0.0
    #: Stored, and the process dies before it hears of it.
    append_crash_share: float = 0.0
    commit_crash_share: float = 0.0
    #: Not stored yet when the process dies; takes effect after its death all the same.
    lands_after_death_share: float = 0.0
    #: The process dies while it waits for the engine.
    crash_share: float = 0.0
    crash_rate: float = 0.0
    hang_rate: float = 0.0
    hang_seconds: float = 8.0
    #: A healthy member's lease runs out.
    expire_rate: float = 0.0
    wall_jump_rate: float = 0.0
    wall_jump_seconds: float = 3600.0
    timer_late_share: float = 0.0
    timer_late_seconds: float = 0.2
    #: A waiting fetch learns of new records by its poll only, this much later.
    late_bell_share: float = 0.0
    late_bell_seconds: float = 0.25
    #: A member hears of a change in its group, such as the loss of its partitions, this much later at most.
    late_notice_share: float = 0.0
    late_notice_seconds: float = 4.0
    #: A fetch gives fewer records than it could.
    short_fetch_share: float = 0.0
    #: An append leaves a gap in the offsets before it.
    gap_share: float = 0.0
    interleaved: bool = True

    @classmethod
    def by_seed(cls, seed: int, *, read_faults: bool = True) -> FaultPlan:
        """A mixture of faults: each kind is absent, rare or frequent, so that seeds differ in character.

        `read_faults`: reads may be refused as well.
        """
        draw = random.Random(f"plan {seed}")

        def share(rare: float, frequent: float) -> float:
            return draw.choice((0.0, 0.0, rare, frequent))

        return cls(
            latency_seconds=draw.choice((0.0001, 0.001, 0.01)),
            slow_share=share(0.002, 0.02),
            slow_seconds=draw.choice((0.1, 1.0, 6.0)),
            append_refused_share=share(0.01, 0.1),
            commit_refused_share=share(0.01, 0.1),
            read_refused_share=draw.choice((0.0, 0.005, 0.05)) if read_faults else 0.0,
            append_unknown_share=share(0.01, 0.1),
            append_crash_share=share(0.001, 0.005),
            commit_crash_share=share(0.002, 0.01),
            lands_after_death_share=share(0.1, 0.5),
            crash_share=share(0.0005, 0.002),
            crash_rate=share(0.05, 0.2),
            hang_rate=share(0.02, 0.1),
            hang_seconds=draw.choice((1.0, 8.0, 20.0)),
            expire_rate=share(0.05, 0.4),
            wall_jump_rate=share(0.02, 0.2),
            wall_jump_seconds=draw.choice((1.0, 60.0, 86_400.0)),
            timer_late_share=share(0.01, 0.1),
            late_bell_share=share(0.05, 0.5),
            late_notice_share=share(0.2, 0.7),
            short_fetch_share=share(0.1, 0.5),
            gap_share=share(0.02, 0.3),
            interleaved=draw.random() < 0.8,
        )

    @classmethod
    def none(cls) -> FaultPlan:
        """No fault and no delay."""
        return cls(latency_seconds=0.0, interleaved=False)

    def __str__(self) -> str:
        calm = FaultPlan.none()
        set_ = [
            f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != getattr(calm, f.name)
        ]
        return " ".join(set_) or "no faults"


class Faults:
    """Draws from a plan. After `cease` nothing goes wrong any more and only the latency stays."""

    def __init__(self, plan: FaultPlan, randomness: random.Random) -> None:
        self.plan = plan
        self.active = True
        #: How often each fault was injected, for reports.
        self.counts: dict[str, int] = {}
        self._random = randomness

    def cease(self) -> None:
        """Let the rest of the run be free of faults."""
        self.active = False

    def happens(self, fault: str) -> bool:
        """Draw the share named `<fault>_share` and count it if it happens."""
        share: float = getattr(self.plan, fault + "_share")
        if not share or not self.active or self._random.random() >= share:
            return False
        self.counts[fault] = self.counts.get(fault, 0) + 1
        return True

    def latency(self) -> float:
        """Seconds that this engine call takes."""
        mean = self.plan.latency_seconds
        if not mean:
            return 0.0
        draw = self._random.random()
        if draw < 0.33:
            return 0.0
        if self.happens("slow"):
            return self._random.random() * self.plan.slow_seconds * 2
        return draw * mean * 1.5

    def lateness(self) -> float:
        """Seconds by which a timer fires late."""
        return self._random.random() * self.plan.timer_late_seconds if self.happens("timer_late") else 0.0

    def bell_delay(self) -> float:
        """Seconds after which a waiting reader learns of new records."""
        return self.plan.late_bell_seconds if self.happens("late_bell") else self.latency()

    def notice_delay(self) -> float:
        """Seconds after which a member learns that its group has changed."""
        if self.happens("late_notice"):
            return self._random.random() * self.plan.late_notice_seconds
        return self.bell_delay()

    def refusal(self, kind: str) -> LogError | None:
        """The error with which a call of this kind is refused before anything is stored, if it is."""
        if not self.happens(kind + "_refused"):
            return None
        if kind != "read" and self._random.random() < 0.3:
            return LogFull("The simulated disk is full.", remedy="Wait: it will have room again.")
        return LogUnavailable(f"The simulated log refused this {kind}.", remedy="Ask again.")

    def shortened(self, count: int) -> int:
        """How many of `count` records a fetch gives, at least one."""
        return self._random.randint(1, count) if count > 1 and self.happens("short_fetch") else count

    def gap(self) -> int:
        """Offsets to be left out before an append."""
        return self._random.randint(1, 3) if self.happens("gap") else 0

    def fraction(self) -> float:
        """Somewhere from 0 to 1; a half when nothing may go wrong."""
        return self._random.random() if self.active else 0.5

    def coin(self) -> bool:
        """Either of two legal behaviours."""
        return self._random.random() < 0.5


class Trace:
    """A running hash of all that happened, with the lines themselves if `keep` is set."""

    def __init__(self, *, keep: bool = False) -> None:
        self.lines: list[str] | None = [] if keep else None
        self.count = 0
        self._hash = 0

    def add(self, at: float, *what: object) -> None:
        """Note an event at virtual time `at`."""
        line = f"{at:.6f} {' '.join(map(str, what))}"
        self.count += 1
        self._hash = zlib.crc32(line.encode(), self._hash)
        if self.lines is not None:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """Equal digests: equal runs."""
        return f"{self.count}-{self._hash:08x}"
