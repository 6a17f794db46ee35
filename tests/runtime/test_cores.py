"""How many cores a process may use, and the executor sized to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poolc.runtime import cores
from poolc.runtime.engine import Engine

ROOT = Path(__file__).resolve().parent.parent.parent
Cgroup = Callable[..., None]


@pytest.fixture
def cgroup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cgroup]:
    """Write control files by name; the process has the affinity of eight cores."""

    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_max", ".max").replace("cfs", ".cfs")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    monkeypatch.setattr(cores, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    cores.allowed_cores.cache_clear()
    yield write
    cores.allowed_cores.cache_clear()


def test_cores_follow_affinity(cgroup: Cgroup) -> None:
    assert cores.allowed_cores() == 8


def test_cores_without_affinity(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores.allowed_cores() == 3


def test_cores_of_an_unknown_machine(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.allowed_cores() == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),
        ("20000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("max 100000\n", 8),
        ("nonsense\n", 8),
        ("", 8),
    ],
)
def test_cores_of_cgroup_v2(cgroup: Cgroup, text: str, expected: int) -> None:
    cgroup(cpu_max=text)
    assert cores.allowed_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("150000", 2), ("-1", 8), ("50000", 1)])
def test_cores_of_cgroup_v1(cgroup: Cgroup, quota: str, expected: int) -> None:
    cgroup(cpu__cpucfs_quota_us=quota, cpu__cpucfs_period_us="100000")
    assert cores.allowed_cores() == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "500000 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/c/cpu.max": "100000 100000"}, 8),
        ("0::/outside\n", {"cpu.max": "400000 100000"}, 4),
        ("0::/../../other\n", {"cpu.max": "400000 100000"}, 4),
        ("1:cpu:/\n0::/a\n", {"unified/a/cpu.max": "400000 100000"}, 4),
        (
            "4:cpu,cpuacct:/a\n3:memory:/b\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "1"},
            8,
        ),
        (
            "4:cpu,cpuacct:/a\n3:memory:/b\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "25", "cpu,cpuacct/a/cpu.cfs_period_us": "10"},
            3,
        ),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "10"}, 8),
        ("nonsense\n", {}, 8),
    ],
)
def test_cores_of_nested_cgroups(
    cgroup: Cgroup, tmp_path: Path, own: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cores.allowed_cores() == expected


def test_executor_is_one_for_all(embedder: Engine, classifier: Engine) -> None:
    assert embedder.executor is classifier.executor is cores.shared_executor()


FORK = """
import os, sys
import numpy as np
import poolc
from poolc.runtime.backends import onnxruntime

onnxruntime.allowed_cores = lambda: 2
texts = [f"text number {i} of some" for i in range(40)]
engine = poolc.load(sys.argv[1])
before = engine.embed(texts)
lone = [engine.embed("a text") for _ in range(3)]
child = os.fork()
if not child:
    same = np.array_equal(engine.embed(texts), before)
    same &= all(np.array_equal(engine.embed("a text"), lone[2]) for _ in range(3))
    engine.close()
    os._exit(0 if same else 1)  # ONNX Runtime's own threads hang the usual end of a forked child
_, status = os.waitpid(child, 0)
assert np.array_equal(engine.embed(texts), before)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_embed_after_fork(tiny_embedder: Path) -> None:
    """Sessions, the tokenizer and a new executor work in a forked child, which can close them.

    The parent's session with several threads is of no use there: its threads are not.
    """
    command = [sys.executable, "-c", FORK, str(tiny_embedder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no niceness of its own")
def test_micro_batches_give_way_to_other_threads() -> None:
    code = """
import os, threading
from poolc.runtime import cores
def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
cores.compute_behind(3)
print(cores.shared_executor().submit(niceness).result() - niceness())
"""
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout == b"3\n"
