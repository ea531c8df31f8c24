"""Publishing from synchronous code: a script, a Flask view, a Django form, a cron job.

Handlers run elsewhere (`postline run shop.py`); this program only publishes, from any thread, durably.

Run it: `python script.py orders.csv`, with lines such as `o-1,ann,40`
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator

from shop import OrderPlaced, orders

from postline import App, MessageError, sync

connection = sync.connect(App("importer", publishes_to=[orders]))  # at import; nothing starts yet


def read(lines: Iterable[str]) -> Iterator[OrderPlaced]:
    """The orders of CSV lines."""
    for order, customer, total in csv.reader(lines):
        yield OrderPlaced(order, customer, int(total))


def main() -> int:
    """Publish all orders of a file; running it again is safe, because each has an own id."""
    with open(sys.argv[1], encoding="utf-8") as lines:
        try:
            published = connection.publish_many(read(lines), id_of=lambda order: f"import-{order.order}")
        except MessageError as refused:
            print(refused, file=sys.stderr)
            return 1
    print(f"{len(published)} orders are durable")
    return 0


# In Flask it is the same connection, made once in the module:
#
#     @server.post("/orders")
#     def take_order():
#         order = OrderPlaced(**request.get_json())
#         published = connection.publish(order, id=request.headers["Idempotency-Key"])
#         return {"id": published.id}, 202

if __name__ == "__main__":
    raise SystemExit(main())
