"""Measurements that are printed, not asserted: `python -m benchmarks.ct`. A busy machine is no failing test."""
