"""scripts/bootstrap.py: the decisions alone, and its files; nothing is installed here."""

from __future__ import annotations

import fcntl
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import bootstrap
from scripts.bootstrap import BootstrapError, State, TorchBuild

STATE = State(str(bootstrap.ROOT), "hash", ("cpu", "serve"), created=True, done=True)


# What pip 23.2 and 26.3 print.
CPU_FROM_A_FOLDER = """Looking in links: /wheels
WARNING: Location 'file:///index/torch/' is ignored: it is neither a file nor a directory.
Processing /wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
Collecting filelock (from torch==2.13.0)
  Downloading filelock-4.2.12-py3-none-any.whl (222 kB)
"""
CPU_FROM_AN_INDEX = """Looking in indexes: https://index.example/whl/cpu
Collecting torch==2.13.0
  Downloading https://a.example/torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl (190 MB)
"""
CPU_OF_A_MAC = """Collecting torch==2.13.0
  Downloading torch-2.13.0-cp311-none-macosx_11_0_arm64.whl (81.1 MB)
     ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 81.1/81.1 MB 98.7 MB/s  0:00:00
Collecting filelock (from torch==2.13.0)
  Downloading filelock-4.2.12-py3-none-any.whl (222 kB)
Would install filelock-4.2.12 torch-2.13.0
"""
CUDA_WITHOUT_METADATA = """Collecting torch==2.13.0
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (526.6 MB)
"""
CUDA_WITH_METADATA = """Collecting torch==2.13.0
  Obtaining dependency information for torch==2.13.0 from https://index.example/torch-2.13.0-cp311\
-cp311-manylinux_2_28_x86_64.whl.metadata
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (29 kB)
Collecting filelock (from torch==2.13.0)
  Downloading filelock-4.2.12-py3-none-any.whl.metadata (2.0 kB)
Collecting nvidia-cublas==13.1.1.3 (from torch==2.13.0)
"""
CUDA_FROM_A_FOLDER = """Looking in links: /wheels
Processing /wheels/torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl
Processing /wheels/nvidia_cublas-13.1.1.3-py3-none-manylinux_2_27_x86_64.whl (from torch==2.13.0)
"""
CUDA_BY_ITS_NAME = """Collecting torch==2.13.0
  Using cached torch-2.13.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl (1.2 GB)
"""


@pytest.mark.parametrize(
    ("output", "build"),
    [
        (CPU_FROM_A_FOLDER, TorchBuild("2.13.0+cpu", cuda=False)),
        (CPU_FROM_AN_INDEX, TorchBuild("2.13.0+cpu", cuda=False)),
        (CPU_OF_A_MAC, TorchBuild("2.13.0", cuda=False)),
        (CUDA_WITHOUT_METADATA, TorchBuild("2.13.0", cuda=True)),
        (CUDA_WITH_METADATA, TorchBuild("2.13.0", cuda=True)),
        (CUDA_FROM_A_FOLDER, TorchBuild("2.13.0", cuda=True)),
        (CUDA_BY_ITS_NAME, TorchBuild("2.13.0+cu130", cuda=True)),
        ("Collecting nvidia-ml-py\nERROR: No matching distribution for torch\n", None),
    ],
)
def test_read_torch_build(output: str, build: TorchBuild | None) -> None:
    assert bootstrap.read_torch_build(output.splitlines(keepends=True)) == build


@pytest.mark.parametrize("output", [CUDA_WITHOUT_METADATA, CUDA_WITH_METADATA, CUDA_FROM_A_FOLDER])
def test_read_torch_build_reads_nothing_after_cuda_was_announced(output: str) -> None:
    lines = iter([*output.splitlines(keepends=True), "the download\n"])
    bootstrap.read_torch_build(lines)
    assert next(lines) == "the download\n"


def fake_pip(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(bootstrap, "venv_python", lambda venv: Path(sys.executable))
    monkeypatch.setattr(bootstrap, "PIP", ("-c", program))
    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: False)
    monkeypatch.delenv("ALLOW_CUDA", raising=False)


def test_check_torch_stops_pip_at_a_cuda_build_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pip that goes on "downloading" until it is killed.
    program = f"import signal; print({CUDA_WITHOUT_METADATA!r}, flush=True); signal.pause()"
    fake_pip(monkeypatch, program)
    with pytest.raises(BootstrapError) as caught:
        bootstrap.check_torch(tmp_path, "torch==2.13.0")
    for part in ("2.7 GB", "TORCH_INDEX=https://", "ALLOW_CUDA=1", "no NVIDIA GPU", "was stopped"):
        assert part in str(caught.value)


