"""Trunks of transformers as the exporter writes them, without a folder or a head."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from poolc.compiler.export import export
from poolc.compiler.models.jina_bert.classes import JinaBertModel
from poolc.compiler.models.jina_bert.config import JinaBertConfig
from poolc.compiler.passes.strip_metadata import StripMetadataPass


class _Trunk(torch.nn.Module):
    input_names = ("input_ids", "attention_mask")
    output_names = ("token_embeddings",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> Any:
        ids, mask = inputs
        return self.model(input_ids=ids, attention_mask=mask)[0]


def traced(model_class: Any, config: Any) -> ir.Model:
    """Return the graph of a model with seeded weights, as the pipeline hands it to targets."""
    torch.manual_seed(3)
    config._attn_implementation = "sdpa"
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    graph = export(_Trunk(model))  # type: ignore[arg-type]
    return StripMetadataPass()(graph).model


def traced_jina() -> ir.Model:
    """The same of Jina-BERT, whose heads are no power of two here."""
    sizes = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2}
    return traced(JinaBertModel, JinaBertConfig(vocab_size=90, intermediate_size=64, **sizes))
