"""A service whose log is deleted underneath it ends and says why, rather than work for nobody."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.integration.processes import ROOT

_APP = """
from msgspec import Struct
from postline import App, Topic

orders = Topic("shop.orders", owner="shop", key="customer", partitions=2)

@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    customer: str

app = App("shop", owns=[orders])

@app.subscribe("billing", orders, start="earliest").on(OrderPlaced)
async def bill(order: OrderPlaced) -> None:
    pass
"""


async def test_a_service_whose_log_is_deleted_ends_with_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(_APP)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "postline", "run", "app", "--url", "sqlite:///shop.db"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        while b": running" not in said:
            said += await process.stderr.readline()
            assert process.returncode is None, said
        (tmp_path / "shop.db").unlink()
        said += await process.stderr.read()
        assert await process.wait() == 4, said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"'shop' failed" in said
    assert b"shop.db was removed or replaced" in said
    assert b"Traceback" not in said
