"""The reference of embedding models: sentence-transformers' own modules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from poolc.compiler.recognize import Recognized
from poolc.compiler.reference.base import Case, Reference, Subject
from poolc.runtime.request import Item
from poolc.spec import (
    POOLED,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    CompileOptions,
    PoolingType,
)

_POOLING_MODES = {
    PoolingType.CLS: "cls",
    PoolingType.MAX: "max",
    PoolingType.MEAN: "mean",
    PoolingType.MEAN_SQRT_LEN: "mean_sqrt_len_tokens",
    PoolingType.WEIGHTED_MEAN: "weightedmean",
    PoolingType.LAST: "lasttoken",
}


_PROMPT = "Represent the sentence: "  # of models that have no prompt of their own


class EmbeddingReference(Reference):
    """Runs the modules of the folder's SentenceTransformer one after the other."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.name, self._modules = _sentence_transformer(
            subject.folder, subject.recognized, subject.options
        )

    def cases(self) -> list[Case]:
        plain = super().cases()
        if self.spec.include_prompt:
            return plain
        prompt = next(filter(None, self.spec.prompts.values()), _PROMPT)
        params = replace(self.params(), prompt=prompt)
        return [*plain, *(Case(case.task, case.items, params) for case in plain)]

    def token_ids(self, case: Case, item: Item) -> tuple[list[int], list[int] | None]:
        return super().token_ids(case, _prompted(case, item))

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        state: dict[str, Any] = dict(self.encode(_prompted(case, item)))
        if case.params.prompt:
            # As its ``preprocess`` does.
            state["prompt_length"] = self._modules[0]._get_prompt_length(case.params.prompt)
        outputs = {}
        for module in self._modules:
            if type(module).__name__ == "Normalize":
                outputs[POOLED] = state["sentence_embedding"].clone()
            state = module(state)
        outputs.setdefault(POOLED, state["sentence_embedding"])
        return {
            **outputs,
            SENTENCE_EMBEDDING: state["sentence_embedding"],
            TOKEN_EMBEDDINGS: state["token_embeddings"],
        }


def _prompted(case: Case, item: Item) -> Item:
    return f"{case.params.prompt or ''}{item}"


def _sentence_transformer(
    folder: Path, recognized: Recognized, options: CompileOptions
) -> tuple[str, list[Any]]:
    """Return the folder's own pipeline, or one assembled from the same library where the files
    configure none or an option overrides them."""
    from sentence_transformers import SentenceTransformer

    model_options = {"attn_implementation": "eager", "dtype": torch.float32}
    overridden = {"pooling_type", "seq_pooling_type", "normalize", "use_activation"}
    if recognized.st and recognized.st.pooling and not overridden & set(options.pooler_config):
        model = SentenceTransformer(
            str(folder),
            device="cpu",
            model_kwargs=model_options,
            trust_remote_code=options.trust_remote_code,
            local_files_only=True,
        )
        return "sentence-transformers", list(model.eval())
    trust = {"trust_remote_code": options.trust_remote_code}
    return "sentence-transformers modules", _assembled(folder, recognized, model_options, trust)


def _assembled(
    folder: Path, recognized: Recognized, model_options: dict[str, Any], trust: dict[str, Any]
) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
    )

    spec = recognized.spec
    transformer = Transformer(
        str(folder / recognized.transformer),
        model_kwargs={**model_options, **trust},
        processor_kwargs=dict(trust),
        config_kwargs=dict(trust),
    )
    modes = [_POOLING_MODES[kind] for kind in spec.pooling]
    pooling = Pooling(spec.hidden_size, pooling_mode=modes, include_prompt=spec.include_prompt)
    modules: list[Any] = [transformer, pooling]
    modules += [Dense.load(str(folder), subfolder=dense.path) for dense in spec.layers]
    modules += [Normalize()] if spec.normalize else []
    return [module.eval() for module in modules]
