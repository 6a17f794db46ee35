"""Two models on the same texts: what moving from one to the other changes.

``run.py`` asks both sides (``sides.py``; ``original.py`` for a model in its own library),
``figures.py`` compares, ``result.py`` names what was found; ``table.py`` and ``page.py`` show it.
"""

from __future__ import annotations

from poolc.compare.result import Comparison, Threshold
from poolc.compare.run import Settings, compare

__all__ = ["Comparison", "Settings", "Threshold", "compare"]
