"""The port's promises, checked on every engine."""
