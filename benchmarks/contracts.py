"""Contracts: what schema ids cost, decoding of another version beside its own, and the check of 500 types."""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from benchmarks.consuming import no_op
from benchmarks.orders import Order, order, orders
from benchmarks.results import Figure, Ratio, Result
from benchmarks.running import Options, billing, consumed, directory, open_log, run, running, settle
from postline import App
from postline.contracts.formats import FormatName, format_named
from postline.contracts.marks import was
from postline.contracts.reading import Reading

__all__ = ["check", "resolution", "schema_ids"]

#: More than elsewhere: a difference of a few percent is looked for.
_ROUNDS = 15
_DECODED = 2_000
_TOPICS, _TYPES, _VERSIONS = 10, 50, 4


class _Nameless(App):
    """An app whose records name no schema, as before there were versions."""

    async def _enroll(self) -> None:
        pass


def schema_ids(options: Options) -> Result:
    """Records that name their schema beside records that don't, in turn."""
    result = Result("schema-ids", "publish_many and a no-op handler, with schema ids and without")
    number = options.some(100_000)
    seconds: dict[str, list[float]] = {}

    async def main() -> None:
        kinds = [("without", _Nameless), ("with", App)]
        for turn in range(3 if options.quick else _ROUNDS):
            for name, kind in kinds[:: -1 if turn % 2 else 1]:
                path = Path(place) / f"{name}-{turn}.db"
                for what, taken in zip(("publish", "handle"), await _both(path, kind, number), strict=True):
                    seconds.setdefault(f"{what} {name}", []).append(taken)
                path.unlink()

    with directory() as place:
        run(main)
    result.figures += [Figure(name, number / min(each)) for name, each in sorted(seconds.items())]
    for what in ("publish", "handle"):
        share = _median_ratio(seconds[f"{what} without"], seconds[f"{what} with"])
        result.ratios.append(Ratio(f"{what}: share of the rate without", share, 0.9, unit="%"))
    return result


async def _both(path: Path, kind: type[App], number: int) -> tuple[float, float]:
    """The seconds that publishing takes on a new file, and handling from start to the last commit."""
    messages = [order(each) for each in range(number)]
    async with open_log(path) as environment:
        shop = kind("shop", owns=[orders])
        async with running(shop, environment):
            settle(path)
            began = time.perf_counter()
            await shop.publish_many(messages)
            published = time.perf_counter() - began
        settle(path)
        app = billing()
        no_op(app, "billing")
        return published, number / await consumed(app, environment, number)


class _Line(Struct, frozen=True, gc=False):
    """An item whose price was renamed."""

    sku: str
    quantity: int
    unit_price: Annotated[float, was("price")]


class _NewOrder(Struct, frozen=True):
    """The order's next version: renamed, promoted and added fields, here and in each item."""

    order_id: str
    customer: Annotated[str, was("customer_id")]
    total_cents: float
    currency: str
    placed_at_ns: int
    note: str
    items: list[_Line]
    channel: str = "web"


def resolution(options: Options) -> Result:
    """An older version's bytes read into the newest class, beside the same bytes read into their own."""
    result = Result("resolution", "orders of another version decoded, beside their own version")
    message = order(1)
    for name in ("json", "avro", "protobuf"):
        old, new = (Reading(cls, "shop.OrderPlaced", format_named(name)) for cls in (Order, _NewOrder))
        data = old.codec.encode(message)
        ways = {"raw": _raw(name, old), "own version": old.decode, "other version": new.decoder(old.schema)}
        found = _seconds(ways, data, 20 if options.quick else 100)
        result.figures += [Figure(f"{name}, {way}", 1 / min(each)) for way, each in found.items()]
        slower = _median_ratio(found["other version"], found["own version"])
        result.ratios.append(Ratio(f"{name}: time of its own version's", slower, 1.3, at_least=False))
        result.ratios.append(Ratio(f"{name}: time of raw", _median_ratio(found["own version"], found["raw"])))
    return result


def _seconds(ways: dict[str, Callable[[bytes], Any]], data: bytes, rounds: int) -> dict[str, list[float]]:
    """Of one decoding, round by round; every other round the other way about, so that none is always the first."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            found[way].append(timeit.timeit(partial(ways[way], data), number=_DECODED) / _DECODED)
    return found


def _median_ratio(these: list[float], those: list[float]) -> float:
    """Of neighbours in time: a machine that is busy for a while slows both, where the best of each may be apart."""
    return statistics.median(one / other for one, other in zip(these, those, strict=True))


def _raw(name: FormatName, reading: Reading) -> Callable[[bytes], Any]:
    """The format's own library alone; Avro's and Protobuf's give no values of the class, and check none."""
    document = reading.format.document(reading.schema)
    match name:
        case "json":
            return msgspec.json.Decoder(Order).decode
        case "avro":
            from fastavro import parse_schema, schemaless_reader

            parsed = parse_schema(msgspec.json.decode(document))
            return lambda data: schemaless_reader(io.BytesIO(data), parsed, None)
    from google.protobuf import descriptor_pool, message_factory

    from postline.contracts.protobuf_layout import Layout

    layout, pool = Layout(reading.schema), descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(layout.file.SerializeToString())
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName(layout.root_name))
    parse: Callable[[bytes], Any] = found.FromString
    return parse


def check(options: Options) -> Result:
    """`postline contracts check` of 500 types on 10 topics, each with four versions in its snapshot."""
    result = Result("contracts-check", f"`postline contracts check` of {_TOPICS * _TYPES} types")
    seconds = []
    with directory() as place:
        for version in range(_VERSIONS):
            (Path(place) / "contracts_app.py").write_text("\n".join(_module(version)))
            _postline(place, "snapshot")
        (Path(place) / "contracts_app.py").write_text("\n".join(_module(_VERSIONS)))
        for _ in range(1 if options.quick else 3):
            began = time.perf_counter()
            _postline(place, "check")
            seconds.append(time.perf_counter() - began)
    result.figures.append(Figure("postline contracts check, start of Python and all", min(seconds), "s"))
    result.ratios.append(Ratio("time", min(seconds), 10, at_least=False, unit="s"))
    return result


def _postline(place: str, what: str) -> None:
    command = [sys.executable, "-m", "postline", "contracts", what, "contracts_app:app"]
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)


def _module(version: int) -> Iterable[str]:
    """An app's contracts: each type has ten fields, a class in them, and one field more for each version."""
    yield "from decimal import Decimal\nfrom msgspec import Struct\nfrom postline import App, Topic"
    for topic in range(_TOPICS):
        yield f'topic_{topic} = Topic("shop.topic{topic}", owner="shop", key="field_0")'
        for number in range(_TYPES):
            name = f"Type{topic}x{number}"
            yield f"class Part{name}(Struct):\n    amount: Decimal\n    notes: dict[str, str] = {{}}"
            yield f'@topic_{topic}.event("shop.{name}")\nclass {name}(Struct):'
            yield from (f"    field_{each}: {'str' if each % 2 == 0 else 'int'}" for each in range(8))
            yield f"    part: Part{name}\n    parts: list[Part{name}] = []"
            yield from (f'    added_{each}: str = "none"' for each in range(version))
    yield f'app = App("shop", owns=[{", ".join(f"topic_{topic}" for topic in range(_TOPICS))}])'
