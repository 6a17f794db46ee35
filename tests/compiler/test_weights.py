"""One weights file for several graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from poolc.compiler.passes.select_outputs import SelectOutputsPass
from poolc.compiler.weights import save_sharing_weights
from tests.compiler.graphs import WEIGHT, two_outputs


def save(folder: Path) -> None:
    folder.mkdir()
    models = {f"{name}.onnx": SelectOutputsPass([name])(two_outputs()).model for name in "yz"}
    save_sharing_weights(models, folder, "shared.data")


def test_equal_tensors_are_written_once_and_aligned(tmp_path: Path) -> None:
    save(tmp_path / "a")
    assert (tmp_path / "a" / "shared.data").stat().st_size == WEIGHT.nbytes
    for name, tensor in (("y", "w"), ("z", "copy")):
        model = onnx.load(tmp_path / "a" / f"{name}.onnx", load_external_data=False)
        external = {
            value.name: {entry.key: entry.value for entry in value.external_data}
            for value in model.graph.initializer
        }
        assert external[tensor]["location"] == "shared.data"
        assert int(external[tensor]["offset"]) % 4096 == 0
        assert not external.get("b")  # small constants stay in the graph


def test_graphs_read_the_file(tmp_path: Path) -> None:
    save(tmp_path / "a")
    x = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    for name in "yz":
        path = tmp_path / "a" / f"{name}.onnx"
        onnx.checker.check_model(str(path))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"x": x})
        product = x @ WEIGHT
        expected = np.maximum(product, 0) if name == "y" else 1 / (1 + np.exp(-(product + 1)))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_bytes_depend_on_the_tensors_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name)
    first, second = (sorted((tmp_path / name).iterdir()) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
