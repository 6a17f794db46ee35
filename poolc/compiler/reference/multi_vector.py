"""The reference of multi-vector models: sentence-transformers' MultiVectorEncoder, side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from poolc.compiler.reference.base import Case, Reference, Subject
from poolc.runtime.request import Item, Params
from poolc.spec import TOKEN_EMBEDDINGS, TOKEN_TYPE_IDS, TOKEN_VECTORS


class MultiVectorReference(Reference):
    """Encodes queries and documents as the library does, markers, expansion and mask included."""

    name = "sentence-transformers' MultiVectorEncoder"

    def __init__(self, subject: Subject) -> None:
        from sentence_transformers import MultiVectorEncoder

        super().__init__(subject)
        options = {"attn_implementation": "eager", "dtype": torch.float32}
        self._model: Any = MultiVectorEncoder(
            str(subject.folder),
            device="cpu",
            model_kwargs=options,
            trust_remote_code=subject.options.trust_remote_code,
            local_files_only=True,
        ).eval()
        # What the library ends with, unless an option says otherwise.
        asked = {"normalize", "use_activation"} & set(subject.options.pooler_config)
        spec = self.spec.multi_vector
        self._unit = spec.normalize if asked and spec else None

    def cases(self) -> list[Case]:
        (case,) = super().cases()
        return [replace(case, params=self._of_side(side)) for side in ("query", "document")]

    def token_ids(self, case: Case, item: Item) -> tuple[list[int], list[int] | None]:
        features = self._features(case, item)
        types = features.get(TOKEN_TYPE_IDS)
        return features["input_ids"][0].tolist(), None if types is None else types[0].tolist()

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        features = self._features(case, item)
        transformer, *heads = self._model
        features = transformer(features)
        hidden = features["token_embeddings"]
        for head in heads:
            if self._unit is not None and type(head).__name__ == "Normalize":
                continue
            masks = type(head).__name__ == "MultiVectorMask"
            features = head(features, task=case.params.side) if masks else head(features)
        kept = features["attention_mask"][0].bool()
        vectors = features["token_embeddings"][:, kept]
        if self._unit:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return {TOKEN_VECTORS: vectors, TOKEN_EMBEDDINGS: hidden}

    def _of_side(self, side: str) -> Params:
        return replace(self.params(), prompt=None, side=side)

    def _features(self, case: Case, item: Item) -> Any:
        sides = self.spec.multi_vector
        side = case.params.side
        if sides is None or side is None:
            raise ValueError("a multi-vector model has two sides; this is a bug in poolc")
        longest = sides.query.max_length if side == "query" else sides.document.max_length
        return self._model.preprocess(
            [item],
            prompt=self._model.prompts.get(side),
            task=side,
            max_length=min(longest, self.max_length),
        )
