"""A view of another service's topic: only the fields that are read, without importing the owner's code.

Two services that know each other by names on the wire alone. Run them: `postline run foreign_view.py:warehouse
foreign_view.py:shipping`
"""

from __future__ import annotations

from msgspec import Struct

from postline import App, Context, ForeignTopic, Topic

# warehouse/contracts.py: the owner's contract.
parcels = Topic("warehouse.parcels", owner="warehouse", key="order")


@parcels.event("warehouse.ParcelPacked")
class ParcelPacked(Struct, frozen=True):
    order: str
    grams: int
    packer: str
    shelf: str = ""


@parcels.event("warehouse.ParcelCounted")
class ParcelCounted(Struct, frozen=True):
    order: str


warehouse = App("warehouse", owns=[parcels])

# shipping/app.py: a consumer somewhere else. Other types of the topic are filtered, other fields ignored.
packed = ForeignTopic("warehouse.parcels")


@packed.reads("warehouse.ParcelPacked")
class Parcel(Struct, frozen=True):
    order: str
    grams: int


labels = Topic("shipping.labels", owner="shipping", key="order")


@labels.event("shipping.LabelPrinted")
class LabelPrinted(Struct, frozen=True):
    order: str
    postage: int


shipping = App("shipping", owns=[labels])
printing = shipping.subscribe("shipping-labels", packed, start="earliest")


@printing.on(Parcel)
async def print_label(parcel: Parcel, ctx: Context) -> LabelPrinted:
    return LabelPrinted(parcel.order, postage=4 if parcel.grams < 1000 else 9)
