"""config.pbtxt's text format, read back with protobuf itself."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from poolc.export.triton.pbtxt import Word, parameters, pbtxt

READ = model_config_pb2.ModelConfig


@pytest.mark.parametrize("text", ["plain", 'a "quoted" \\ path', "Zürich 東京", "two\nlines\t", ""])
def test_strings_are_read_back(text: str) -> None:
    found = text_format.Parse(pbtxt({"name": text, "backend": "python"}), READ())
    assert (found.name, found.backend) == (text, "python")


def test_messages_lists_and_enums() -> None:
    message = {
        "max_batch_size": 8,
        "input": [
            {"name": "a", "data_type": Word("TYPE_STRING"), "dims": [1], "optional": True},
            {"name": "b", "data_type": Word("TYPE_INT64"), "dims": [-1, 2]},
        ],
        "dynamic_batching": {},
        "optimization": None,
        "instance_group": [{"profile": ["3", "4"], "gpus": []}],
        "parameters": parameters({"k": "v", "other": "1"}),
    }
    found = text_format.Parse(pbtxt(message), READ())
    assert [(one.name, list(one.dims), one.optional) for one in found.input] == [
        ("a", [1], True),
        ("b", [-1, 2], False),
    ]
    assert found.HasField("dynamic_batching")
    assert not found.HasField("optimization")
    assert list(found.instance_group[0].profile) == ["3", "4"]
    assert {key: one.string_value for key, one in found.parameters.items()} == {
        "k": "v",
        "other": "1",
    }
