"""Trunk and head as the one module that is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from poolc.compiler.heads.classifier import ClassifierHead
from poolc.compiler.heads.embedding import EmbeddingHead
from poolc.compiler.heads.hybrid import HybridHead
from poolc.compiler.heads.multi_vector import MultiVectorHead
from poolc.compiler.heads.sparse import SpladeHead
from poolc.compiler.heads.tokens import HiddenStatesHead, TokenLogitsHead
from poolc.compiler.heads.trunks import adapted
from poolc.spec import POOLING_MASK, Kind, ModelSpec


class Head(Protocol):
    """What every head is: a module over the trunk's outputs."""

    output_names: tuple[str, ...]  # of the graph, in the order in which ``forward`` returns them
    wants_hidden_states: bool  # whether the trunk has to return all of them

    def __init__(self, spec: ModelSpec, folder: Path) -> None: ...


_HEADS: dict[Kind, type[nn.Module]] = {
    Kind.EMBEDDING: EmbeddingHead,
    Kind.CLASSIFIER: ClassifierHead,
    Kind.TOKEN_CLASSIFIER: TokenLogitsHead,
    Kind.SPARSE: SpladeHead,
    Kind.MULTI_VECTOR: MultiVectorHead,
    Kind.HYBRID: HybridHead,
}


def _head(spec: ModelSpec) -> type[nn.Module]:
    if spec.kind is Kind.REWARD:
        return TokenLogitsHead if spec.labels else HiddenStatesHead
    return _HEADS[spec.kind]


class PoolingModel(nn.Module):
    """Trunk and head over the inputs that ``spec.inputs`` names, each int64 (batch, seq).

    ``folder`` is the source model's: heads read their own weights there.
    """

    def __init__(self, backbone: nn.Module, spec: ModelSpec, folder: Path) -> None:
        super().__init__()
        self.backbone = adapted(backbone, spec)
        self.input_names = spec.inputs
        self.head = _head(spec)(spec, folder)

    @property
    def output_names(self) -> list[str]:
        """The graph's outputs, in the order in which ``forward`` returns them."""
        names: tuple[str, ...] = self.head.output_names  # type: ignore[assignment]
        return list(names)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.input_names, inputs, strict=True))
        of_backbone = {name: value for name, value in named.items() if name != POOLING_MASK}
        outputs = self.backbone(
            **of_backbone, output_hidden_states=self.head.wants_hidden_states, return_dict=True
        )
        result: tuple[Tensor, ...] = self.head(outputs, named)
        return result
