"""Benchmarks: ours beside the straightforward way, in one run on one machine. `headwater bench --help`."""
