"""Which rewrites a graph gets, chosen by timing them: one file a step, in order in ``choose.py``."""
