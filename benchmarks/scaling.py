"""What `--workers 1..8` does with patterns of load, on a virtual clock: what records wait, and the workers it takes."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options
from postline.monitor import Policy
from tests.unit.monitor.team import Arrivals, Team, burst, day, steady

__all__ = ["scaling"]

_ELASTIC = Policy(workers_min=1, workers_max=8)
_HOUR, _DAY = 3_600.0, 86_400.0
#: One worker handles 100 a second. Name, what comes in, for how long, and what is there at the beginning.
_PATTERNS: tuple[tuple[str, Callable[[], Arrivals], float, int], ...] = (
    ("steady 250/s", lambda: steady(250), _HOUR, 0),
    ("burst: 50/s, five minutes of 500/s", lambda: burst(50, times=10, begin=600, seconds=300), _HOUR, 0),
    ("backlog: 30,000, then 50/s", lambda: steady(50), _HOUR, 30_000),
    ("day: 40/s at night, 600/s at noon", lambda: day(40, 600), _DAY, 0),
)


def scaling(options: Options) -> Result:
    """Beside as many workers as the peak needs, all the time. The target is that of `--drain-seconds`."""
    result = Result("scaling", "as many workers as the backlog needs: 60 s to drain, 120 s to cool down (simulated)")
    for name, arrivals, seconds, backlog in _PATTERNS:
        elastic = _run(_ELASTIC, arrivals(), seconds, backlog)
        peak = max([after for _, _, after, _ in elastic.changes], default=1)
        fixed = _run(Policy(workers_min=peak, workers_max=peak), arrivals(), seconds, backlog)
        result.figures += [
            Figure(f"{name}: longest wait", elastic.worst_wait_seconds, "s"),
            Figure(f"{name}: longest wait with {peak} all the time", fixed.worst_wait_seconds, "s"),
            Figure(f"{name}: 99% wait at most", elastic.wait_seconds(0.99), "s"),
            Figure(f"{name}: workers on average, {peak} at most", elastic.mean_workers, ""),
            Figure(f"{name}: changes", len(elastic.changes), ""),
        ]
        target = _ELASTIC.drain_seconds + elastic.look_seconds
        result.ratios.append(
            Ratio(f"{name}: longest wait", elastic.worst_wait_seconds, target, at_least=False, unit="s")
        )
        result.ratios.append(Ratio(f"{name}: worker hours beside {peak} all the time", elastic.mean_workers / peak))
    return result


def _run(policy: Policy, arrivals: Arrivals, seconds: float, backlog: int) -> Team:
    team = Team(policy, arrivals)
    team.add(backlog)
    team.run(seconds)
    return team
