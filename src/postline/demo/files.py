"""Invoice lines in CSV files, one file a day: reading them as they stand, and making some up."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from postline.demo.parsing import COLUMNS
from postline.errors import UsageError

__all__ = ["FileLine", "list_files", "read_files", "write_orders"]

ORDERS_A_DAY = 200
_SPOILED_EACH = 400
_COUNTRIES = ("United Kingdom", "Germany", "France", "EIRE", "Spain", "Netherlands", "Unspecified")
_COUNTRY_WEIGHTS = (80, 5, 5, 4, 2, 3, 1)
_GOODS = (
    ("85123A", "WHITE HANGING HEART T-LIGHT HOLDER", "2.55"),
    ("22423", "REGENCY CAKESTAND 3 TIER", "12.75"),
    ("47566", "PARTY BUNTING", "4.95"),
    ("84879", 'BIRD ORNAMENT, "ASSORTED"', "1.69"),
    ("20725", "LUNCH BAG RED RETROSPOT", "1.65"),
    ("21212", "PACK OF 72 CAKE CASES, RETROSPOT", "0.55"),
    ("22197", "POPCORN HOLDER", "0.85"),
    ("POST", "POSTAGE", "18.00"),
    ("B", "Adjust small change", "0.001"),
)


class FileLine(NamedTuple):
    """One line of a file, without its end; `number` counts the lines of all files from 1, headers left out."""

    number: int
    file: str
    line: int
    text: str


def list_files(directory: Path) -> list[Path]:
    """The CSV files in the order of their names. Raises UsageError if there are none."""
    found = sorted(path for path in directory.glob("*.csv") if path.is_file())
    if not found:
        raise UsageError(
            f"{directory} holds no .csv file.",
            remedy=f"Give a directory of files with the columns {', '.join(COLUMNS)}.",
        )
    return found


def read_files(directory: Path) -> Iterator[FileLine]:
    """All lines of all files but headers and empty ones; bytes that aren't UTF-8 are spelled out as \\xNN."""
    number = 0
    for path in list_files(directory):
        with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="\n") as file:
            for index, ended in enumerate(file, 1):
                text = ended.rstrip("\r\n")
                if text and not (index == 1 and text.startswith(COLUMNS[0] + ",")):
                    number += 1
                    yield FileLine(number, path.name, index, text)


class _Till:
    """Makes up orders: some repeated lines, some cancelled, some without a customer, a few unreadable lines."""

    def __init__(self, randomness: random.Random) -> None:
        self._random = randomness
        self._sold: list[list[str]] = []
        self._next_invoice = 536_370

    def order(self, day: str) -> list[str]:
        """The lines of one order, or of one cancellation."""
        roll = self._random
        self._next_invoice += 1
        if self._sold and roll.random() < 0.08:
            rows = [self._cancelled(roll.choice(self._sold), day)]
        else:
            rows = self._placed(day)
            self._sold.append(roll.choice(rows))
        texts = [_text(row) for row in rows]
        if roll.random() < 0.05:
            texts.append(roll.choice(texts))
        if self._next_invoice % _SPOILED_EACH == 0:
            texts.insert(roll.randrange(len(texts) + 1), self._spoiled(rows[0]))
        return texts

    def _placed(self, day: str) -> list[list[str]]:
        roll = self._random
        customer = f"{12_346 + int(roll.paretovariate(0.6)) % 800}.0" if roll.random() < 0.75 else ""
        country = roll.choices(_COUNTRIES, _COUNTRY_WEIGHTS)[0]
        time = f"{day} {roll.randrange(8, 18):02}:{roll.randrange(60):02}:00"
        rows = []
        for code, name, price in roll.sample(_GOODS, roll.randint(1, 6)):
            quantity = str(roll.choice((1, 1, 2, 3, 6, 12, 48)))
            rows.append([str(self._next_invoice), code, name, quantity, time, price, customer, country])
        return rows

    def _cancelled(self, row: list[str], day: str) -> list[str]:
        return [f"C{self._next_invoice}", *row[1:3], "-" + row[3], f"{day} 17:59:00", *row[5:]]

    def _spoiled(self, row: list[str]) -> str:
        damaged = list(row)
        if self._random.random() < 0.5:
            damaged[3] = "six"
        else:
            del damaged[5]
        return _text(damaged)


def _text(row: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(row)
    return out.getvalue()


def write_orders(directory: Path, orders: int, randomness: random.Random) -> None:
    """Make up so many orders and write them to `directory`, one file for some hundreds of them."""
    till = _Till(randomness)
    for first in range(0, orders, ORDERS_A_DAY):
        number = first // ORDERS_A_DAY
        day = f"{2031 + number // 336}-{number // 28 % 12 + 1:02}-{number % 28 + 1:02}"
        texts = [",".join(COLUMNS)]
        for _ in range(min(ORDERS_A_DAY, orders - first)):
            texts += till.order(day)
        (directory / f"{day}.csv").write_text("\n".join(texts) + "\n", encoding="utf-8")
