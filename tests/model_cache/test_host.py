"""What this machine is, and whether an artifact may run on it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from poolc.errors import ArtifactCorrupt, ArtifactIncompatible, MissingDependency
from poolc.model_cache import host
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.model_cache.manifest import Requires
from poolc.model_cache.store import Store

from .fakes import publish_fake

MACOS = """hw.optional.neon: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
hw.optional.avx512f: 0
machdep.cpu.brand_string: Some CPU
machdep.cpu.leaf7_features: AVX2 FMA
"""


@pytest.fixture
def runtimes(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The installed runtimes, as the test sets them."""
    installed: dict[str, str] = {}
    monkeypatch.setattr(host, "_installed_versions", lambda: installed)
    monkeypatch.setattr(host, "runtimes_on_path", lambda: " ".join(installed.values()))
    return installed


def test_cpu_features_of_this_machine() -> None:
    features = host.cpu_features()
    assert all(name == name.lower() for name in features)
    assert host.cpu_features() is features


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni", {"fpu", "avx2", "avx512_vnni"}),
        ("Features\t: asimd asimddp", {"asimd", "asimddp"}),
        ("model name : flags", set()),
    ],
)
def test_linux_features(monkeypatch: pytest.MonkeyPatch, line: str, expected: set[str]) -> None:
    text = f"processor\t: 0\n{line}\n\nprocessor\t: 1\n"
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(text))
    assert host._linux_features() == expected


def test_macos_features_by_our_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.parse_sysctl(MACOS) == {"neon", "FEAT_DotProd", "AVX2", "FMA"}
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(host, "_macos_features", lambda: host.parse_sysctl(MACOS))
    assert host.cpu_features.__wrapped__() >= {"neon", "asimddp", "avx2", "fma"}


def test_macos_without_sysctl_has_no_features() -> None:
    if not Path("/usr/sbin/sysctl").exists():
        assert host._macos_features() == set()


def test_unknown_system_has_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    assert host.cpu_features.__wrapped__() == frozenset()


def test_host_class_is_architecture_and_relevant_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"rdrand", "avx512f", "avx2"}))
    assert host.host_class() == "x86_64+avx2+avx512f"


def test_check_nothing_required() -> None:
    assert host.check_host(Requires()) == ""


def test_check_missing_cpu_feature_is_named() -> None:
    with pytest.raises(ArtifactIncompatible, match="warp_drive, which this one lacks"):
        host.check_host(Requires(cpu_features=("warp_drive",)))


def test_check_no_runtime(runtimes: dict[str, str]) -> None:
    with pytest.raises(MissingDependency, match=r"poolc\[cpu\]"):
        host.check_host(Requires(">=1.24"))


@pytest.mark.parametrize(
    "installed",
    [{"onnxruntime": "1.32.0"}, {"onnxruntime-gpu": "1.24.1"}, {"onnxruntime": "1.33.0.dev1"}],
)
def test_check_runtime_in_range(runtimes: dict[str, str], installed: dict[str, str]) -> None:
    runtimes.update(installed)
    assert host.check_host(Requires(">=1.24,<2"))


def test_check_runtime_out_of_range_names_both(runtimes: dict[str, str]) -> None:
    runtimes["onnxruntime"] = "1.20.0"
    with pytest.raises(
        ArtifactIncompatible, match=r">=1\.24 and onnxruntime 1\.20\.0 is installed"
    ):
        host.check_host(Requires(">=1.24"))


def test_check_range_that_is_none(runtimes: dict[str, str]) -> None:
    with pytest.raises(ArtifactCorrupt, match="not a range"):
        host.check_host(Requires("newest"))


def test_check_that_was_passed_is_not_repeated(
    runtimes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes["onnxruntime"] = "1.32.0"
    vouched = host.check_host(Requires(">=1.24"))
    monkeypatch.delattr(host, "_installed_versions")
    assert host.check_host(Requires(">=1.24"), vouched) == vouched


def testruntimes_on_path_are_metadata_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime-1.32.0.dist-info").mkdir()
    (tmp_path / "onnxruntime").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "missing")])
    assert host.runtimes_on_path() == "onnxruntime-1.32.0.dist-info"


@pytest.fixture
def demanding(contents: dict[str, bytes], tmp_path: Path) -> Artifact:
    return publish_fake(contents, tmp_path / "out", requires=Requires(">=1.24"))


def test_open_refuses_a_runtime_out_of_range(demanding: Artifact, runtimes: dict[str, str]) -> None:
    runtimes["onnxruntime"] = "1.20.0"
    with pytest.raises(ArtifactIncompatible):
        open_artifact(demanding.path)
    assert open_artifact(demanding.path, check_host=False) == demanding


@pytest.mark.usefixtures("settled")
def test_open_notices_another_runtime_after_stamping(
    demanding: Artifact, store: Store, runtimes: dict[str, str]
) -> None:
    runtimes["onnxruntime"] = "1.32.0"
    open_artifact(demanding.path, store=store)
    open_artifact(demanding.path, store=store, check_host=False)
    runtimes["onnxruntime"] = "1.20.0"
    with pytest.raises(ArtifactIncompatible):
        open_artifact(demanding.path, store=store)
