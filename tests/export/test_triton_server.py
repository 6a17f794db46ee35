"""An exported repository on Triton itself, from PyTriton's wheel.

That wheel has the server and its Python backend, and no ONNX Runtime: the graph is run by a Python
model in its place, with the configuration of the export but for the name of the backend.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.export.triton import TritonOptions, export_triton
from poolc.runtime.engine import Engine
from tests.clients.environments import PYTRITON, python_of
from tests.export.conftest import Opened

TEXTS = ["the quick brown fox", "bread", "Réserver une table à Zürich", "a river " * 80]
# What stands in for Triton's ONNX Runtime backend.
GRAPH_STEP = """
import json
from pathlib import Path

import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.inputs = [one["name"] for one in config["input"]]
        self.outputs = [one["name"] for one in config["output"]]
        graph = str(Path(__file__).with_name("model.onnx"))
        self.session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        named = ((name, pb_utils.get_input_tensor_by_name(request, name)) for name in self.inputs)
        found = self.session.run(self.outputs, {name: one.as_numpy() for name, one in named})
        tensors = [pb_utils.Tensor(*one) for one in zip(self.outputs, found, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64" or sys.version_info >= (3, 13),
        reason="PyTriton's wheel is for Python up to 3.12 on x86-64 Linux",
    ),
]


class Server:
    """Triton, at a port of its own."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v2"

    def wait(self, process: subprocess.Popen[str]) -> None:
        """Return once models answer: Triton says that it has started before it listens."""
        while process.poll() is None:
            with suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{self.url}/health/ready", timeout=60).close()
                return
            threading.Event().wait(0.1)
        pytest.fail(f"Triton ended with {process.returncode}")

    def ask(self, columns: dict[str, Sequence[str]], **parameters: Any) -> dict[str, Any]:
        """Return what the ensemble answers, by output. Raises ValueError with what it refuses."""
        inputs = [
            {"name": name, "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)}
            for name, texts in columns.items()
        ]
        body = json.dumps({"parameters": parameters, "inputs": inputs}).encode()
        request = urllib.request.Request(f"{self.url}/models/ours/infer", body)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                outputs = json.load(reply)["outputs"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{error.code}: {error.read().decode()}") from None
        return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in outputs}


@contextmanager
def serving(repository: Path) -> Iterator[Server]:
    """Run Triton on an export whose graph a Python model runs."""
    config = repository / "ours_model" / "config.pbtxt"
    text = config.read_text()
    assert 'platform: "onnxruntime_onnx"' in text
    config.write_text(text.replace('platform: "onnxruntime_onnx"', 'backend: "python"'))
    (repository / "ours_model" / "1" / "model.py").write_text(GRAPH_STEP)
    python = python_of(PYTRITON)
    (triton,) = python.parents[1].glob("lib/python3.*/site-packages/pytriton/tritonserver")
    backends = repository.parent / "backends"
    shutil.copytree(triton / "backends", backends, dirs_exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    for program in (backends / "python" / stub.name, triton / "bin" / "tritonserver"):
        program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *(str(triton / "bin" / "tritonserver"), "--model-repository", str(repository)),
        *("--backend-directory", str(backends), "--http-address", "127.0.0.1"),
        *("--http-port", str(port), "--allow-grpc", "false", "--allow-metrics", "false"),
    ]
    with subprocess.Popen(
        command,
        env=environment(python),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if "Started HTTPService" in line:
                    break
            else:
                pytest.fail("".join(said)[-3000:])
            server = Server(port)
            server.wait(process)
            yield server
        finally:
            process.terminate()
            process.communicate(timeout=60)


def environment(python: Path) -> dict[str, str]:
    """Return the environment in which the backend's Python is that of the wheel."""
    (packages,) = python.parents[1].glob("lib/python3.*/site-packages")
    # The copied backend looks for the wheel's libraries at another place than where they are.
    libraries = [str(packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    libraries.append(os.environ.get("LD_LIBRARY_PATH", ""))
    return os.environ | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(python.parents[1]),
        "PYTHONPATH": str(packages),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
    }


def exported(opened: Opened, name: str, folder: Path) -> Path:
    export_triton(opened(name), folder, TritonOptions(name="ours"))
    return folder


def test_embeddings(opened: Opened, embedder: Engine, tmp_path: Path) -> None:
    with serving(exported(opened, "tiny_embedder", tmp_path / "out")) as server:
        found = server.ask({"text": TEXTS}, truncate=True)["embedding"]
        np.testing.assert_allclose(found, embedder.embed(TEXTS, truncate=True), atol=1e-6)
        found = server.ask({"text": TEXTS[:2]}, prompt_name="query")["embedding"]
        expected = embedder.embed(TEXTS[:2], prompt_name="query")
        np.testing.assert_allclose(found, expected, atol=1e-6)
        for texts, said in ((TEXTS, "400: .*row 3 has .* tokens; the limit is 64"), ([""], "400")):
            with pytest.raises(ValueError, match=said):
                server.ask({"text": texts})


def test_scores(opened: Opened, cross_encoder: Engine, tmp_path: Path) -> None:
    with serving(exported(opened, "tiny_cross_encoder", tmp_path / "out")) as server:
        found = server.ask({"query": TEXTS[:3], "document": TEXTS[1:]}, truncate=True)
        expected = cross_encoder.score(TEXTS[:3], TEXTS[1:], truncate=True)
        np.testing.assert_allclose(found["scores"][:, 0], expected, atol=1e-6)
        assert set(found) == {"scores", "logits"}
