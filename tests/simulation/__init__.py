"""The simulator: a deterministic event loop, a log engine with injected faults, and checkers (DESIGN §13)."""
