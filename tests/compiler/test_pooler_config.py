"""vLLM's ``--pooler-config`` object: both spellings, and what is refused."""

from __future__ import annotations

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
        ({"activation": False}, PoolerConfig(activation=Activation.IDENTITY)),
        ({"dimensions": 64}, PoolerConfig(dimensions=64)),
    ],
)
def test_parse(raw: dict[str, Any], expected: PoolerConfig) -> None:
    assert parse(raw) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"pooling_typ": "CLS"}, "no field 'pooling_typ'; did you mean pooling_type?"),
        ({"normalise": True}, "no field 'normalise'; did you mean normalize?"),
        ({"x": 1}, "no field 'x'; known: pooling_type, seq_pooling_type, normalize, softmax"),
        ({"pooling_type": "STEP"}, "pooling_type is 'STEP'; allowed: CLS, LAST, MEAN"),
        ({"pooling_type": 1}, "pooling_type is 1; allowed"),
        (
            {"pooling_type": "CLS", "seq_pooling_type": "CLS"},
            "pooling_type and seq_pooling_type say the same: give one",
        ),
        (
            {"softmax": True, "use_activation": False},
            "softmax and use_activation contradict each other: give one",
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
