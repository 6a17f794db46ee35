"""The Kubernetes files: valid by Kubernetes' own schemas, and true to the server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from poolc.cli.main import app
from poolc.serve.middleware import OPEN_PATHS

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
BASE = FOLDER / "base"
CONTAINER = "poolc"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def manifests() -> list[Path]:
    return [path for path in sorted(BASE.glob("*.yaml")) if path.name != "kustomization.yaml"]


def container() -> Any:
    (one,) = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return one


@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.name)
def test_valid_by_the_schemas(path: Path) -> None:
    kubernetes_validate.validate(read(path), kubernetes_validate.latest_version(), strict=True)


def test_a_mistake_would_be_found() -> None:
    wrong = read(BASE / "deployment.yaml")
    wrong["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("kustomization.yaml")), ids=str)
def test_what_kustomize_is_told_is_there(path: Path) -> None:
    told = read(path)
    named = [*told["resources"], *(patch["path"] for patch in told.get("patches", ()))]
    for name in named:
        place = (path.parent / name).resolve()
        assert place.is_file() or (place / "kustomization.yaml").is_file(), name
    if path.parent == BASE:
        assert sorted(told["resources"]) == [manifest.name for manifest in manifests()]


def test_patches_name_what_they_change() -> None:
    patch = read(FOLDER / "overlays" / "cuda" / "device.yaml")
    base = read(BASE / "deployment.yaml")
    assert (patch["kind"], patch["metadata"]) == ("Deployment", {"name": base["metadata"]["name"]})
    (one,) = patch["spec"]["template"]["spec"]["containers"]
    assert one["name"] == container()["name"]


def test_variables_are_options_of_the_server() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"]).output
    for variable in container()["env"]:
        option = variable["name"].removeprefix("POOLC_").lower().replace("_", "-")
        assert f"--{option}" in shown


def test_probes_need_no_key() -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"]["path"] in OPEN_PATHS


def test_a_pod_outlives_its_drain() -> None:
    told = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    env = {variable["name"]: variable["value"] for variable in container()["env"]}
    _, before_s = container()["lifecycle"]["preStop"]["exec"]["command"]
    needed_s = int(env["POOLC_DRAIN_TIMEOUT"]) + int(before_s)
    assert told["terminationGracePeriodSeconds"] > needed_s


@pytest.mark.skipif(shutil.which("kustomize") is None, reason="kustomize is not installed")
def test_overlays_render() -> None:
    overlay = FOLDER / "overlays" / "cuda"
    done = subprocess.run(
        ["kustomize", "build", str(overlay)], capture_output=True, text=True, check=True
    )
    kinds = {one["kind"] for one in yaml.safe_load_all(done.stdout)}
    assert "Deployment" in kinds
