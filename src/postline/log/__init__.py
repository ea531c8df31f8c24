"""The durable partitioned log: its port, and the engines behind it."""
