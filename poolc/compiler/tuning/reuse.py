"""Which recorded tuning holds for a request: the one that it names, or that of the same request.

So that compiling again gives the same bytes, whatever the clock says the second time.
"""

from __future__ import annotations

from pathlib import Path

from poolc.compiler.tuning.record import Tuning, parse
from poolc.errors import ArtifactError
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.tuning import TUNE_MODES, tuning_record
from poolc.spec import CompileOptions


def recorded(options: CompileOptions, earlier: Path | None) -> Tuning | None:
    """Return the tuning of the record that ``tune`` names, or of an ``earlier`` artifact.

    Raises InvalidOption or InputError for a named record that cannot be used.
    """
    if options.tune not in TUNE_MODES:
        return parse(tuning_record(options.tune))
    if options.tune == "off" or earlier is None:
        return None
    try:
        return parse(open_artifact(earlier).manifest.tuning)
    except ArtifactError:
        return None
