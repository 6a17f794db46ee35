"""What every step of recognition reads, and what recognition returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    """A spec, the class behind it, the folder (below the source) of its weights, and the text of
    its score template."""

    spec: ModelSpec
    arch: Architecture
    transformer: str
    st: SentenceTransformer | None
    template: str | None = None


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
