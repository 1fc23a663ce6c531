"""Benchmarks and plots that are run by hand: `python tests/benchmarks/NAME.py`."""
