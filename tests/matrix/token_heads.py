"""Heads of the matrix that answer by tokens: labels, sparse weights, token vectors, a language
model's rows.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.matrix.compare import TEXTS, Measured, difference, smallest_cosine
from tests.matrix.families import Family
from tests.matrix.words import LIMIT
from tests.models import HIDDEN, save_model, write_json, write_typed_modules

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_EAGER = {"attn_implementation": "eager"}
_TOKEN_DIM = 16


def token_classes(family: Family, folder: Path) -> None:
    """A class that labels tokens."""
    from transformers import AutoModelForTokenClassification

    config = family.config(folder)
    config.update({"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}})
    save_model(
        AutoModelForTokenClassification.from_config(config), folder, seed=2, scale=family.scale
    )


def measure_token_classes(folder: Path, engine: Engine) -> Measured:
    """Compare the logits of every token with transformers."""
    from transformers import AutoModelForTokenClassification

    expected = _logits(AutoModelForTokenClassification, folder)
    options: Any = {"truncate": True, "use_activation": False}
    found: Any = engine.classify_tokens(TEXTS, **options)
    alone: Any = [next(iter(engine.classify_tokens([text], **options))) for text in TEXTS]
    return Measured(
        "transformers",
        difference(found, expected),
        None,
        max(float(np.abs(a - b).max()) for a, b in zip(found, alone, strict=True)),
        max(map(len, expected)),
    )


def splade(family: Family, folder: Path) -> None:
    """A masked language model, as Sentence Transformers 5 saves SPLADE."""
    from transformers import AutoModelForMaskedLM

    save_model(
        AutoModelForMaskedLM.from_config(family.config(folder)), folder, seed=4, scale=family.scale
    )
    package = "sentence_transformers.sparse_encoder.models"
    write_typed_modules(
        folder, (f"{package}.MLMTransformer", ""), (f"{package}.SpladePooling", "1_SpladePooling")
    )
    write_json(folder / "1_SpladePooling" / "config.json", {"pooling_strategy": "max"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": LIMIT})
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})


def measure_splade(folder: Path, engine: Engine) -> Measured:
    """Compare the weights of the whole vocabulary with SparseEncoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SparseEncoder

        model = SparseEncoder(
            str(folder), device="cpu", local_files_only=True, model_kwargs=dict(_EAGER)
        )
        expected = [
            model.encode([text], batch_size=1, convert_to_sparse_tensor=False)[0].numpy()
            for text in TEXTS
        ]
    found = _dense(engine, TEXTS)
    alone = np.concatenate([_dense(engine, [text]) for text in TEXTS])
    return Measured(
        "sentence-transformers SparseEncoder",
        difference(found, expected),
        smallest_cosine(found, expected),
        float(np.abs(found - alone).max()),
        LIMIT,
    )


def colbert(family: Family, folder: Path) -> None:
    """A projection of every token, as Sentence Transformers 6 saves it."""
    import torch
    import transformers
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    tokens = "token_embeddings"
    torch.manual_seed(6)
    projection = Dense(
        HIDDEN,
        _TOKEN_DIM,
        bias=False,
        activation_function=torch.nn.Identity(),
        module_input_name=tokens,
    )
    with TemporaryDirectory() as temporary:
        trunk = Path(temporary)
        save_model(
            getattr(transformers, family.backbone)(family.config(trunk)), trunk, scale=family.scale
        )
        modules = [
            Transformer(str(trunk), document_length=LIMIT),
            projection,
            MultiVectorMask([".", ","]),
            Normalize(module_input_name=tokens),
        ]
        MultiVectorEncoder(modules=modules, device="cpu").save(str(folder))


def measure_colbert(folder: Path, engine: Engine) -> Measured:
    """Compare the vectors of documents with MultiVectorEncoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import MultiVectorEncoder

        model = MultiVectorEncoder(
            str(folder), device="cpu", local_files_only=True, model_kwargs=dict(_EAGER)
        )
        expected = [
            model.encode_document([text], batch_size=1, convert_to_numpy=True)[0] for text in TEXTS
        ]
    options: Any = {"side": "document", "truncate": True}
    found = list(engine.embed_tokens(TEXTS, **options))
    alone = [engine.embed_tokens([text], **options)[0] for text in TEXTS]
    return Measured(
        "sentence-transformers MultiVectorEncoder",
        difference(found, expected),
        None,
        max(float(np.abs(a - b).max(initial=0)) for a, b in zip(found, alone, strict=True)),
        LIMIT,
    )


def reranker(family: Family, folder: Path) -> None:
    """A causal language model that answers with one of two tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_model(
        AutoModelForCausalLM.from_config(family.config(folder)), folder, seed=8, scale=family.scale
    )
    words = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["classifier_from_token"] = words.convert_ids_to_tokens([_FALSE, _TRUE])
    config["method"] = "from_2_way_softmax"
    write_json(folder / "config.json", config)


_FALSE, _TRUE = 300, 301  # two tokens that every tokenizer here has


def measure_reranker(folder: Path, engine: Engine) -> Measured:
    """Compare the probability of the true token with the whole head's logits at the last token."""
    from transformers import AutoModelForCausalLM

    rows = [row[-1] for row in _logits(AutoModelForCausalLM, folder)]
    expected = [row[[_TRUE]] - row[[_FALSE]] for row in rows]
    wanted = [1 / (1 + np.exp(-logit)) for logit in expected]
    found = engine.classify(TEXTS, truncate=True, use_activation=False).probs
    probs = engine.classify(TEXTS, truncate=True).probs
    alone = np.stack([engine.classify([text], truncate=True).probs[0] for text in TEXTS])
    return Measured(
        "transformers",
        max(difference(found, expected), difference(probs, wanted)),
        None,
        float(np.abs(probs - alone).max()),
        LIMIT,
    )


def _logits(auto: Any, folder: Path) -> list[Any]:
    """Return the logits of each text's tokens, one text at a time."""
    import torch
    from transformers import AutoTokenizer

    model = auto.from_pretrained(folder, dtype=torch.float32, **_EAGER).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    with torch.inference_mode():
        for text in TEXTS:
            encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=LIMIT)
            found.append(model(**encoded).logits[0].numpy())
    return found


def _dense(engine: Engine, texts: list[str]) -> Any:
    vectors = engine.embed_sparse(list(texts), truncate=True)
    dense = np.zeros(vectors.shape, np.float32)
    for row, vector in zip(dense, vectors, strict=True):
        row[vector.indices] = vector.values
    return dense
