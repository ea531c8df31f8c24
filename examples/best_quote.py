"""Scatter and gather: a load is offered to several carriers, and the cheapest of all their quotes is awarded it.

Run it: `postline run best_quote.py`; then, from another shell,
`echo '{"load":"l-1","tons":4}' | postline publish freight.loads freight.Load --app best_quote.py`
"""

from __future__ import annotations

from msgspec import Struct

from postline import App, Context, Topic, field
from postline.routing import Part, Whole

loads = Topic("freight.loads", owner="freight", key="load")
offers = Topic("freight.offers", owner="freight", key="carrier")
quotes = Topic("freight.quotes", owner="freight", key="carrier")
awards = Topic("freight.awards", owner="freight", key="load")

CENTS_PER_TON = {"river": 900, "road": 1_500, "rail": 1_100}


@loads.event("freight.Load")
class Load(Struct, frozen=True):
    load: str
    tons: int


@offers.event("freight.Offer")
class Offer(Struct, frozen=True):
    load: str
    carrier: str
    tons: int


@quotes.event("freight.Quote")
class Quote(Struct, frozen=True):
    load: str
    carrier: str
    cents: int


@awards.event("freight.Award")
class Award(Struct, frozen=True):
    load: str
    carrier: str
    cents: int


@awards.event("freight.HeavyLoad")
class HeavyLoad(Struct, frozen=True):
    load: str
    tons: int


app = App("freight", owns=[loads, offers, quotes, awards])


def ask(load: Load) -> list[Offer]:
    carriers = CENTS_PER_TON if load.tons <= 500 else ["river"]  # nobody else carries that much
    return [Offer(load.load, carrier, load.tons) for carrier in carriers]


def best(given: list[Quote]) -> Award:
    won = min(given, key=lambda quote: quote.cents)
    return Award(won.load, won.carrier, won.cents)


app.route("weighing", loads, start="earliest").when(field("tons") > 500, to=HeavyLoad)
app.split("asking", loads, into=ask, start="earliest")
app.aggregate("awarding", quotes, complete=Whole(), into=best, start="earliest")

quoting = app.subscribe("quoting", offers, start="earliest")


@quoting.on(Offer)
async def quote(offer: Offer, ctx: Context) -> None:
    part = Part.of(ctx)  # the quote stands for the offer among those of its load
    cents = offer.tons * CENTS_PER_TON[offer.carrier]
    ctx.publish(Quote(offer.load, offer.carrier, cents), headers=part.headers if part else None)
