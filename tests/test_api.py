"""``poolc.compile`` and ``poolc.load``: options, reuse, and the real compiler in its process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import poolc
from poolc import compiler_process
from poolc.api import lookup, make_options
from poolc.compiler_process import Done, Job
from poolc.errors import (
    ArtifactCorrupt,
    ArtifactNotFound,
    InvalidDimensions,
    InvalidOption,
    MissingDependency,
    ModelNotFound,
)
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.publish import staging
from poolc.model_cache.requests import compile_key, folder_identity
from poolc.model_cache.store import Store
from poolc.spec import CompileOptions, Convert, Defaults, Precision, Target
from tests.compiler.fake_hub import files_of, serve
from tests.models import wordpiece

ROOT = Path(__file__).resolve().parent.parent
Event = dict[str, Any]


def ignore(event: Event) -> None:
    """Listen to nothing: without a listener, warnings of the compiler are Python's."""


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of the test's own, in place of the suite's."""
    monkeypatch.setenv("POOLC_CACHE", str(tmp_path / "store"))
    return Store.default()


@pytest.fixture
def jobs(tiny_embedder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What the compiler is asked for; a stand-in answers with ``tiny_embedder``."""
    asked: list[Job] = []

    def run(job: Job, on_event: Callable[[Event], None] | None = None) -> Done:
        asked.append(job)
        return Done(tiny_embedder, {"fetch": 0.5})

    monkeypatch.setattr(compiler_process, "run", run)
    return asked


# Options.


def test_make_options() -> None:
    assert make_options() == CompileOptions()
    assert make_options(max_length=None, target=None) == CompileOptions()
    options = make_options(
        target="cpu",
        precision=Precision.FP32,
        convert="embed",
        defaults="vllm",
        pooler_config={"pooling_type": "CLS"},
        hf_overrides={"a": {"b": 1}},
        max_length=8,
    )
    assert (options.target, options.convert) == (Target.CPU, Convert.EMBED)
    assert options.defaults is Defaults.VLLM
    assert options.hf_overrides == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_lenght": 8}, "there is no option 'max_lenght'; did you mean max_length?"),
        (
            {"pooling_config": {}},
            "there is no option 'pooling_config'; did you mean pooler_config?",
        ),
        ({"x": 1}, "there is no option 'x'; known: target, precision, runner, convert"),
        ({"target": "tpu"}, "target is 'tpu'; allowed: cpu, cuda, tensorrt, tensorrt-rtx"),
        ({"precision": "fp12"}, "precision is 'fp12'; allowed: fp32, fp16, bf16, int8, fp8"),
        (
            {"convert": "rank"},
            "convert is 'rank'; allowed: auto, none, embed, embed_sparse, classify",
        ),
        ({"runner": "draft"}, "runner is 'draft'; allowed: auto, pooling, generate"),
        ({"defaults": "mine"}, "defaults is 'mine'; allowed: sentence-transformers, vllm"),
        ({"max_length": "8"}, "max_length must be int, not str"),
        ({"max_length": True}, "max_length must be int, not bool"),
        ({"pooler_config": "CLS"}, "pooler_config must be an object, not str"),
        ({"hf_overrides": [1]}, "hf_overrides must be an object, not list"),
        ({"trust_remote_code": 1}, "trust_remote_code must be bool, not int"),
    ],
)
def test_make_options_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        make_options(**options)
    assert str(caught.value).startswith(message)


# What needs no compiler.


def test_compile_reuses(tiny_embedder: Path, tiny_embedder_source: Path) -> None:
    result = poolc.compile(tiny_embedder_source)
    assert (result.path, result.reused, result.seconds) == (tiny_embedder, True, {})
    assert result.artifact_id == tiny_embedder.name
    assert result.report["parity"]["texts"] >= 32
    again = poolc.compile(str(tiny_embedder_source), target="cpu", max_length=None)
    assert again.path == tiny_embedder


def test_load_reuses(tiny_embedder: Path, tiny_embedder_source: Path, jobs: list[Job]) -> None:
    engine = poolc.load(tiny_embedder_source)
    assert (engine.artifact.path, jobs) == (tiny_embedder, [])
    assert poolc.load(tiny_embedder).artifact.artifact_id == engine.artifact.artifact_id


