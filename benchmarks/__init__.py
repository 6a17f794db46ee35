"""Benchmarks, with public tools only."""
