"""The top frame: every error becomes one line and its exit code; tracebacks only on request."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import poolc
from poolc import errors
from poolc.cli import exit_codes
from tests.cli.conftest import Cli

RAISED: list[tuple[Exception, int]] = [
    (errors.InvalidOption("x"), 2),
    (errors.InvalidText("x"), 3),
    (errors.TextTooLong("x"), 3),
    (errors.InvalidDimensions("x"), 3),
    (errors.UnsupportedTask("x"), 3),
    (errors.ModelNotFound("x"), 4),
    (errors.UnsupportedModel("x"), 4),
    (errors.TokenizerError("x"), 4),
    (errors.RemoteCodeRefused("x"), 4),
    (errors.UnsafeWeights("x"), 4),
    (errors.CorruptWeights("x"), 4),
    (errors.CompileError("x"), 5),
    (errors.ParityError("x"), 6),
    (errors.ArtifactNotFound("x"), 7),
    (errors.ArtifactCorrupt("x"), 7),
    (errors.ArtifactIncompatible("x"), 7),
    (errors.ArtifactExists("x"), 7),
    (errors.MissingDependency("x"), 8),
    (errors.BackendError("x"), 9),
    (errors.PoolcError("x"), 1),
]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def probe() -> None:
        raise error

    monkeypatch.setattr("poolc.runtime.probe.probe", probe)


@pytest.mark.parametrize(("error", "code"), RAISED, ids=lambda value: type(value).__name__)
def test_error_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    fail_with(monkeypatch, error)
    ran = cli("doctor")
    assert (ran.code, ran.out, ran.err) == (code, "", "error: x\n")


def test_lines_of_a_message_are_joined(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, errors.CompileError("the compiler stopped:\n  Killed\n"))
    assert cli("doctor").err == "error: the compiler stopped: Killed\n"


def test_bug(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyError("lost"))
    ran = cli("doctor")
    assert ran.code == exit_codes.BUG
    assert ran.err.startswith(
        "error: KeyError: 'lost' (this is a bug in poolc: run again with --debug"
    )
    assert "Traceback" not in ran.err


def test_operating_system_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, PermissionError(13, "Permission denied", "/somewhere"))
    ran = cli("doctor")
    assert (ran.code, ran.err) == (10, "error: Permission denied: /somewhere\n")
    fail_with(monkeypatch, OSError("a library's own words"))
    ran = cli("doctor")
    assert (ran.code, ran.err) == (10, "error: a library's own words\n")


def test_interrupt(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert cli("doctor").code == 130


@pytest.mark.parametrize("arguments", [("--debug", "doctor"), ("doctor", "--debug")])
def test_debug_shows_the_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    fail_with(monkeypatch, errors.BackendError("x"))
    ran = cli(*arguments)
    assert ran.code == 9
    assert ran.err.startswith("Traceback")
    assert ran.err.endswith("\nerror: x\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("embed", "model"), "Missing argument"),
        (("embed", "model", "in.txt"), "Missing option"),
        (("compile", "model", "--max-length", "long"), "--max-length"),
        (("doctor", "--nope"), "No such option"),
    ],
)
def test_usage_errors(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    ran = cli(*arguments)
    assert ran.code == exit_codes.USAGE
    assert said in ran.err


def test_version(cli: Cli) -> None:
    ran = cli("--version")
    assert (ran.code, ran.out) == (0, f"poolc {poolc.__version__}\n")


def test_help_names_commands_and_codes(cli: Cli) -> None:
    ran = cli("--help")
    assert ran.code == 0
    for word in ("compile", "embed", "serve", "inspect", "cache", "doctor", "130  interrupted"):
        assert word in ran.out


def test_module_runs_as_a_process() -> None:
    command = [sys.executable, "-m", "poolc", "inspect", "someone/nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert done.stderr.startswith("error: someone/nothing is no artifact")
    assert done.stderr.count("\n") == 1


# Whoever runs the suite in the background of a shell has it ignore SIGINT, and Python then installs
# no handler: the first lines are what a terminal gives.
_WAITING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from poolc.cli.main import main
from poolc.runtime import probe

def wait():
    try:
        print("waiting", flush=True)
        signal.pause()
    finally:
        print("cleaned up", flush=True)

probe.probe = wait
main(["doctor"])
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, exit_codes.TERMINATED)]
)
def test_signals_clean_up(number: int, code: int) -> None:
    command = [sys.executable, "-c", _WAITING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(number)
        try:
            out, err = process.communicate()
        finally:
            process.kill()  # or leaving the block would wait for a process that never ends
    assert (process.returncode, out, err) == (code, b"cleaned up\n", b"")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom poolc.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n"
        "    heavy = {'numpy', 'onnxruntime', 'rich', 'tokenizers', 'torch', 'fastapi', 'orjson'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
