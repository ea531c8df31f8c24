"""What Postline costs beside the raw limit and its peers: `python -m benchmarks`, or scripts/bench."""
