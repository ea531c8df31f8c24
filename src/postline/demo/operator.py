"""The shop's operator: finds the parcel that packing gave up, mends the cause, and redrives it."""

from __future__ import annotations

from pathlib import Path

from postline.demo.scenario import Bench, Scenario
from postline.demo.shoplog import ShopLog
from postline.monitor import DeadLetterDetail, RecordId
from postline.operations import Request

__all__ = ["Operator"]


class Operator:
    """Does once what a person would do with `postline dlq list`, `show` and `redrive`."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self._printer = Bench(scenario, directory)
        self._asked: Request | None = None
        self.poison = scenario.poison_invoice
        #: The dead letter as it was found, with its stack.
        self.shown: DeadLetterDetail | None = None
        #: Whether the owner of its partition has done what was asked.
        self.obeyed = not scenario.poison_invoice

    async def look(self, shop: ShopLog) -> None:
        """Redrive packing's dead letter if there is one, or see whether that was done."""
        if self._asked is not None:
            self.obeyed = self.obeyed or await shop.operations.obeyed(self._asked, 0)
        elif not self.obeyed and (letters := await shop.monitor.dead_letters(packing := shop.full("packing"))):
            place = RecordId(letters[0].partition, letters[0].offset)
            self.shown = await shop.monitor.dead_letter(packing, place)
            self._printer.repaired.touch()
            self._asked = await shop.operations.redrive(packing, [place])
