"""Thousands of requests made of /openapi.json: no 5xx, and every reply as it is described."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.clients.environments import GENERATOR, python_of
from tests.serve.processes import server_process

CHECKS = (
    "not_a_server_error",
    "response_schema_conformance",
    "status_code_conformance",
    "content_type_conformance",
)
CASES = 120  # an operation, beside those at the edges of every field


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", ["tiny_embedder", "tiny_cross_encoder"])
def test_generated_requests(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    artifact: Path = request.getfixturevalue(model)
    tool = python_of(GENERATOR).parent / "st"
    with server_process(artifact, settings="{'access_log': False}") as server:
        done = subprocess.run(
            [
                *(str(tool), "run", f"{server.url}/openapi.json", "--phases", "coverage,fuzzing"),
                *("--checks", ",".join(CHECKS), "-n", str(CASES), "--seed", "1", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4000:]
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None, done.stdout[-2000:]
    assert int(found.group(1)) > 2500
