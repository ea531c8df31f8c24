"""The demo: a small shop of several processes on one file, killed while it works, that proves itself at the end.

The services (`shop`, `billing`, `packing`, `refunds`, `statistics`, with `contracts` between them) are written as a
user would write them. Around them: `files` (invoice lines), `direct` (the same sums in plain Python), `supervisor`
(starts, kills and restarts processes), `operator` (looks after dead letters), `proof` (the checks at the end).
"""

from __future__ import annotations

from postline.demo.command import command

__all__ = ["command"]
