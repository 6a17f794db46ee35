"""A job that was cut short goes on where it was and ends with the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolc.errors import InputError, InvalidText
from poolc.runtime.bulk import Columns, describe, ledger
from poolc.runtime.bulk.commit import Commit
from poolc.runtime.bulk.destination import destination
from poolc.runtime.request import Params
from tests.runtime.bulk.conftest import ROOT, Embed, content, texts

Mortal = Callable[..., int | None]


class Stopped(Exception):
    """What ends a job here that a signal would end elsewhere."""


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """End jobs before they commit the part of that number; None: no more."""
    add = Commit.add

    def stop(number: int | None) -> None:
        def stopping(self: Commit, answered: Any) -> Any:
            if answered.part.number == number:
                raise Stopped
            return add(self, answered)

        monkeypatch.setattr(Commit, "add", add if number is None else stopping)

    return stop


def outputs(folder: Path) -> dict[str, bytes]:
    """Return what a job wrote: all but the inputs."""
    return {name: data for name, data in content(folder).items() if not name.startswith("in.")}


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy", "out.parquet", "out.arrow", "out/"])
def test_job_that_stopped_goes_on(
    embed: Embed, rows_file: Path, stop_after: Callable[[int | None], None], name: str
) -> None:
    folder = rows_file.parent
    output = f"{folder}/{name}"
    embed(rows_file, output)
    expected = outputs(folder)
    for path in folder.iterdir():
        if path != rows_file:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    stop_after(3)
    with pytest.raises(Stopped):
        embed(rows_file, output)
    assert not (folder / name).is_file()
    stop_after(None)
    result = embed(rows_file, output)
    assert (result.num_resumed, result.num_rows, result.num_failed) == (15, 21, 2)
    assert outputs(folder) == expected


@pytest.mark.parametrize(
    ("name", "append", "some"),
    [
        ("out.parquet", False, True),
        ("out.jsonl", True, True),
        *(
            pytest.param(name, append, False, marks=[pytest.mark.slow, pytest.mark.timeout(900)])
            for name, append in (("out.parquet", False), ("out/", False), ("out.npy", True))
        ),
    ],
)
def test_killed_at_calls_of_the_system(
    mortal: Mortal, rows_file: Path, tmp_path: Path, name: str, append: bool, some: bool
) -> None:
    output = f"{tmp_path}/{name}"
    before = {}
    if append:
        assert mortal(rows_file, output, 0) is not None
        assert mortal(rows_file, output, 0, append=True) is not None
        before = outputs(tmp_path)
        rows_file.write_text(rows_file.read_text().replace("r1", "more"))
    num_calls = mortal(rows_file, output, 0, append=append)
    assert num_calls is not None
    expected = outputs(tmp_path)
    fatal = (num_calls // 2, num_calls - 5) if some else range(1, num_calls + 1)
    for kill_at in fatal:
        for path in tmp_path.iterdir():
            if path != rows_file:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for other, data in before.items():
            (tmp_path / other).write_bytes(data)
        assert mortal(rows_file, output, kill_at, append=append) is None
        assert mortal(rows_file, output, 0, append=append) is not None
        assert outputs(tmp_path) == expected, f"killed at call {kill_at} of {num_calls}"


def test_half_a_line_of_the_ledger_is_not_there(
    embed: Embed, rows_file: Path, stop_after: Callable[[int | None], None]
) -> None:
    output = rows_file.with_name("out.jsonl")
    stop_after(2)
    with pytest.raises(Stopped):
        embed(rows_file, output)
    file = output.with_name("out.jsonl.poolc") / "ledger.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    stop_after(None)
    assert embed(rows_file, output).num_resumed == 5


def test_lost_part_is_computed_again(
    embed: Embed, rows_file: Path, stop_after: Callable[[int | None], None]
) -> None:
    output = rows_file.with_name("out.jsonl")
    stop_after(3)
    with pytest.raises(Stopped):
        embed(rows_file, output)
    (output.with_name("out.jsonl.poolc") / "part-00001.jsonl").write_bytes(b"")
    stop_after(None)
    assert embed(rows_file, output).num_resumed == 5
    assert len(output.read_text().splitlines()) == 21


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": Params(dimensions=8)}, "another params"),
        ({"part_rows": 6}, "another part_rows"),
        ({"columns": Columns(keep=("year",))}, "another columns"),
        ({"output_format": "npy"}, "another output_format"),
    ],
)
def test_other_options_do_not_go_on(
    embed: Embed,
    rows_file: Path,
    stop_after: Callable[[int | None], None],
    change: dict[str, Any],
    message: str,
) -> None:
    output = rows_file.with_name("out.jsonl")
    stop_after(2)
    with pytest.raises(Stopped):
        embed(rows_file, output)
    stop_after(None)
    with pytest.raises(InputError, match=message):
        embed(rows_file, output, **change)
    embed(rows_file, output, **change, restart=True)
    assert output.exists()


def test_another_kind_of_cpu_does_not_go_on(
    embed: Embed,
    rows_file: Path,
    stop_after: Callable[[int | None], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = rows_file.with_name("out.jsonl")
    stop_after(2)
    with pytest.raises(Stopped):
        embed(rows_file, output)
    stop_after(None)
    monkeypatch.setattr(describe, "host_class", lambda: "arm64+neon")
    with pytest.raises(InputError, match=r"here it is class arm64\+neon.*allow-different-host"):
        embed(rows_file, output)
    assert embed(rows_file, output, allow_different_host=True).num_resumed == 10


def test_changed_inputs_do_not_go_on(
    embed: Embed, rows_file: Path, stop_after: Callable[[int | None], None]
) -> None:
    output = rows_file.with_name("out.jsonl")
    stop_after(2)
    with pytest.raises(Stopped):
        embed(rows_file, output)
    stop_after(None)
    original = rows_file.read_text()
    rows_file.write_text(original.replace('"r1"', '"x1"'))  # as long, of another time
    os.utime(rows_file, ns=(1, 1))
    with pytest.raises(InputError, match="the rows of part 0 are not what they were"):
        embed(rows_file, output)
    rows_file.write_text(original + '{"text": "one more"}\n')
    with pytest.raises(InputError, match="with other inputs"):
        embed(rows_file, output)
    rows_file.write_text(original)  # restored: another time, the same rows
    assert embed(rows_file, output).num_resumed == 10


def test_input_that_vanishes(
    embed: Embed, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = rows_file.parent
    more = folder / "in.more.txt"
    more.write_text("\n".join(texts(9)))
    output = folder / "out.jsonl"
    both = [str(rows_file), str(more)]
    embed(both, output)
    expected = outputs(folder)
    output.unlink()
    begin = ledger.begin

    def begin_and_lose(*arguments: Any, **options: Any) -> Any:
        more.rename(folder / "in.aside")
        return begin(*arguments, **options)

    monkeypatch.setattr(ledger, "begin", begin_and_lose)
    with pytest.raises(InputError, match=r"cannot read .*in.more.txt: No such file"):
        embed(both, output)
    assert not output.exists()
    monkeypatch.undo()
    (folder / "in.aside").rename(more)
    assert embed(both, output).num_resumed == 20
    assert outputs(folder) == expected


def test_strict_job_goes_on_after_its_options_allow_the_row(embed: Embed, rows_file: Path) -> None:
    output = rows_file.with_name("out.jsonl")
    with pytest.raises(InvalidText, match="line 8: item 7 is empty"):
        embed(rows_file, output, strict=True)
    assert not output.exists()
    result = embed(rows_file, output)
    assert (result.num_resumed, result.num_failed) == (5, 2)


_LIMITED = """
import resource, sys
import poolc
from poolc import bulk

