"""The settings of Jina-BERT, without torch: what compiles from ONNX reads them too."""

from __future__ import annotations

from transformers import BertConfig

from poolc.compiler.natives import JINA_BERT


class JinaBertConfig(BertConfig):
    """BERT's settings, and how its two published layouts differ from BERT and from each other."""

    model_type = JINA_BERT

    max_position_embeddings: int = 8192  # no weights: the length that the models are meant for
    feed_forward_type: str = "geglu"
    qk_post_norm: bool = False  # the layout of jina-bert-v2-qk-post-norm
