"""The timers in memory agree with state, whatever is set, cancelled, fired and read in between."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postline.clock import VirtualClock
from postline.runtime import timers as timers_module
from postline.runtime import upcoming as upcoming_module
from postline.runtime.entries import TIMERS
from postline.runtime.timers import Timers
from postline.runtime.unit import PendingUnit


class _Membership:
    """State as committed; reading it takes a turn or two, in which it may change."""

    def __init__(self, randomness: random.Random) -> None:
        self.stored: dict[tuple[str, bytes], bytes] = {}
        self._random = randomness

    async def scan_state(
        self, assignment: Any, namespace: str, after: bytes = b"", limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        del assignment
        for _ in range(self._random.randrange(5)):
            await asyncio.sleep(0)
        keys = sorted(key for name, key in self.stored if name == namespace and key > after)
        found = [(key, self.stored[namespace, key]) for key in keys[:limit]]
        for _ in range(self._random.randrange(5)):
            await asyncio.sleep(0)
        return found


class _Around:
    def __init__(self) -> None:
        self.clock = VirtualClock()


class _Plan:
    name = "work"
    taken_up = None


class _Owned:
    """As much of an owned partition as timers see, with a committer that takes its time."""

    def __init__(self, membership: _Membership, around: _Around, randomness: random.Random) -> None:
        self.membership, self.around, self.plan = membership, around, _Plan()
        self.assignment: Any = None
        self.unit = PendingUnit()
        self.committing: PendingUnit | None = None
        self.draining = False
        self.fired: list[tuple[int, str]] = []
        self._random = randomness
        self.timers = Timers(self, {"note": self._note})  # type: ignore[arg-type]

    def _note(self, owned: Any, entry: Any) -> None:
        owned.fired.append((entry.due_ms, entry.token))

    async def read_entry(self, namespace: str, key: bytes) -> bytes | None:
        for unit in (self.unit, self.committing):
            if unit is not None and (namespace, key) in unit.changes:
                return unit.changes[namespace, key]
        return self.membership.stored.get((namespace, key))

    async def commit(self) -> None:
        self.committing, self.unit = self.unit, PendingUnit()
        for _ in range(self._random.randrange(8)):
            await asyncio.sleep(0)
        for place, data in self.committing.changes.items():
            if data is None:
                self.membership.stored.pop(place, None)
            else:
                self.membership.stored[place] = data
        self.committing = None
        self.timers.committed()


#: What happens, as often in a hundred steps or so.
ACTIONS = {
    "set": 24,
    "burst": 2,
    "cancel": 12,
    "cancel some": 3,
    "turns": 24,
    "pass": 12,
    "jump": 1,
    "commit": 16,
    "crash": 3,
}


class _Run:
    """A model beside the real thing: what is set, by token, and what has fired."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.membership, self.around = _Membership(self.random), _Around()
        self.expected: dict[str, int] = {}
        self.jumped = False
        self._commit: asyncio.Future[None] | None = None
        self.owned = self._fresh()

    def _fresh(self) -> _Owned:
        return _Owned(self.membership, self.around, self.random)

    async def begin(self) -> None:
        await self.owned.timers.load()
        self.owned.timers.begin(lambda: None, self._fail)

    def _fail(self, error: BaseException) -> None:
        raise error

    async def commit(self) -> None:
        """Let a commit begin, unless one is under way; it ends some turns later."""
        if self._commit is None or self._commit.done():
            self._commit = asyncio.ensure_future(self.owned.commit())

    async def quiet(self) -> None:
        """Commit until nothing more is to be done."""
        while True:
            for _ in range(8):
                await asyncio.sleep(0)
            if self._commit is not None:
                await self._commit
            if not self.owned.unit and not self.owned.timers.busy:
                break
            await self.commit()
        self._take_fired()

    def _take_fired(self) -> None:
        for due_ms, token in self.owned.fired:
            assert self.expected.pop(token) == due_ms, "it fires once, and only as it was last set"
            assert self.jumped or due_ms <= self.around.clock.now_ms() + 1
        self.owned.fired = []

    async def step(self, action: str) -> None:
        """Do one thing; what has fired by then is known, since firing is a matter of one moment."""
        clock, randrange = self.around.clock, self.random.randrange
        self._take_fired()
        if action in ("set", "burst"):
            for _ in range(1 if action == "set" else 25):
                self.set(f"t{randrange(60)}", randrange(60))
        elif action in ("cancel", "cancel some"):
            for _ in range(1 if action == "cancel" else 12):
                if (token := f"t{randrange(60)}") in self.expected:
                    self.owned.timers.cancel(self.expected.pop(token), token)
        elif action == "turns":
            for _ in range(randrange(1, 4)):
                await asyncio.sleep(0)
        elif action == "pass":
            clock.move_to(clock.monotonic() + randrange(15))
        elif action == "jump":
            clock.jump_wall(randrange(-50, 50))
            self.jumped = True
        elif action == "commit":
            await self.commit()
        else:
            await self.quiet()  # what was not committed is gone in a crash, and would have to be modelled
            self.owned.timers.stop()
            self.owned = self._fresh()
            await self.begin()

    def set(self, token: str, delay: int) -> None:
        """Set a timer, in place of the one that the token has."""
        due_ms = self.around.clock.now_ms() + delay * 1000
        if token in self.expected:
            self.owned.timers.cancel(self.expected[token], token)
        self.owned.timers.set(due_ms, token, "note", b"")
        self.expected[token] = due_ms


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 30))
def test_what_is_set_fires_once_at_its_time_and_what_is_cancelled_never(seed: int) -> None:
    async def play() -> None:
        run = _Run(seed)
        await run.begin()
        for number in range(60):
            run.set(f"t{number}", run.random.randrange(100))
        for action in run.random.choices(list(ACTIONS), list(ACTIONS.values()), k=150):
            await run.step(action)
            known, horizon = run.owned.timers.upcoming.entries, run.owned.timers.upcoming.horizon
            assert len(known) <= upcoming_module._ENTRIES_MAX
            assert horizon is None or all(key <= horizon for key in known)
        for _ in range(2):
            run.around.clock.move_to(run.around.clock.monotonic() + 1000)
            await run.quiet()
        assert run.expected == {}
        assert [place for place in run.membership.stored if place[0] == TIMERS] == []
        run.owned.timers.stop()

    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (upcoming_module, "_ENTRIES_LOW", 3),
            (upcoming_module, "_ENTRIES_MAX", 16),
            (upcoming_module, "PAGE_ENTRIES", 8),
            (timers_module, "PAGE_ENTRIES", 8),
            (timers_module, "_BATCH", 5),
        ):
            patch.setattr(module, name, value)
        asyncio.run(play())
