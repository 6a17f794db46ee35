"""The vLLM-shaped facade: ``from poolc import LLM, PoolingParams``.

``facade.py`` runs requests over an Engine, ``params.py`` and ``prompts.py`` read what a caller
passes, ``knobs.py`` knows the constructor arguments of vLLM, ``outputs.py`` its result objects.
"""

from __future__ import annotations

from poolc.llm.facade import LLM
from poolc.llm.outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
)
from poolc.llm.params import PoolingParams
from poolc.llm.pooler import PoolerConfig

__all__ = [
    "LLM",
    "ClassificationOutput",
    "ClassificationRequestOutput",
    "EmbeddingOutput",
    "EmbeddingRequestOutput",
    "PoolerConfig",
    "PoolingOutput",
    "PoolingParams",
    "PoolingRequestOutput",
    "ScoringOutput",
    "ScoringRequestOutput",
]
