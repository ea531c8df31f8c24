"""Groups of real processes on one file."""
