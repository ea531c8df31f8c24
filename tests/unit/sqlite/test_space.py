"""The reserve for a full disk: what is said when it is given up."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import apsw
import pytest

from postline.log.sqlite.space import Reserve


def test_a_full_disk_is_told_of_by_the_name_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "shop.db"
    reserve = Reserve(log, 4096)
    assert reserve.restore()
    connection = Mock(spec=apsw.Connection)
    connection.wal_checkpoint.side_effect = apsw.FullError("database or disk is full")
    reserve.give_up(connection)
    assert [record.getMessage() for record in caplog.records] == [
        f"the disk of {log} is full: the reserve of 4096 bytes is in use",
        f"the WAL of {log} could not be emptied: database or disk is full",
    ]
