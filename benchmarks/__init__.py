"""Benchmarks: ratios against peers in one run, with public tools only. Not part of the package."""
