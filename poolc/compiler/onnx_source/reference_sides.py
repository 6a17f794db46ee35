"""The reference of multi-vector models from ONNX: both sides as MultiVectorEncoder reads them.

Markers, expansion and masks follow Sentence Transformers 6 (its Transformer's ``preprocess`` and
MultiVectorMask), apart from the runtime's ``sides.py``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from poolc.compiler.comparison import Case, Subject
from poolc.compiler.onnx_source import numpy_heads
from poolc.compiler.onnx_source.layers import load_layers
from poolc.compiler.onnx_source.reference import Encoded, Rows, ShippedReference
from poolc.compiler.onnx_source.shipped import Shipped
from poolc.runtime.request import Item
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    TOKEN_VECTORS,
    MultiVectorSpec,
    SideSpec,
)

_QUERY, _DOCUMENT = "query", "document"


class SidesReference(ShippedReference):
    """See ``ShippedReference``."""

    def __init__(self, subject: Subject, shipped: Shipped, sides: MultiVectorSpec) -> None:
        super().__init__(subject, shipped)
        self._sides = sides
        self._projection = load_layers(sides.layers, subject.folder)

    def cases(self) -> list[Case]:
        """See ``Reference.cases``."""
        (case,) = super().cases()
        return [
            replace(case, params=replace(case.params, prompt=None, side=side))
            for side in (_QUERY, _DOCUMENT)
        ]

    def _heads(self, made: Rows, case: Case, encoded: Encoded) -> Rows:
        vectors = numpy_heads.apply(self._projection, made[str(self._shipped.tokens)])
        if self._sides.normalize:
            vectors = numpy_heads.normalize(vectors)
        return {TOKEN_VECTORS: vectors[self._kept(case, encoded)]}

    def _encode(self, case: Case, item: Item) -> Encoded:
        side = self._side(case)
        text = self._spec.prompts.get(str(case.params.side), "") + str(item)
        longest = min(side.max_length, self._max_length)
        found = self._tokenizer(text, truncation=True, max_length=longest)
        missing = max(0, (side.expand_to or 0) - len(found[INPUT_IDS]))
        filler = {INPUT_IDS: self._sides.expansion_id, ATTENTION_MASK: int(side.attend_expansion)}
        return {
            name: np.array([[*found[name], *[filler.get(name, 0)] * missing]], np.int64)
            for name in self._spec.inputs
        }

    def _kept(self, case: Case, encoded: Encoded) -> npt.NDArray[np.bool_]:
        """Say which tokens have vectors; expanded ones do."""
        side, ids = self._side(case), encoded[INPUT_IDS][0]
        kept = ~np.isin(ids, side.skipped_ids)
        return kept & np.isin(ids, side.kept_ids) if side.kept_ids else kept

    def _side(self, case: Case) -> SideSpec:
        return self._sides.query if case.params.side == _QUERY else self._sides.document