artifact, path, output, limit = sys.argv[1:]
engine = poolc.load(artifact)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
try:
    bulk.embed(engine, path, output, part_rows=5)
except poolc.PoolcError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out.npy"])
def test_full_disk(embed: Embed, tiny_embedder: Path, rows_file: Path, name: str) -> None:
    folder, output = rows_file.parent, rows_file.with_name(name)
    embed(rows_file, output)
    expected = outputs(folder)
    whole = len(expected[name])
    for other in expected:
        (folder / other).unlink()
    told = [str(tiny_embedder), str(rows_file), str(output), str(whole - 1)]
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, *told],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"InputError: cannot write {output}: File too large" in done.stderr
    assert not output.exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert embed(rows_file, output).num_resumed == 23
    assert outputs(folder) == expected


_CHAOS = """
import sys
import poolc
from poolc import bulk

artifact, path, output = sys.argv[1:]
engine = poolc.load(artifact)
print("ready", flush=True)
bulk.embed(engine, path, output, part_rows=40, keep="year")
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", ["out.parquet"])
def test_two_hundred_kills(tiny_embedder: Path, tmp_path: Path, name: str) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / name
    rows = [{"id": i, "text": t, "year": i % 40} for i, t in enumerate(texts(4000))]
    rows[777]["text"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-c", _CHAOS, str(tiny_embedder), str(path), str(output)]
    took_s, code = chaos_run(command, None)
    assert code == 0
    expected = outputs(tmp_path)
    kills, chance = 0, random.Random(7)
    while kills < 200:
        for other in expected:
            (tmp_path / other).unlink(missing_ok=True)
        while True:
            # Most of what is left of a job, so that some fall where the output is put in place.
            _, code = chaos_run(command, chance.uniform(0, 0.6 * took_s))
            if code == 0:
                break
            kills += 1
        assert outputs(tmp_path) == expected, f"after {kills} kills"


def chaos_run(command: list[str], kill_after_s: float | None) -> tuple[float, int]:
    """Run a job; kill it so long after its model is loaded. Return its seconds and exit code."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        began_s = time.perf_counter()
        try:
            code = process.wait(timeout=kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return time.perf_counter() - began_s, code


def test_parts_that_others_stored_ahead(
    embed: Embed, rows_file: Path, stop_after: Callable[[int | None], None], tmp_path: Path
) -> None:
    """Parts may be stored in any order: what was not entered must not outlive a new beginning."""
    output = f"{tmp_path}/out/"
    stop_after(2)
    with pytest.raises(Stopped):
        embed(rows_file, output)
    ahead = ("part-00003.parquet", "part-00004.parquet", "_part-00003.errors")
    for name in ahead:
        (tmp_path / "out" / name).write_bytes(b"of a worker")
    stop_after(None)
    embed(rows_file, output, part_rows=23, restart=True)
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"part-00000.parquet", "_poolc.json", "_errors.jsonl"}


@pytest.mark.parametrize("name", ["out.jsonl", "out/"])
def test_who_is_let_in_to_put_parts(tmp_path: Path, name: str) -> None:
    place = destination(f"{tmp_path}/{name}")
    shelf = place.shelf()
    token = shelf.admit()
    parts = place.open_parts(token)
    assert parts is not None
    assert shelf.holds(parts.put("part-00000.jsonl", b"{}"))
    assert place.open_parts("another") is None
    shelf.admit()  # the next run
    assert place.open_parts(token) is None
    with pytest.raises(InputError, match="cannot write"):
        parts.put("part-00001.jsonl", b"{}")
    shelf.clear()
    shelf.close()
