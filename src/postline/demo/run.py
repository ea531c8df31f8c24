"""One run of the demo, from its files to its figures: starts the shop, kills its processes, waits for the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from postline.clock import Clock
from postline.demo.direct import Direct, compute
from postline.demo.files import list_files, write_orders
from postline.demo.moving import Moved, Mover
from postline.demo.operator import Operator
from postline.demo.process import ALLOWANCE, CURSOR, SERVICES
from postline.demo.proof import Proof, check_move, prove
from postline.demo.scenario import Scenario
from postline.demo.shop import Allowance, Cursor
from postline.demo.shoplog import Addresses, ShopLog
from postline.demo.supervisor import Slot, Supervisor
from postline.errors import LogUnavailable, PostlineError, UnknownSubscription
from postline.monitor import DeadLetterDetail, SubscriptionView

__all__ = ["SUBSCRIPTIONS", "Look", "Outcome", "Wanted", "run"]

#: All subscriptions of the shop, each behind those that publish what it reads.
SUBSCRIPTIONS = ("counting", "billing", "packing", "refunds", "customer-totals", "country-totals")

_LOOK_SECONDS, _LOOK_SECONDS_MAX = 0.05, 3.0
#: So many times as long as a look takes there is none: whoever looks must not be what a cluster is busy with.
_REST = 4
_LOOKS_UNTIL_WHOLE = 8
_STALLED_SECONDS = 120.0
#: Kills fall into this share of the lines; the shop gets this share of them ahead of the next kill.
_KILLS_BETWEEN = (0.04, 0.88)
_AHEAD = 0.06
_OPERATOR_COMES_AT = 0.6
#: The log is moved, if it is, when billing has come so far; each of the two migrations is killed once before.
_MOVES_AT = 0.5


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line."""

    directory: Path
    input: Path | None = None
    orders: int = 4_000
    kills: int = 0
    seed: int = 1
    workers: int = 2
    #: Where the log is moved half-way, if it is.
    moves: Addresses | None = None


@dataclass
class Look:
    """How far things are, for whoever draws them."""

    lines: int = 0
    published: int = 0
    kills: int = 0
    kills_wanted: int = 0
    restarts: int = 0
    processes: int = 0
    subscriptions: list[SubscriptionView] = field(default_factory=list)
    dead_letter: DeadLetterDetail | None = None
    redriven: bool = False
    #: What becomes of a log that is moved.
    moving: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    proof: Proof
    seconds: float
    lines_published: int
    kills: int
    restarts: int
    processes: int
    dead_letter: DeadLetterDetail | None
    moved: Moved | None = None


def prepare(wanted: Wanted, randomness: random.Random) -> tuple[Scenario, Direct]:
    """Lay out the directory of the run: its input, its scenario. Gives the direct sums too."""
    directory = wanted.directory
    source = wanted.input
    if source is None:
        source = directory / "input"
        source.mkdir()
        write_orders(source, wanted.orders, randomness)
    list_files(source)
    direct = compute(source)
    if direct.lines == 0:
        raise PostlineError(f"The files of {source} hold no lines.", remedy="Give files with at least one line.")
    scenario = Scenario(str(source.resolve()), wanted.seed, _choose_poison(direct, randomness))
    scenario.save(directory)
    return scenario, direct


def _choose_poison(direct: Direct, randomness: random.Random) -> str:
    """An invoice with goods whose customer has later ones, which will have to wait behind it."""
    candidates = [bought[0] for bought in direct.invoices_by_customer.values() if len(bought) >= 3]
    candidates = candidates or [bought[0] for bought in direct.invoices_by_customer.values()]
    return randomness.choice(candidates) if candidates else ""


