"""Causal attention said by its attribute, without a mask: kernels then skip what is masked.

Texts are padded on the right, so that no real token has padding before it, and what padding sees
does not matter.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.passes.mask_kinds import Evaluate, MaskKind, mask_kind
from poolc.compiler.passes.rewrite import attribute


class CausalAttentionPass(ir.passes.InPlacePass):
    """Drop the masks that only hide what comes later, in texts of up to ``max_length``."""

    def __init__(self, max_length: int, evaluate: Evaluate) -> None:
        super().__init__()
        self._max_length, self._evaluate = max_length, evaluate

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        kinds: dict[ir.Value, MaskKind | None] = {}
        modified = False
        for node in model.graph:
            mask = node.inputs[3] if node.op_type == "Attention" and len(node.inputs) == 4 else None
            if mask is None or node.domain or attribute(node, "is_causal", 0):
                continue
            if mask not in kinds:
                kinds[mask] = mask_kind(model, mask, self._max_length, self._evaluate)
            if kinds[mask] is MaskKind.CAUSAL:
                node.resize_inputs(3)
                node.attributes["is_causal"] = ir.AttrInt64("is_causal", 1)
                modified = True
        if modified:
            RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified)
