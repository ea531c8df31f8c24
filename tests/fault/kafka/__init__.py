"""Faults on real brokers: processes and brokers are killed, stopped and confused, and what is left is judged."""
