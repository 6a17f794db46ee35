"""The reference of the parity gate: sentence-transformers or transformers, in fp32, eager, one text
at a time, so that neither padding nor poolc's own heads take part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from poolc.compiler.architecture import load_weights
from poolc.compiler.heads import activation_module
from poolc.compiler.parity_texts import PARITY_MAX_LENGTH
from poolc.compiler.recognize import Recognized
from poolc.runtime.request import Item, Row
from poolc.spec import (
    LOGITS,
    POOLED,
    PROBS,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    Activation,
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
Encode = Callable[[Item], dict[str, torch.Tensor]]


class Reference:
    """Computes one row a text with the library that defines the model."""

    def __init__(
        self,
        folder: Path,
        recognized: Recognized,
        tokenizer: PreTrainedTokenizerBase,
        options: CompileOptions,
    ) -> None:
        self._spec = recognized.spec
        self._tokenizer = tokenizer
        self._max_length = min(recognized.spec.max_length, PARITY_MAX_LENGTH)
        self._modules: list[Any] = []
        if self._spec.embedding_size is not None:
            self.name, self._modules = _sentence_transformer(folder, recognized, options)
        else:
            self.name = "transformers"
            self._model = load_weights(
                folder / recognized.transformer,
                recognized.arch,
                trust_remote_code=options.trust_remote_code,
                attention="eager",
            )

    def token_ids(self, item: Item) -> tuple[list[int], list[int] | None]:
        """Return AutoTokenizer's ids and segment ids of an item, cut to the maximum length."""
        encoded = self._encode(item)
        types = encoded.get("token_type_ids")
        return encoded["input_ids"][0].tolist(), None if types is None else types[0].tolist()

    def rows(self, items: Sequence[Item]) -> list[Row]:
        """Return the reference outputs of each item, by the names that graphs use."""
        with torch.inference_mode():
            compute = self._embed if self._modules else self._run_model
            return [_numpy(compute(self._encode(item))) for item in items]

    def _encode(self, item: Item) -> dict[str, torch.Tensor]:
        texts = item if isinstance(item, tuple) else (item,)
        encoded = self._tokenizer(
            *texts, truncation=True, max_length=self._max_length, return_tensors="pt"
        )
        return {name: encoded[name] for name in self._spec.inputs}

    def _embed(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        state: dict[str, Any] = dict(features)
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

    def _run_model(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if not self._spec.labels:
            return {TOKEN_EMBEDDINGS: self._model(**features).last_hidden_state}
        output = self._model(**features, output_hidden_states=True)
        activation = activation_module(self._spec.activation or Activation.IDENTITY)
        return {
            LOGITS: output.logits,
            PROBS: activation(output.logits),
            TOKEN_EMBEDDINGS: output.hidden_states[-1],
        }


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
    modules: list[Any] = [transformer, Pooling(spec.hidden_size, pooling_mode=modes)]
    modules += [Dense.load(str(folder), subfolder=dense.path) for dense in spec.dense]
    modules += [Normalize()] if spec.normalize else []
    return [module.eval() for module in modules]


def _numpy(outputs: dict[str, torch.Tensor]) -> Row:
    return {name: np.asarray(value[0].float().numpy()) for name, value in outputs.items()}
