"""A service with a webhook, as a module has it, for `postline run`."""

from __future__ import annotations

import os

from msgspec import Struct

from postline import App, Retry, Topic
from postline.http.addresses import Addresses
from postline.http.webhooks import Endpoint, notify

__all__ = ["OrderPlaced", "app", "orders"]

orders = Topic("shop.orders", owner="shop", key="customer")


@orders.event("shop.OrderPlaced")
class OrderPlaced(Struct, frozen=True):
    """An order."""

    order: str
    customer: str


app = App("shop", owns=[orders])
notify(
    app,
    "partners",
    orders,
    Endpoint(url=os.environ.get("HOOK_URL", "http://127.0.0.1:9/"), secret="whsec_" + "a2" * 16),
    start="earliest",
    addresses=Addresses(allow=["127.0.0.1"], plain_http=True),
    retry=Retry(immediate=0, delays=(0.1,) * 50),
)
