"""Models that transformers lacks and whose authors' code cannot be exported: a folder each.

Registered with transformers, so that its Auto classes and Sentence Transformers load them like any
other. Importing this needs no torch; ``register_classes`` does.
"""

from __future__ import annotations

import transformers
from transformers import AutoConfig

from poolc.compiler.models.jina_bert.config import JinaBertConfig


def register_configs() -> None:
    """Let AutoConfig read the model types of this folder."""
    AutoConfig.register(JinaBertConfig.model_type, JinaBertConfig, exist_ok=True)


def register_classes() -> None:
    """Let the Auto classes build the models of this folder. Imports torch."""
    from poolc.compiler.models.jina_bert.classes import CLASSES

    for auto, model in CLASSES.items():
        getattr(transformers, auto).register(JinaBertConfig, model, exist_ok=True)


def has_masked_lm(model_type: str) -> bool:
    """Say whether a family has a masked-language-model head, of transformers or of this folder."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    ours = model_type == JinaBertConfig.model_type
    return ours or model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