def test_load_reuses_what_the_files_decided(
    tiny_embedder: Path,
    tiny_embedder_source: Path,
    jobs: list[Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whose defaults hold makes no difference there, and no second artifact."""
    assert poolc.load(tiny_embedder_source, defaults="vllm").artifact.path == tiny_embedder
    assert jobs == []
    monkeypatch.setattr("poolc.api.LIBRARY_DEFAULT", "1_Pooling/config.json")  # as if it had not
    poolc.load(tiny_embedder_source, defaults="vllm")
    assert [job.options.defaults for job in jobs] == ["vllm"]


def test_compile_asks_the_compiler(
    tiny_embedder_source: Path, jobs: list[Job], tmp_path: Path
) -> None:
    folder, store = str(tiny_embedder_source), Store.default().root
    result = poolc.compile(folder, max_length=9)
    assert (result.reused, result.seconds) == (False, {"fetch": 0.5})
    poolc.compile(folder, refresh=True)
    poolc.compile(folder, output=tmp_path / "out")
    poolc.load(folder, max_length=9)
    assert jobs == [
        Job(folder, CompileOptions(max_length=9), store),
        Job(folder, CompileOptions(), store, refresh=True),
        Job(folder, CompileOptions(), store, output=tmp_path / "out"),
        Job(folder, CompileOptions(max_length=9), store),
    ]


@pytest.mark.parametrize("call", [poolc.compile, poolc.load])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "there is no folder .*absent, nor is it a hub id"),
        ("file", "file is a file; give a model folder or a hub id"),
        ("empty", "holds neither config.json nor modules.json: give a Hugging Face or"),
    ],
)
def test_nothing_to_compile(
    call: Callable[..., Any], name: str, message: str, tmp_path: Path, jobs: list[Job]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=message):
        call(tmp_path / name)
    assert jobs == []


@pytest.mark.parametrize("call", [poolc.compile, poolc.load])
def test_score_template_is_named_by_its_file(
    call: Callable[..., Any],
    tmp_path: Path,
    tiny_cross_encoder_source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(job: Job, on_event: Callable[[Event], None]) -> Done:
        raise InvalidOption("score_template uses 'documnt', which it is not given")

    monkeypatch.setattr("poolc.compiler_process.run", run)
    template = "{{ query }} {{ documnt }}"
    path = tmp_path / "bad.jinja"
    path.write_text(template)
    with pytest.raises(InvalidOption, match=r"^/.*bad\.jinja: score_template uses 'documnt'"):
        call(tiny_cross_encoder_source, score_template=path)
    with pytest.raises(InvalidOption, match=r"^score_template uses 'documnt'"):
        call(tiny_cross_encoder_source, score_template=template)


def test_compile_an_artifact(tiny_embedder: Path) -> None:
    with pytest.raises(ModelNotFound, match="is a compiled artifact already: give the model"):
        poolc.compile(tiny_embedder)


def test_bad_options_need_no_model() -> None:
    for call in (poolc.compile, poolc.load):
        with pytest.raises(InvalidOption, match="did you mean max_length"):
            call("no/such/folder", max_len=3)


def test_compile_warns_where_nobody_listens(
    tiny_embedder: Path, tiny_embedder_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(job: Job, on_event: Callable[[Event], None]) -> Done:
        on_event({"event": "stage", "name": "fetch", "status": "start"})
        on_event({"event": "warning", "message": "BertModel configures no pooling"})
        return Done(tiny_embedder, {})

    monkeypatch.setattr(compiler_process, "run", run)
    with pytest.warns(UserWarning, match="BertModel configures no pooling"):
        poolc.compile(tiny_embedder_source, max_length=9)
    poolc.compile(tiny_embedder_source, max_length=9, on_event=ignore)


# Loading an artifact.


def test_load_overrides_matryoshka(tiny_embedder: Path) -> None:
    with pytest.raises(InvalidDimensions, match="was trained for: 8, 16"):
        poolc.load(tiny_embedder).embed("a river", dimensions=4)
    engine = poolc.load(tiny_embedder, hf_overrides={"matryoshka_dimensions": [4]})
    assert engine.embed("a river", dimensions=4).shape == (1, 4)
    with pytest.raises(InvalidDimensions, match="was trained for: 4"):
        engine.embed("a river", dimensions=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 32}, "max_length cannot change a compiled artifact: compile the model"),
        ({"hf_overrides": {"hidden_act": "relu"}}, "hidden_act cannot change a compiled artifact"),
        (
            {"pooler_config": {"pooling_type": "CLS"}, "convert": "embed"},
            "convert, pooler_config cannot change a compiled artifact",
        ),
        ({"hf_overrides": {"matryoshka_dimensions": [99]}}, r"\[99\]; allowed: a list of int"),
        ({"target": "tensorrt"}, "target cannot change a compiled artifact"),
    ],
)
def test_load_overrides_refused(options: dict[str, Any], message: str, tiny_embedder: Path) -> None:
    with pytest.raises(InvalidOption, match=message):
        poolc.load(tiny_embedder, **options)


def test_load_a_damaged_artifact(tiny_embedder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "artifact"
    shutil.copytree(tiny_embedder, copy)
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:-1])
    with pytest.raises(ArtifactCorrupt, match=r"model\.onnx"):
        poolc.load(copy)
    with pytest.raises(ArtifactNotFound):
        open_artifact(tmp_path / "absent")


def test_compile_again_what_is_damaged(
    tiny_embedder: Path, tiny_embedder_source: Path, jobs: list[Job], own_store: Store
) -> None:
    artifact_id = tiny_embedder.name
    shutil.copytree(tiny_embedder, own_store.artifact_path(artifact_id))
    damaged = own_store.artifact_path(artifact_id) / "model.onnx.data"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    key = compile_key(
        folder_identity(tiny_embedder_source.name, own_store.source_digest(tiny_embedder_source)),
        CompileOptions(),
    )
    own_store.remember(key, artifact_id, {})
    heard: list[Event] = []
    result = poolc.compile(tiny_embedder_source, on_event=heard.append)
    assert (result.reused, len(jobs)) == (False, 1)
    (warning,) = (event["message"] for event in heard)
    assert "model.onnx.data" in warning
    assert warning.endswith("; compiling it again")


# Requests that are the same, and those that are not.


def test_lookup_of_another_tokenizer(
    tiny_embedder_source: Path, tiny_embedder: Path, own_store: Store, tmp_path: Path
) -> None:
    shutil.copytree(tiny_embedder, own_store.artifact_path(tiny_embedder.name))
    words = tmp_path / "words"
    words.mkdir()
    wordpiece(words)
    options = make_options(tokenizer=str(words))

    def identity(folder: Path) -> Any:
        return folder_identity(folder.name, own_store.source_digest(folder))

    model = str(tiny_embedder_source)
    key = compile_key(identity(tiny_embedder_source), options, identity(words))
    own_store.remember(key, tiny_embedder.name, {})
    assert lookup(model, options, own_store) is not None
    assert lookup(model, make_options(), own_store) is None
    # The same files elsewhere are the same tokenizer; other files are not.
    moved = shutil.copytree(words, tmp_path / "other" / "words")
    assert lookup(model, make_options(tokenizer=str(moved)), own_store) is not None
    (words / "tokenizer.json").write_text("{}")
    assert lookup(model, options, own_store) is None


# The real compiler, in its process.


def test_compile_to_a_folder(
    tiny_classifier: Path, tiny_classifier_source: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    result = poolc.compile(
        tiny_classifier_source, output=tmp_path / "artifact", on_event=events.append
    )
    assert (result.path, result.reused) == (tmp_path / "artifact", False)
    assert result.artifact_id == tiny_classifier.name
    ended = {e["name"]: e["seconds"] for e in events if e.get("status") == "done"}
    assert ended == result.seconds
    assert {"fetch", "recognise", "load", "export", "lower", "verify", "publish"} <= ended.keys()
    left = poolc.load(result.path).classify("a river runs").probs
    right = poolc.load(tiny_classifier).classify("a river runs").probs
    assert left.tolist() == right.tolist()


def test_interrupted_compile_leaves_nothing(
    tiny_embedder_source: Path, own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def interrupt(event: Event) -> None:
        if event == {"event": "stage", "name": "export", "status": "start"}:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        poolc.compile(tiny_embedder_source, on_event=interrupt)
    children = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    running = [f"/proc/{pid}/cmdline" for pid in Path(children).read_text().split()]
    assert not any(b"poolc.compiler" in Path(path).read_bytes() for path in running)
    assert own_store.entries() == []
    assert lookup(str(tiny_embedder_source), CompileOptions(), own_store) is None
    # The draft of the killed process is hidden, and gone as soon as another compile starts.
    assert all(path.name.startswith(".") for path in own_store.artifacts.iterdir())
    with staging(own_store.artifacts):
        pass
    assert list(own_store.artifacts.iterdir()) == []


def test_compile_from_the_hub(
    tiny_embedder_source: Path, own_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        repository = hub.add("someone/tiny", files_of(tiny_embedder_source))
        events: list[Event] = []
        engine = poolc.load("someone/tiny", on_event=events.append)
        source = engine.artifact.manifest.source
        assert (source.id, source.revision) == ("someone/tiny", repository.branches["main"])
        downloads = [event for event in events if event["event"] == "download"]
        assert {event["file"] for event in downloads} == set(source.files)
        assert hub.fetched() == set(source.files)
        hub.requests.clear()
        repository.push(files_of(tiny_embedder_source))
        again = poolc.load("someone/tiny")
        assert again.artifact.artifact_id == engine.artifact.artifact_id
        assert hub.requests == []
    # Nothing listens any more, and nothing needs to.
    assert poolc.compile("someone/tiny").reused is True


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            "raise ModuleNotFoundError('no torch', name='torch')",
            'compiling needs torch, which is not installed: pip install "poolc[compile,cpu]"',
        ),
        (
            "raise ImportError('libtorch.so: cannot open it')",
            "compiling needs the compile extra, which fails: libtorch.so: cannot open it",
        ),
    ],
)
def test_compile_without_torch(
    failure: str,
    message: str,
    tiny_embedder_source: Path,
    own_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(failure)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingDependency) as caught:
        poolc.compile(tiny_embedder_source)
    assert str(caught.value).startswith(message)


@pytest.mark.slow
def test_compile_twice_at_once(tiny_embedder_source: Path, own_store: Store) -> None:
    code = textwrap.dedent(
        """
        import sys, poolc
        print(poolc.compile(sys.argv[1]).artifact_id)
        """
    )
    command = [sys.executable, "-c", code, str(tiny_embedder_source)]
    racing = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ids = {process.communicate()[0].strip() for process in racing}
    assert [process.returncode for process in racing] == [0, 0]
    (artifact_id,) = ids
    assert [entry.artifact_id for entry in own_store.entries()] == [artifact_id]
    assert [path.name for path in own_store.artifacts.iterdir()] == [artifact_id]
    assert own_store.verify()[0].problem is None
