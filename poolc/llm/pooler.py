"""PoolerConfig: vLLM's object of pooling options, of both generations of its names.

Knows names and types; what a model makes of them is the compiler's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class PoolerConfig:
    """What ``LLM(pooler_config=...)`` overrides; None where the model decides."""

    pooling_type: str | None = None
    seq_pooling_type: str | None = None
    tok_pooling_type: str | None = None
    task: str | None = None
    normalize: bool | None = None
    softmax: bool | None = None
    use_activation: bool | None = None
    activation: bool | str | None = None
    dimensions: int | None = None
    logit_mean: float | None = None
    logit_bias: float | None = None
    logit_sigma: float | None = None
    step_tag_id: int | None = None
    returned_token_ids: Sequence[int] | None = None
    enable_chunked_processing: bool | None = None
    max_embed_len: int | None = None
    enable_flash_late_interaction: bool | None = None
