"""One file a system: the program that runs inside that system's own environment.

Nothing here imports poolc but ``poolc.py``, and nothing here needs more than NumPy and the system.
"""