@pytest.mark.parametrize("output", [CPU_FROM_A_FOLDER, CPU_OF_A_MAC])
def test_check_torch_takes_a_cpu_build(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    output: str,
) -> None:
    fake_pip(monkeypatch, f"print({output!r})")
    bootstrap.check_torch(tmp_path, "torch==2.13.0")
    assert "a CPU build" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (f"print({CUDA_WITH_METADATA[:30]!r}); raise SystemExit('no network')", "no network"),
        ("print('Would install nothing')", "names no file of torch"),
    ],
)
def test_check_torch_where_pip_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str
) -> None:
    fake_pip(monkeypatch, program)
    with pytest.raises(BootstrapError, match=message):
        bootstrap.check_torch(tmp_path, "torch==2.13.0")


@pytest.mark.parametrize(("has_gpu", "allow_cuda"), [(True, "0"), (False, "1")])
def test_check_torch_does_not_ask_where_cuda_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool, allow_cuda: str
) -> None:
    fake_pip(monkeypatch, "raise SystemExit('asked')")
    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: has_gpu)
    monkeypatch.setenv("ALLOW_CUDA", allow_cuda)
    bootstrap.check_torch(tmp_path, "torch==2.13.0")
    assert not (tmp_path / bootstrap.LOG_FILE).exists()


def test_refusal_of_an_unmeasured_build_claims_no_exact_size() -> None:
    assert "several GB" in bootstrap.refusal("9.9")


def test_cuda_download_was_measured_for_the_pinned_torch() -> None:
    pins = bootstrap.CONSTRAINTS.read_text()
    assert bootstrap.pinned("torch", pins) == f"torch=={bootstrap.CUDA_DOWNLOAD[0]}"


def test_constraints_pin_everything_once_and_without_local_versions() -> None:
    pins = [line for line in bootstrap.CONSTRAINTS.read_text().splitlines() if line[:1] != "#"]
    assert all("==" in pin and "+" not in pin and "/" not in pin for pin in pins)
    names = [pin.partition("==")[0] for pin in pins]
    assert names == sorted(set(names))
    for name in (*bootstrap.BESIDE_POOLC, bootstrap.BUILD_BACKEND):
        assert name in names


def test_pinned_unknown_name() -> None:
    with pytest.raises(BootstrapError, match="does not pin numpy"):
        bootstrap.pinned("numpy", "torch==2.13.0\n")


def test_state_round_trip(tmp_path: Path) -> None:
    bootstrap.write_state(tmp_path, STATE)
    assert bootstrap.read_state(tmp_path) == STATE


@pytest.mark.parametrize("content", ["", "{", "[]", '{"root": "x"}', "null"])
def test_read_state_unreadable(tmp_path: Path, content: str) -> None:
    (tmp_path / bootstrap.STATE_FILE).write_text(content)
    assert bootstrap.read_state(tmp_path) is None


def test_is_current_wants_every_extra_and_the_same_inputs() -> None:
    assert bootstrap.is_current(STATE, "hash", ["cpu"])
    assert not bootstrap.is_current(STATE, "hash", ["cpu", "dev"])
    assert not bootstrap.is_current(STATE, "other", ["cpu"])
    assert not bootstrap.is_current(replace(STATE, done=False), "hash", ["cpu"])
    assert not bootstrap.is_current(replace(STATE, root="/elsewhere"), "hash", ["cpu"])


def test_must_recreate_only_what_this_script_made() -> None:
    assert not bootstrap.must_recreate(STATE)
    assert bootstrap.must_recreate(replace(STATE, done=False))
    assert bootstrap.must_recreate(replace(STATE, root="/elsewhere"))
    assert not bootstrap.must_recreate(replace(STATE, done=False, created=False))
    assert not bootstrap.must_recreate(None)


