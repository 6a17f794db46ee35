"""vLLM's ``--pooler-config`` object: both spellings, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from poolc.compiler.pooler_config import PoolerConfig, parse
from poolc.errors import InvalidOption
from poolc.spec import Activation, PoolingType


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, PoolerConfig()),
        ({"pooling_type": None, "normalize": None}, PoolerConfig()),
        ({"pooling_type": "LAST"}, PoolerConfig(pooling=PoolingType.LAST)),
        ({"pooling_type": "weighted_mean"}, PoolerConfig(pooling=PoolingType.WEIGHTED_MEAN)),
        ({"seq_pooling_type": "CLS"}, PoolerConfig(pooling=PoolingType.CLS)),
        ({"normalize": False}, PoolerConfig(normalize=False)),
        ({"softmax": True, "use_activation": True}, PoolerConfig(use_activation=True)),
        ({"activation": "SiLU"}, PoolerConfig(activation=Activation.SILU)),
        ({"activation": False}, PoolerConfig(use_activation=False)),
        (
            {"pooling_type": "STEP", "step_tag_id": 3},
            PoolerConfig(token_pooling="step", step_tag_id=3),
        ),
        ({"tok_pooling_type": "STEP"}, PoolerConfig(token_pooling="step")),
        ({"tok_pooling_type": "ALL"}, PoolerConfig(token_pooling="all")),
        (
            {"pooling_type": "ALL", "task": "token_embed"},
            PoolerConfig(token_pooling="all", task="token_embed"),
        ),
        ({"returned_token_ids": [4, 2]}, PoolerConfig(returned_token_ids=(4, 2))),
        (
            {"enable_chunked_processing": True, "max_embed_len": 900},
            PoolerConfig(chunk=True, max_embed_length=900),
        ),
        ({"dimensions": 64}, PoolerConfig(dimensions=64)),
    ],
)
def test_parse(raw: dict[str, Any], expected: PoolerConfig) -> None:
    assert replace(parse(raw), given=frozenset()) == expected
    assert parse(raw).given == {name for name, value in raw.items() if value is not None}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"pooling_typ": "CLS"}, "no field 'pooling_typ'; did you mean pooling_type?"),
        ({"normalise": True}, "no field 'normalise'; did you mean normalize?"),
        ({"x": 1}, "no field 'x'; known: pooling_type, seq_pooling_type, tok_pooling_type, task"),
        ({"pooling_type": "SUM"}, "pooling_type is 'SUM'; allowed: CLS, LAST, MEAN"),
        ({"tok_pooling_type": "CLS"}, "tok_pooling_type is 'CLS'; allowed: ALL, STEP"),
        (
            {"seq_pooling_type": "CLS", "tok_pooling_type": "STEP"},
            "seq_pooling_type CLS and tok_pooling_type STEP contradict each other",
        ),
        (
            {"softmax": True, "activation": "sigmoid"},
            "softmax is true and activation is sigmoid, which contradict each other",
        ),
        (
            {"normalize": True, "use_activation": False},
            "normalize is true and use_activation is false, which contradict each other: give one",
        ),
        (
            {"normalize": False, "activation": True},
            "activation is true and normalize is false, which contradict each other: give one",
        ),
        (
            {"softmax": False, "activation": "softmax"},
            "softmax is false and activation is softmax, which contradict each other: give one",
        ),
        ({"pooling_type": "MEEN"}, "pooling_type is 'MEEN'; allowed: CLS, LAST, MEAN, MAX, WEIG"),
        ({"task": "rank"}, "task is 'rank'; allowed: embed, classify"),
        ({"step_tag_id": -1}, "step_tag_id is -1; allowed: a token id"),
        ({"returned_token_ids": [1, 1]}, "returned_token_ids is [1, 1]; allowed: a list of diff"),
        ({"returned_token_ids": []}, "returned_token_ids is []; allowed"),
        ({"pooling_type": 1}, "pooling_type is 1; allowed"),
        (
            {"pooling_type": "CLS", "seq_pooling_type": "CLS"},
            "pooling_type and seq_pooling_type say the same: give one",
        ),
        (
            {"softmax": True, "use_activation": False},
            "softmax is true and use_activation is false, which contradict each other: give one",
        ),
        ({"normalize": "yes"}, "normalize is 'yes'; allowed: true, false"),
        ({"use_activation": 1}, "use_activation is 1; allowed: true, false"),
        ({"activation": "swish"}, "activation is 'swish'; allowed: identity, sigmoid"),
        ({"activation": 3}, "activation is 3; allowed"),
        ({"dimensions": 0}, "dimensions is 0; allowed: a positive integer"),
        ({"dimensions": True}, "dimensions is True; allowed: a positive integer"),
        ({"dimensions": 8.0}, "dimensions is 8.0; allowed: a positive integer"),
    ],
)
def test_parse_refuses(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse(raw)
    assert str(caught.value).startswith(f"pooler_config: {message}")
    assert caught.value.param == "pooler_config"


@pytest.mark.parametrize(
    ("raw", "meant"),
    [({"pooling_type": "MEEN"}, "MEAN"), ({"task": "clasify"}, "classify")],
)
def test_parse_names_the_nearest_value(raw: dict[str, Any], meant: str) -> None:
    with pytest.raises(InvalidOption, match=rf"allowed: .*; did you mean {meant}\?$"):
        parse(raw)


@pytest.mark.parametrize(
    ("raw", "field", "origin"),
    [
        ({"softmax": True}, "use_activation", "softmax"),
        ({"activation": False}, "use_activation", "activation"),
        ({"use_activation": True, "activation": "relu"}, "use_activation", "use_activation"),
        ({"logit_bias": 1}, "logit_mean", "logit_bias"),
        ({"logit_mean": 1, "logit_bias": 1}, "logit_mean", "logit_mean and logit_bias"),
        ({"seq_pooling_type": "CLS"}, "pooling", "seq_pooling_type"),
        ({"tok_pooling_type": "STEP"}, "token_pooling", "tok_pooling_type"),
        ({"logit_sigma": 2}, "logit_sigma", "logit_sigma"),
    ],
)
def test_origin_is_spelled_as_given(raw: dict[str, Any], field: str, origin: str) -> None:
    assert parse(raw).origin(field) == f"--pooler-config {origin}"
