"""Which rewrites a graph gets, chosen by timing them; the search is in ``choose.py``."""
