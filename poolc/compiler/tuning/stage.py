"""The stage of a compile that tunes: by a record where there is one, else by timing.

The record is the one that the request names, or that of an artifact of the same request, so that
compiling again gives the same bytes whatever the clock says the second time.
"""

from __future__ import annotations

from pathlib import Path

from poolc.compiler.events import Progress
from poolc.compiler.targets.base import Lowerable, TargetCompiler
from poolc.compiler.tuning.choose import Tuned
from poolc.compiler.tuning.record import Tuning, parse
from poolc.errors import ArtifactError
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.publish import staging
from poolc.model_cache.tuning import TUNE_MODES, tuning_record
from poolc.spec import CompileOptions, ModelSpec


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


def tune(
    target: TargetCompiler,
    graphs: Lowerable,
    spec: ModelSpec,
    mode: str,
    parent: Path,
    progress: Progress,
) -> Tuned:
    """Time what ``target`` can choose, in a folder of ``parent`` that is gone afterwards."""
    if mode == "off":
        return Tuned(target.untimed(), {"mode": mode})
    with staging(parent) as folder, progress.stage("tune"):
        return target.tune(graphs, spec, target.untimed(), mode, folder)