def make_venv(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").touch()
    (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")
    return folder


def test_open_environment_refuses_another_python(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / ".venv", "3.9.1")
    with pytest.raises(BootstrapError, match=r"holds Python 3\.9.*VENV="):
        bootstrap.open_environment(venv)


def test_open_environment_takes_one_that_it_did_not_make(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / ".venv", sys.version.split()[0])
    state = bootstrap.open_environment(venv)
    assert not state.created
    assert state.extras == ()


def test_bootstrap_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(BootstrapError, match="not a working virtual environment"):
        bootstrap.bootstrap(tmp_path, ["cpu"])
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_alone_holds_a_lock_that_pip_inherits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An exit code of 1, which pip() raises for, unless an open descriptor is the lock file.
    inherited = (
        "import os, sys\n"
        "paths = [f'/dev/fd/{name}' for name in os.listdir('/dev/fd')]\n"
        "paths = [path for path in paths if os.path.exists(path)]\n"
        "sys.exit(not any(os.path.samefile(path, sys.argv[1]) for path in paths))"
    )
    monkeypatch.setattr(bootstrap, "venv_python", lambda venv: Path(sys.executable))
    monkeypatch.setattr(bootstrap, "PIP", ("-c", inherited))
    venv = make_venv(tmp_path / ".venv", sys.version.split()[0])
    with bootstrap.alone(venv), (venv / bootstrap.LOCK_FILE).open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        bootstrap.pip(venv, str(venv / bootstrap.LOCK_FILE))
    with (venv / bootstrap.LOCK_FILE).open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_bootstrap_does_nothing_when_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    venv = make_venv(tmp_path / ".venv", sys.version.split()[0])
    bootstrap.write_state(venv, replace(STATE, inputs=bootstrap.inputs_hash()))
    monkeypatch.setattr(bootstrap, "install", lambda venv, extras: pytest.fail("installed again"))
    bootstrap.bootstrap(venv, ["cpu"])
    assert capsys.readouterr().out == ""


def test_bootstrap_keeps_the_extras_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = make_venv(tmp_path / ".venv", sys.version.split()[0])
    bootstrap.write_state(venv, STATE)
    asked: list[str] = []
    monkeypatch.setattr(bootstrap, "install", lambda venv, extras: asked.extend(extras))
    bootstrap.bootstrap(venv, ["dev"])
    assert asked == ["cpu", "dev", "serve"]
    state = bootstrap.read_state(venv)
    assert state is not None
    assert state.done


def test_bootstrap_failed_install_leaves_the_earlier_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(venv: Path, extras: object) -> None:
        raise BootstrapError("no network")

    venv = make_venv(tmp_path / ".venv", sys.version.split()[0])
    bootstrap.write_state(venv, STATE)
    monkeypatch.setattr(bootstrap, "install", install)
    with pytest.raises(BootstrapError, match="no network"):
        bootstrap.bootstrap(venv, ["dev"])
    assert bootstrap.read_state(venv) == STATE


def test_bootstrap_killed_install_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(venv: Path, extras: object) -> None:
        raise KeyboardInterrupt

    venv = make_venv(tmp_path / ".venv", sys.version.split()[0])
    bootstrap.write_state(venv, STATE)
    monkeypatch.setattr(bootstrap, "install", install)
    with pytest.raises(KeyboardInterrupt):
        bootstrap.bootstrap(venv, ["dev"])
    assert bootstrap.must_recreate(bootstrap.read_state(venv))


def test_engines_are_no_extra_of_poolc_and_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, ...]] = []

    def pip(venv: Path, *arguments: str) -> None:
        ran.append(arguments)
        if "--no-deps" in arguments:
            raise BootstrapError("no wheel for this Python")

    monkeypatch.delenv("TORCH_INDEX", raising=False)
    monkeypatch.setattr(bootstrap, "pip", pip)
    monkeypatch.setattr(bootstrap, "check_torch", lambda venv, requirement: None)
    bootstrap.install(tmp_path, ("cpu", "engines"))
    assert any(one.endswith("[cpu]") for one in ran[1])
    assert "tensorrt-rtx-cu13-libs==1.7.1.116" in ran[2]
    assert "their tests are skipped: no wheel for this Python" in capsys.readouterr().out


def test_create_replaces_what_was_left(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / ".venv", "3.9.1")
    (venv / "lib").mkdir()
    (venv / "lib/half-installed.py").touch()
    state = bootstrap.create(venv)
    assert bootstrap.read_state(venv) == state
    assert bootstrap.venv_version(venv) == sys.version_info[:2]
    assert not (venv / "lib/half-installed.py").exists()
    assert bootstrap.installed_torch(venv) is None


def test_readable_keeps_what_a_person_wants_to_see() -> None:
    lines = [
        "Collecting torch==2.13.0\n",
        "  Downloading https://index.example/torch-2.13.0-cp311.whl (526.6 MB)\n",
        "  Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)\n",
        "Installing collected packages: mpmath, sympy, torch\n",
    ]
    shown = list(bootstrap.readable(iter(lines)))
    assert shown == ["    torch-2.13.0-cp311.whl (526.6 MB)", "    installing 3 packages"]


def test_pip_failure_shows_the_end_of_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "venv_python", lambda venv: Path(sys.executable))
    monkeypatch.setattr(bootstrap, "PIP", ("-c", "print('no such thing'); raise SystemExit(1)"))
    with pytest.raises(BootstrapError, match="no such thing"):
        bootstrap.pip(tmp_path, "install", "nothing")


def test_main_prints_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        bootstrap.main(["--venv", str(tmp_path)])
    assert ended.value.code == 1
    assert "remove it" in capsys.readouterr().err
