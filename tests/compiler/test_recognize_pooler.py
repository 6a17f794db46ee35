"""What ``--pooler-config`` does to each kind of model: obeyed, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import InvalidOption
from poolc.runtime.engine import Engine
from poolc.spec import Kind, PoolingType
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.folders import causal

Source = Callable[[str], Path]
STEPS = {"returned_token_ids": [7, 8], "step_tag_id": 5}


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("tiny_colbert", {"pooling_type": "MEAN"}, "pooling_type is MEAN; .* kind multi-vector"),
        ("tiny_colbert", {"pooling_type": "STEP"}, "pooling_type is STEP, which selects rewards"),
        ("tiny_colbert", {"normalize": True, "use_activation": False}, "contradict each other"),
        ("tiny_colbert", {"dimensions": 9}, "dimensions is 9; this model was trained for: 8"),
        ("tiny_bge_m3", {"normalize": False, "use_activation": True}, "contradict each other"),
        ("tiny_bge_m3", {"tok_pooling_type": "STEP"}, "tok_pooling_type is STEP, .* kind hybrid"),
        ("tiny_embedder", {"normalize": False, "use_activation": True}, "contradict each other"),
        ("tiny_splade", {"use_activation": False}, "use_activation is false; .* allowed: true"),
        ("tiny_splade", {"tok_pooling_type": "STEP"}, "is STEP, .* kind sparse"),
        ("tiny_splade", {"normalize": False}, "normalize belongs to .* whose fields are: enable"),
        ("tiny_tagger", {"pooling_type": "CLS"}, "pooling_type is CLS; .* a row a token; .* ALL"),
        ("tiny_tagger", {"seq_pooling_type": "CLS"}, "seq_pooling_type belongs to embedding"),
        ("tiny_tagger", {"activation": "gelu"}, "activation is gelu; logits of tokens have: iden"),
        ("tiny_qwen2_classifier", {"pooling_type": "CLS"}, "is CLS; the head of .* allowed: LAST"),
        ("tiny_cross_encoder", {"seq_pooling_type": "MEAN"}, "seq_pooling_type is MEAN; .*: CLS"),
    ],
)
def test_refused(
    name: str, config: Any, message: str, source: Source, recognise: Recognise
) -> None:
    with pytest.raises(InvalidOption, match=message):
        recognise(source(name), pooler_config=config)


@pytest.mark.parametrize("pooling", ["MEAN", "CLS"])
def test_rewards_of_tokens_are_not_pooled(
    pooling: str, plain_bert: Path, recognise: Recognise
) -> None:
    with pytest.raises(InvalidOption, match=f"is {pooling}; a model of kind reward .* ALL, STEP"):
        recognise(plain_bert, convert="reward", pooler_config={"pooling_type": pooling})


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("tiny_qwen2_classifier", "LAST"),
        ("tiny_classifier", "CLS"),
        ("tiny_lm_reranker", "LAST"),
        ("tiny_tagger", "ALL"),
        ("tiny_colbert", "ALL"),
    ],
)
def test_pooling_that_the_model_does_changes_nothing(
    name: str, pooling: str, source: Source, recognise: Recognise
) -> None:
    plain = recognise(source(name))
    said = recognise(source(name), pooler_config={"pooling_type": pooling})
    assert said.spec == plain.spec


@pytest.mark.parametrize("name", ["normalize", "use_activation"])
@pytest.mark.parametrize("model", ["tiny_colbert", "tiny_bge_m3"])
def test_token_vectors_of_any_length(
    name: str, model: str, source: Source, recognise: Recognise
) -> None:
    spec = recognise(source(model), pooler_config={name: False}).spec
    assert spec.multi_vector is not None
    assert not spec.multi_vector.normalize
    assert spec.origins["multi_vector.normalize"] == f"--pooler-config {name}"
    assert spec.kind is Kind.MULTI_VECTOR or not spec.normalize


def test_steps_of_one_token_make_no_reranker(tmp_path: Path, recognise: Recognise) -> None:
    folder = causal(tmp_path / "model")
    config = {**STEPS, "pooling_type": "STEP", "returned_token_ids": [7]}
    known = recognise(folder, pooler_config=config)
    assert known.spec.pooling == (PoolingType.ALL,)
    assert not any("reranker" in warning for warning in known.warnings)
    # What is missing is named.
    with pytest.raises(InvalidOption, match=r'selects rewards, .*: say "pooling_type": "STEP"'):
        recognise(folder, pooler_config=STEPS)


def test_colbert_without_unit_length(source: Source, compile_here: CompileHere) -> None:
    """The gate runs the library's model; the library's projection is the number here."""
    import torch
    from sentence_transformers import MultiVectorEncoder

    folder = source("tiny_colbert")
    engine = Engine(compile_here(folder, pooler_config={"normalize": False}))
    (found,) = engine.embed_tokens(["a river runs"], side="document")
    model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    with torch.inference_mode():
        features = model.preprocess(["a river runs"], prompt="[D] ", task="document")
        wanted = model[1](model[0](features))["token_embeddings"][0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
