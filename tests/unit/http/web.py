"""A ledger behind a gateway, asked over HTTP without a network, on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from postline.http.gateway import gateway
from postline.testing import TestApp
from tests.unit.commands.ledger import Ledger

__all__ = ["PAY", "TRANSFER", "Web", "running_web"]

PAY = {"source": "anna", "target": "bob", "amount": 30}
TRANSFER = "/commands/ledger.Transfer"


class Web:
    """A client of the gateway, and what lies behind it."""

    def __init__(self, ledger: Ledger, harness: TestApp, **options: Any) -> None:
        self.ledger, self.harness = ledger, harness
        self.gateway = gateway(ledger.client, **options)
        self.http = self.client()

    def client(self, *, peer: str = "127.0.0.1", base: str = "http://localhost", **more: Any) -> httpx.AsyncClient:
        """Another client."""
        transport = httpx.ASGITransport(self.gateway, client=(peer, 4711))
        return httpx.AsyncClient(transport=transport, base_url=base, **more)

    async def pay(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """POST a transfer."""
        return await self.http.post(TRANSFER, json=PAY | fields, headers=headers)


@asynccontextmanager
async def running_web(**options: Any) -> AsyncIterator[Web]:
    """A gateway over a ledger that runs in memory."""
    ledger = Ledger()
    async with TestApp(ledger.service, ledger.client) as harness:
        yield Web(ledger, harness, **options)
