"""The embedded engine: one SQLite file that several processes of a machine share (DESIGN §8)."""
