"""What an artifact carries to be compared on its own device: reference outputs of its graphs."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from poolc.compiler.comparison import Reference
from poolc.model_cache.manifest import Manifest
from poolc.runtime.engine import Engine
from poolc.runtime.parity_file import References, packed
from poolc.spec import set_route


def carried_references(
    manifest: Manifest, engine: Engine, reference: Reference
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of ``parity_file.py`` for every graph; ``engine`` tokenises for it."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    files: set[str] = set()
    for case in reference.cases():
        prepared = engine.prepare(case.task, case.items, case.params)
        route = set_route(prepared.output_set)
        # Two sets may have one graph; other cases of a route are its graphs again.
        new = {
            info.file: (output_set, info)
            for output_set, info in reversed(list(manifest.graphs.items()))
            if set_route(output_set) == route and info.file not in files
        }
        files |= new.keys()
        rows = reference.rows(case) if new else []
        for output_set, info in new.values():
            names = {output.name for output in info.outputs}
            own = [{name: row[name] for name in row.keys() & names} for row in rows]
            arrays |= packed(References(output_set, prepared.sequences, own))
    return arrays