async def run(wanted: Wanted, clock: Clock, draw: Callable[[Look], None]) -> Outcome:
    """Run the shop by the settings in `wanted.directory` until all is settled, then prove it.

    Raises PostlineError if it stalls.
    """
    randomness = random.Random(wanted.seed)
    scenario, direct = prepare(wanted, randomness)
    shop = ShopLog.of(wanted.directory, clock, randomness)
    await shop.log.start()
    supervisor = Supervisor(wanted.directory, {"shop": 1, **dict.fromkeys(SERVICES, wanted.workers)})
    operator = Operator(scenario, wanted.directory)
    started = clock.monotonic()
    days = _Days(wanted, direct.lines, supervisor, operator, shop, randomness, clock)
    try:
        try:
            supervisor.start()
            await days.pass_by(draw)
        finally:
            await days.end()
        seconds = clock.monotonic() - started
        proof = await prove(days.shop, direct, supervisor, operator, wanted.kills)
        if days.moved is not None:
            check_move(proof, days.moved)
    finally:
        await days.shop.log.close()
    processes = len(supervisor.slots)
    return Outcome(
        proof, seconds, direct.lines, supervisor.kills, supervisor.restarts, processes, operator.shown, days.moved
    )


class _Days:
    """The time in which the shop works."""

    def __init__(
        self,
        wanted: Wanted,
        lines: int,
        supervisor: Supervisor,
        operator: Operator,
        shop: ShopLog,
        randomness: random.Random,
        clock: Clock,
    ) -> None:
        self._supervisor, self._operator = supervisor, operator
        #: The log that the services work on now.
        self.shop = shop
        self._wanted, self._random, self._clock = wanted, randomness, clock
        self._lines = lines
        low, high = _KILLS_BETWEEN
        #: A kill is due when billing has come so many lines far.
        self._due = sorted(int(lines * randomness.uniform(low, high)) for _ in range(wanted.kills))
        self._allowance = Allowance(wanted.directory / ALLOWANCE)
        self._cursor = Cursor(wanted.directory / CURSOR)
        self.look = Look(lines=lines, kills_wanted=wanted.kills, processes=len(supervisor.slots))
        self._movement = (0, clock.monotonic())
        self._trouble = ""
        self._mover = None if wanted.moves is None else Mover(wanted.directory, wanted.moves, randomness, clock)
        self._copying: asyncio.Task[None] | None = None
        #: What moving the log came to, once it is moved.
        self.moved: Moved | None = None

    async def end(self) -> None:
        """Stop the services."""
        if self._copying is not None:
            self._copying.cancel()
            await asyncio.gather(self._copying, return_exceptions=True)
        await self._supervisor.stop()

    async def pass_by(self, draw: Callable[[Look], None]) -> None:
        """Let the shop work until every line is settled everywhere."""
        looks = 0
        while True:
            began = self._clock.monotonic()
            self._allow()
            self._supervisor.check()
            try:
                await self._kill_if_due()
                await self._move_if_due()
                if looks % _LOOKS_UNTIL_WHOLE == 0 and await self._look_at_everything():
                    draw(self.look)
                    return
            except LogUnavailable as error:
                # A broker may be gone for a while; if it is for too long, nothing moves.
                self._trouble = f" The log could not be looked at: {error.message}"
            if looks % _LOOKS_UNTIL_WHOLE == 0:
                draw(self.look)
                self._require_movement()
            looks += 1
            rest_seconds = _REST * (self._clock.monotonic() - began)
            await self._clock.sleep(min(max(_LOOK_SECONDS, rest_seconds), _LOOK_SECONDS_MAX))

    def _allow(self) -> None:
        """Let the shop publish a little beyond the next kill or move, so that it finds work going on."""
        ahead = max(20, int(self._lines * _AHEAD))
        due = [*self._due[:1], *([self._lines * _MOVES_AT] if self._moves else [])]
        self._allowance.write(min(int(min(due)) + ahead, self._lines) if due else self._lines)

    @property
    def _moves(self) -> bool:
        """Whether the log is to be moved, and is not yet."""
        return self._mover is not None and self.moved is None

    async def _move_if_due(self) -> None:
        """Move the log at its time: copied while the services work and are killed, handed over while they rest."""
        if self._mover is None or self.moved is not None:
            return
        kills = 1 if self._wanted.kills else 0
        if self._copying is None:
            if await self._billed() >= self._lines * _MOVES_AT:
                self.look.moving = "the log is copied, services go on"
                self._copying = asyncio.create_task(self._mover.copy(kills))
        elif self._copying.done():
            self._copying.result()
            self.look.moving = "services rest, the log is handed over"
            await self.shop.log.close()
            await self._mover.cut_over(self._supervisor, kills)
            self.moved = self._mover.moved
            self.shop = ShopLog.of(self._wanted.directory, self._clock, self._random)
            await self.shop.log.start()
            self.look.moving = f"the log is {self.moved.target}"
            self._movement = (0, self._clock.monotonic())  # nothing stood still: it rested

    async def _kill_if_due(self) -> None:
        if not self._due or await self._billed() < self._due[0]:
            return
        victims = [slot for slot in self._supervisor.slots if slot.ready]
        if victims and await self._supervisor.kill(self._choose(victims)):
            self._due.pop(0)

    def _choose(self, victims: list[Slot]) -> Slot:
        """Any service with the same chance, then any of its processes."""
        service = self._random.choice(sorted({slot.service for slot in victims}))
        return self._random.choice([slot for slot in victims if slot.service == service])

    async def _billed(self) -> float:
        """About how many lines billing has settled: the published ones, in the share that it has behind it."""
        with suppress(UnknownSubscription):
            position = sum(info.position for info in await self.shop.log.partitions(self.shop.full("billing")))
            end = sum(bounds.end for bounds in await self.shop.log.bounds(self.shop.full("shop.lines")))
            return self._cursor.read() * position / max(1, end)
        return 0

    async def _look_at_everything(self) -> bool:
        """Refresh `look`; whether everything is settled. Subscriptions are looked at in the order of the flow."""
        look, supervisor = self.look, self._supervisor
        look.published = self._cursor.read()
        settled = all(slot.finished for slot in supervisor.slots if slot.service == "shop")
        found = []
        for name in SUBSCRIPTIONS:
            try:
                found.append(await self.shop.subscription(name))
            except UnknownSubscription:
                settled = False
        look.subscriptions = found
        look.kills = supervisor.kills
        look.restarts = supervisor.restarts
        half_way = look.published >= self._lines * _OPERATOR_COMES_AT and not self._moves
        if settled or (half_way and self._packing_runs()):
            await self._operator.look(self.shop)
        look.dead_letter, look.redriven = self._operator.shown, self._operator.obeyed
        idle = all(view.lag_records == 0 and view.held == 0 for view in look.subscriptions)
        return settled and idle and self._operator.obeyed and not (self._due or self._moves)

    def _packing_runs(self) -> bool:
        return any(view.name == "packing" for view in self.look.subscriptions)

    def _require_movement(self) -> None:
        """Raise PostlineError if nothing has moved for too long."""
        positions = sum(part.position + part.ahead for view in self.look.subscriptions for part in view.partitions)
        moved = positions + self.look.published + self.look.restarts
        now = self._clock.monotonic()
        if moved != self._movement[0]:
            self._movement, self._trouble = (moved, now), ""
        elif now - self._movement[1] > _STALLED_SECONDS:
            self._supervisor.ask_where_they_are()
            behind = ", ".join(_standing(view) for view in self.look.subscriptions)
            raise PostlineError(
                f"The shop has stood still for {_STALLED_SECONDS:.0f} s ({self.look.published} of {self._lines} lines;"
                f" {behind}).{self._trouble}",
                remedy="The logs of the processes, in the run's directory, say where their tasks stand.",
            )


def _standing(view: SubscriptionView) -> str:
    unowned = [str(part.partition) for part in view.partitions if not part.owner]
    nobody = f", nobody has partitions {' '.join(unowned)}" if unowned else ""
    return f"{view.name}: {view.lag_records} behind, {view.held} held, {len(view.members)} members{nobody}"
