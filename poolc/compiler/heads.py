"""Torch modules that put a model's heads behind its backbone, in the form that is exported.

Formulas are those of Sentence Transformers (pooling.py, dense.py, normalize.py of version 6) for
right-padded input; padded positions never count. Heads compute in fp32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from poolc.compiler.architecture import one_line
from poolc.errors import CorruptWeights
from poolc.spec import (
    ATTENTION_MASK,
    LOGITS,
    POOLED,
    PROBS,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    Activation,
    DenseSpec,
    ModelSpec,
    PoolingType,
)

_MODULES: dict[Activation, type[nn.Module]] = {
    Activation.IDENTITY: nn.Identity,
    Activation.SIGMOID: nn.Sigmoid,
    Activation.TANH: nn.Tanh,
    Activation.RELU: nn.ReLU,
    Activation.GELU: nn.GELU,
    Activation.SILU: nn.SiLU,
    Activation.ELU: nn.ELU,
    Activation.LEAKY_RELU: nn.LeakyReLU,
    Activation.MISH: nn.Mish,
    Activation.SOFTPLUS: nn.Softplus,
}


def activation_module(kind: Activation) -> nn.Module:
    """Return the torch module of an activation; softmax is over the last axis."""
    return nn.Softmax(dim=-1) if kind is Activation.SOFTMAX else _MODULES[kind]()


class Dense(nn.Module):
    """Sentence Transformers' Dense: activation(linear(x)), plus a residual where configured."""

    def __init__(self, spec: DenseSpec, folder: Path) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.in_features, spec.out_features, bias=spec.bias)
        self.activation = activation_module(spec.activation)
        self.residual: nn.Module | None = None
        if spec.residual:
            same = spec.in_features == spec.out_features
            self.residual = (
                nn.Identity()
                if same
                else nn.Linear(spec.in_features, spec.out_features, bias=False)
            )
        path = folder / spec.path / "model.safetensors"
        try:
            self.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        except RuntimeError as error:
            raise CorruptWeights(
                f"{spec.path}/model.safetensors does not fit {spec.path}/config.json: "
                f"{one_line(error)}"
            ) from error

    def forward(self, x: Tensor) -> Tensor:  # (batch, in) -> (batch, out)
        out: Tensor = self.activation(self.linear(x))
        return out if self.residual is None else out + self.residual(x)


def pool(hidden: Tensor, mask: Tensor, kind: PoolingType) -> Tensor:
    """Pool (batch, seq, hidden) where mask (batch, seq) is 1 -> (batch, hidden)."""
    if kind is PoolingType.CLS:
        return hidden[:, 0]
    if kind is PoolingType.LAST:
        last = mask.sum(dim=1) - 1  # (batch,)
        index = last.clamp(min=0)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, index).squeeze(1)
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, seq, 1)
    if kind is PoolingType.MAX:
        return hidden.masked_fill(weights == 0, float("-inf")).amax(dim=1)
    if kind is PoolingType.WEIGHTED_MEAN:  # position p, counted from 1, has weight p
        weights = weights * mask.cumsum(dim=1).unsqueeze(-1).to(hidden.dtype)
    total = (hidden * weights).sum(dim=1)
    count = weights.sum(dim=1).clamp(min=1e-9)
    return total / (count.sqrt() if kind is PoolingType.MEAN_SQRT_LEN else count)


class EmbeddingHead(nn.Module):
    """Pooling, Dense chain, Normalize."""

    output_names = (POOLED, SENTENCE_EMBEDDING, TOKEN_EMBEDDINGS)

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        super().__init__()
        self.kinds = spec.pooling
        self.dense = nn.ModuleList(Dense(dense, folder) for dense in spec.dense)
        self.normalize = spec.normalize

    def forward(self, outputs: Any, mask: Tensor) -> tuple[Tensor, ...]:
        hidden = outputs.last_hidden_state.float()
        pooled = torch.cat([pool(hidden, mask, kind) for kind in self.kinds], dim=-1)
        for dense in self.dense:
            pooled = dense(pooled)
        unit = nn.functional.normalize(pooled, p=2.0, dim=-1) if self.normalize else pooled.clone()
        return pooled, unit, hidden


class ClassifierHead(nn.Module):
    """The checkpoint's own classification head, then the activation."""

    output_names = (LOGITS, PROBS, TOKEN_EMBEDDINGS)

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.activation = activation_module(spec.activation or Activation.IDENTITY)

    def forward(self, outputs: Any, mask: Tensor) -> tuple[Tensor, ...]:
        logits = outputs.logits.float()
        return logits, self.activation(logits).clone(), outputs.hidden_states[-1].float()


class TokenHead(nn.Module):
    """Hidden states as they are, for reward models without a head of their own."""

    output_names = (TOKEN_EMBEDDINGS,)

    def forward(self, outputs: Any, mask: Tensor) -> tuple[Tensor, ...]:
        return (outputs.last_hidden_state.float(),)


class PoolingModel(nn.Module):
    """Backbone and head over the inputs that ``spec.inputs`` names, each int64 (batch, seq)."""

    def __init__(self, backbone: nn.Module, spec: ModelSpec, folder: Path) -> None:
        super().__init__()
        self.backbone = backbone
        self.input_names = spec.inputs
        self.head: EmbeddingHead | ClassifierHead | TokenHead
        if spec.labels:
            self.head = ClassifierHead(spec)
        elif spec.embedding_size is not None:
            self.head = EmbeddingHead(spec, folder)
        else:
            self.head = TokenHead()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.input_names, inputs, strict=True))
        wants_states = isinstance(self.head, ClassifierHead)
        outputs = self.backbone(**named, output_hidden_states=wants_states, return_dict=True)
        result: tuple[Tensor, ...] = self.head(outputs, named[ATTENTION_MASK])
        return result
