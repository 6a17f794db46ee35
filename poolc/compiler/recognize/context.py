"""What every step of recognition reads, and what recognition returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from poolc.compiler.architecture import Architecture
from poolc.compiler.logit_score import LogitScore
from poolc.compiler.pooler_config import PoolerConfig
from poolc.compiler.st_files import SentenceTransformer
from poolc.spec import CompileOptions, ModelSpec

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recognized:
    """A spec, the class behind it, and the folder (below the source) of its weights.

    ``routes``: the other routes of an asymmetric model, by name; ``spec.router`` has their specs.
    ``template`` is the text of a score template.
    """

    spec: ModelSpec
    arch: Architecture
    transformer: str
    st: SentenceTransformer | None
    routes: Mapping[str, Route] = field(default_factory=dict)
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a model, and what its texts are tokenised with."""

    recognized: Recognized
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Context:
    """The files and options of one model, read."""

    folder: Path
    options: CompileOptions
    pooler: PoolerConfig
    st: SentenceTransformer | None
    config: Any
    tokenizer: PreTrainedTokenizerBase
    warn: Warn
    logit_score: LogitScore | None = None


def config_changes(st: SentenceTransformer | None, options: CompileOptions) -> dict[str, Any]:
    """Return what Sentence Transformers changes in config.json as it loads the model.

    --hf-overrides, which are written into config.json, come last.
    """
    given = st.bert.config_kwargs if st else {}
    return {key: value for key, value in given.items() if key not in options.hf_overrides}
