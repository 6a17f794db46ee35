"""One file a backend; ``base.py`` is the seam between the engine and whatever executes a graph."""
