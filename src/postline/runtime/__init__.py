"""The runtime: turns records of a log into handled messages, and handlers' outputs into one commit."""
