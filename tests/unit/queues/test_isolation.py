"""Plain functions in child processes: killed at their limit, and harmless when they crash."""

from __future__ import annotations

import os
from typing import Any

import pytest

from postline import App, Context, HandlerFault, UsageError
from postline.testing import TestApp
from tests.unit.queues import isolated


async def test_a_plain_function_runs_in_a_process_that_is_used_again() -> None:
    async with TestApp(isolated.app, patience_seconds=60):
        (first, said), (second, _) = await isolated.pid.request("a"), await isolated.pid.request("b")
        assert said == "a"
        assert first == second != os.getpid()


async def test_a_process_is_killed_at_the_limit_and_replaced() -> None:
    async with TestApp(isolated.app, patience_seconds=60):
        before, _ = await isolated.pid.request("a")
        with pytest.raises(HandlerFault, match=r"longer than its limit of 0\.2 s"):
            await isolated.spin.request()
        after, _ = await isolated.pid.request("a")
        assert after != before
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)


async def test_a_crash_is_a_failed_attempt() -> None:
    async with TestApp(isolated.app, patience_seconds=60) as t:
        with pytest.raises(HandlerFault, match="died with exit code -9"):
            await isolated.die.request()
        assert len(t.dead_letters("isolated.tasks")) == 1


async def test_what_a_function_raises_decides_as_it_does_elsewhere() -> None:
    async with TestApp(isolated.app, patience_seconds=60) as t:
        with pytest.raises(HandlerFault, match="ValueError: no picture"):
            await isolated.fail.request(plainly=True)
        with pytest.raises(HandlerFault, match="Unpicklable: one and two"):
            await isolated.fail.request(plainly=False)
        with pytest.raises(HandlerFault, match="not wanted"):
            await isolated.give_up.request()
        assert t.audit()["isolated.tasks"] == {"dead-lettered": 2, "discarded": 1}


async def _async() -> None: ...


def _with_context(ctx: Context) -> None: ...


def _refused() -> list[Any]:
    def local() -> None: ...

    return [
        pytest.param(_async, "is `async def`", id="async"),
        pytest.param(_with_context, "takes the context", id="context"),
        pytest.param(local, "inside a function", id="local"),
    ]


@pytest.mark.parametrize(("function", "said"), _refused())
def test_what_no_other_process_can_call_is_refused(function: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        App("images").task(isolation="process")(function)
