"""Talking to the compiler's process, with stand-ins that say or do one thing each."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poolc import compiler_process, errors
from poolc.compiler_process import Done, Job
from poolc.errors import CompileError, ParityError, PoolcError, UnsafeWeights
from poolc.spec import CompileOptions, Target

StandIn = Callable[[str], None]
START = {"event": "stage", "name": "start", "status": "start"}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Let a script be the compiler; it finds ``events`` (a file) and ``say`` (an event)."""

    def install(body: str) -> None:
        script = tmp_path / "compiler"
        script.write_text(
            f"#!{sys.executable}\n"
            "import json, os, signal, sys\n"
            "events = os.fdopen(int(sys.argv[3]), 'w')\n"
            "def say(**event):\n"
            "    print(json.dumps(event), file=events, flush=True)\n"
            f"{body}\n"
        )
        script.chmod(0o755)
        monkeypatch.setattr("poolc.compiler_process.sys.executable", str(script))

    return install


def job(tmp_path: Path, **changes: Any) -> Job:
    return Job("someone/model", CompileOptions(**changes), tmp_path / "store")


def test_run_returns_the_result(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in(
        "say(event='stage', name='start', status='start')\n"
        "print('noise of a library'); print('more', file=sys.stderr)\n"
        "say(event='result', path='/there', seconds={'fetch': 1.5})"
    )
    heard: list[dict[str, Any]] = []
    done = compiler_process.run(job(tmp_path), heard.append)
    assert done == Done(Path("/there"), {"fetch": 1.5})
    assert heard == [START]


def test_run_sends_the_request(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in(
        f"open({str(tmp_path / 'request')!r}, 'w').write(sys.stdin.read())\n"
        "say(event='result', path='/there', seconds={})"
    )
    options = CompileOptions(target=Target.CPU, hf_overrides={"a": {"b": "é"}}, max_length=8)
    compiler_process.run(Job("m", options, tmp_path, Path("~/out"), refresh=True))
    request = json.loads((tmp_path / "request").read_text())
    assert request["model"] == "m"
    assert request["output"] == str(Path("~/out").expanduser())
    assert (request["refresh"], request["store"]) == (True, str(tmp_path))
    assert request["options"]["hf_overrides"] == {"a": {"b": "é"}}
    assert (request["options"]["max_length"], request["options"]["target"]) == (8, "cpu")


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("ParityError", ParityError),
        ("UnsafeWeights", UnsafeWeights),
        ("OSError", OSError),
        ("NoSuchError", CompileError),
    ],
)
def test_run_raises_the_compilers_error(
    kind: str, raised: type[Exception], tmp_path: Path, stand_in: StandIn
) -> None:
    stand_in(f"say(event='error', type={kind!r}, message='what happened'); sys.exit(1)")
    with pytest.raises(raised, match=r"^what happened$"):
        compiler_process.run(job(tmp_path))


@pytest.mark.parametrize(
    ("number", "name", "said"),
    [
        # Who writes to a full disk is not told which file it was.
        (errno.ENOSPC, None, "compiling into {store}: free some, or set POOLC_CACHE to another"),
        (errno.EROFS, "{store}/artifacts/lock", "into {store}: make it writable, or set POOLC"),
        (errno.EACCES, "/elsewhere", "'/elsewhere'"),
        (errno.EIO, None, "Input/output error"),
    ],
)
def test_run_says_what_takes_no_files(
    number: int, name: str | None, said: str, tmp_path: Path, stand_in: StandIn
) -> None:
    wanted = job(tmp_path)
    name = None if name is None else name.format(store=wanted.store)
    told = {"errno": number, "strerror": os.strerror(number), "filename": name}
    stand_in(f"say(event='error', type='OSError', message='m', **{told}); sys.exit(1)")
    with pytest.raises(OSError, match=re.escape(said.format(store=wanted.store))) as caught:
        compiler_process.run(wanted)
    assert caught.value.errno == number
    if number == errno.ENOSPC:
        with pytest.raises(OSError, match=f"into {tmp_path}: free some, or name another output"):
            compiler_process.run(replace(wanted, output=tmp_path / "out"))


def test_the_compiler_says_which_file_it_was(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the store should be")
    with pytest.raises(NotADirectoryError) as caught:
        compiler_process.run(job(tmp_path, from_onnx=True))
    assert str(caught.value.filename).startswith(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('boom'); sys.exit(3)", r"stopped \(exit code 3\) without a result:\nboom$"),
        ("sys.exit(0)", r"stopped \(exit code 0\) without a result:"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"stopped \(exit code -9\) without a result"),
        # Killed in the middle of an event.
        (
            'events.write(\'{"event": "res\'); events.flush(); os._exit(9)',
            r"stopped \(exit code 9\) without a result",
        ),
        # The tail of a long log, and output that is not text.
        ("print('first'); print('x\\n' * 99 + 'last'); sys.exit(2)", r"result:\n(x\n)+last$"),
        ("os.write(1, b'\\xff\\n'); sys.exit(2)", "result:\n\ufffd$"),
    ],
)
def test_run_of_a_compiler_that_dies(
    body: str, message: str, tmp_path: Path, stand_in: StandIn
) -> None:
    stand_in(body)
    with pytest.raises(CompileError, match=message):
        compiler_process.run(job(tmp_path))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_run_stops_the_compiler_when_a_callback_raises(
    error: type[BaseException], tmp_path: Path, stand_in: StandIn
) -> None:
    stand_in("say(event='stage', name=str(os.getpid()), status='start')\nsignal.pause()")
    pids = []

    def interrupt(event: dict[str, Any]) -> None:
        pids.append(int(event["name"]))
        raise error

    with pytest.raises(error):
        compiler_process.run(job(tmp_path), interrupt)
    (pid,) = pids
    with pytest.raises(ProcessLookupError):  # gone, and waited for
        os.kill(pid, 0)


def test_run_with_a_large_log_does_not_block(tmp_path: Path, stand_in: StandIn) -> None:
    stand_in("print('x' * 5_000_000)\nsay(event='result', path='/there', seconds={})")
    assert compiler_process.run(job(tmp_path)).path == Path("/there")


def test_every_error_crosses_by_name() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, PoolcError)]
    assert len(ours) > 20
    for kind in ours:
        assert getattr(errors, kind.__name__) is kind
        assert str(kind("message")) == "message"
