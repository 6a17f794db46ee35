"""Checkpoints of their own kind: one entry a row of the page's second table.

A row is added to the module of its subject, or to one more module in ``_SUBJECTS``.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.matrix.checkpoints import (
    authors,
    embedders,
    jina_bert,
    rerankers,
    retrieval,
    rewards,
    static,
)
from tests.matrix.checkpoints.base import Checkpoint

_SUBJECTS = (embedders, authors, jina_bert, static, retrieval, rerankers, rewards)

CHECKPOINTS: Mapping[str, Checkpoint] = {
    checkpoint.name: checkpoint for subject in _SUBJECTS for checkpoint in subject.CHECKPOINTS
}
