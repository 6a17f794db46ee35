"""The Kubernetes files: valid by Kubernetes' own schemas, and true to the server."""

from __future__ import annotations

import re
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


def merged(base: Any, patch: Any) -> Any:
    """Merge as kustomize does: mappings by key, lists of named things by name, else replace."""
    if isinstance(base, dict) and isinstance(patch, dict):
        both = base | patch
        return {
            key: merged(base[key], patch[key]) if key in base and key in patch else value
            for key, value in both.items()
        }
    if isinstance(base, list) and isinstance(patch, list) and patch and "name" in patch[0]:
        named = {one["name"]: one for one in base}
        for one in patch:
            named[one["name"]] = merged(named.get(one["name"], {}), one)
        return list(named.values())
    return patch


def rendered(overlay: Path) -> dict[tuple[str, str], Any]:
    """Return what an overlay makes of the base, by kind and name."""
    told = read(overlay / "kustomization.yaml")
    found: dict[tuple[str, str], Any] = {}
    for name in told["resources"]:
        place = overlay / name
        if place.is_dir():
            found |= rendered(place)
        else:
            one = read(place)
            found[one["kind"], one["metadata"]["name"]] = one
    for patch in told.get("patches", ()):
        change = read(overlay / patch["path"])
        key = change["kind"], change["metadata"]["name"]
        found[key] = merged(found[key], change)  # KeyError: a patch of what is not there
    return found


OVERLAYS = sorted(path.parent for path in (FOLDER / "overlays").rglob("kustomization.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_overlays_are_valid_and_change_what_is_there(overlay: Path) -> None:
    base, found = rendered(BASE), rendered(overlay)
    assert found.keys() == base.keys()
    assert found != base
    for one in found.values():
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    (one,) = found["Deployment", "poolc"]["spec"]["template"]["spec"]["containers"]
    assert one["name"] == container()["name"]


def test_engines_are_trusted_by_an_option_of_the_server() -> None:
    (one,) = rendered(FOLDER / "overlays" / "tensorrt")["Deployment", "poolc"]["spec"]["template"][
        "spec"
    ]["containers"]
    options = [argument for argument in one["args"] if argument.startswith("--")]
    shown = CliRunner().invoke(app, ["serve", "--help"]).output
    assert options and all(option in shown for option in options)
    assert one["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_autoscaler_reads_what_the_adapter_serves() -> None:
    (rule,) = read(FOLDER / "prometheus-adapter.yaml")["rules"]["custom"]
    (metric,) = read(BASE / "autoscaler.yaml")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert re.fullmatch(rule["name"]["matches"], name)
    assert rule["seriesQuery"].partition("{")[0] == name
    # The dashboard's names are compared with the server's (tests/serve/test_dashboard.py).
    assert name in (FOLDER.parent / "grafana" / "poolc.json").read_text(encoding="utf-8")


def test_the_readme_names_every_overlay() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `overlays/([a-z-]+)`", page, re.MULTILINE)) == {
        overlay.name for overlay in OVERLAYS
    }


def test_variables_are_options_of_the_server() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"]).output
    (keyed,) = rendered(FOLDER / "overlays" / "api-key")["Deployment", "poolc"]["spec"]["template"][
        "spec"
    ]["containers"]
    assert len(keyed["env"]) == len(container()["env"]) + 1
    for variable in keyed["env"]:
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
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_overlays_render(overlay: Path) -> None:
    done = subprocess.run(
        ["kustomize", "build", str(overlay)], capture_output=True, text=True, check=True
    )
    made = {(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(done.stdout)}
    assert made == rendered(overlay).keys()
