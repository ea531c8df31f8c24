"""The services of a kill loop as a module has them, for `postline run`; POSTLINE_INSTANCE names the journal."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fault.journal import Journal
from tests.fault.scenario import Scenario
from tests.fault.services import Services

__all__ = ["billing", "ledger", "mirror"]

_directory = Path(os.environ["FAULT_DIRECTORY"])
_slot, _, _life = os.environ["POSTLINE_INSTANCE"].rpartition(".")
_journal = Journal(_directory, _slot, int(_life))

billing, ledger, mirror = Services(Scenario.load(_directory), _directory, _journal, version=2).apps
_journal.write("ready")
