"""Settings that no server can run with are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from poolc.errors import InvalidOption
from poolc.serve.settings import Settings


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"port": 65536}, "port"),
        ({"port": -1}, "port"),
        ({"drain_timeout_s": -0.1}, "drain_timeout_s"),
        ({"drain_timeout_s": float("nan")}, "drain_timeout_s"),
        ({"drain_timeout_s": float("inf")}, "drain_timeout_s"),
        ({"max_queued_tokens": 0}, "max_queued_tokens"),
        ({"max_items": 0}, "max_items"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"served_model_names": ("a", "a")}, "served_model_names"),
        ({"served_model_names": ("",)}, "served_model_names"),
    ],
)
def test_settings_refuses(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidOption, match="allowed") as caught:
        Settings(**wrong)
    assert caught.value.param == param
