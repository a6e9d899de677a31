"""Benchmarks: both sides in one run, totals checked before a time is printed. `python -m benchmarks`."""
