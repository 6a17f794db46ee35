"""Downloads, against a stand-in for the hub: what is asked, what is fetched, and what is said."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from poolc import api
from poolc.compiler.events import Event, Progress
from poolc.compiler.hub import download, wanted
from poolc.errors import ModelNotFound, TokenizerError
from poolc.model_cache.store import Store
from tests.compiler.conftest import CompileHere
from tests.compiler.fake_hub import Hub, files_of, serve, stand_in

NAME = "someone/tiny-model"
SELECT = partial(wanted, trust_remote_code=False)
EXTRAS = {
    "README.md": b"x",
    ".gitattributes": b"x",
    "modeling_x.py": b"x",
    "picture.png": b"x",
    "onnx/model.onnx": b"x",
    "onnx/config.json": b"{}",
    "openvino/model.bin": b"x",
    "pytorch_model.bin": b"x",
    "training_args.bin": b"x",
    "tf_model.h5": b"x",
    "checkpoint-10/model.safetensors": b"x",
    "original/weights.pt": b"x",
    "a.gguf": b"x",
}


@pytest.fixture(scope="module")
def model_files(plain_bert: Path) -> dict[str, bytes]:
    """The files of a plain BERT."""
    return files_of(plain_bert)


def asked(hub: Hub, name: str = NAME) -> list[str]:
    """Return the requests about a repository, and forget them."""
    requests = [line for line in hub.requests if name in line]
    hub.requests.clear()
    return requests


# Which files.


@pytest.mark.parametrize(
    ("names", "trust", "expected"),
    [
        (["config.json", "model.safetensors", "a.py"], False, ["config.json", "model.safetensors"]),
        (["config.json", "sub/a.py"], True, ["config.json", "sub/a.py"]),
        (["model.safetensors", "pytorch_model.bin"], False, ["model.safetensors"]),
        (
            ["model.safetensors", "2_Dense/pytorch_model.bin"],
            False,
            ["2_Dense/pytorch_model.bin", "model.safetensors"],
        ),
        (["pytorch_model.bin", "training_args.bin"], False, ["pytorch_model.bin"]),
        (
            ["colbert_linear.safetensors", "pytorch_model.bin", "lora/a.bin", "lora/a.safetensors"],
            False,
            ["colbert_linear.safetensors", "lora/a.safetensors", "pytorch_model.bin"],
        ),
        (
            ["model-00001-of-00002.safetensors", "pytorch_model-00001-of-00002.bin"],
            False,
            ["model-00001-of-00002.safetensors"],
        ),
        (
            ["artifact.metadata", "colbert_linear.pt", "model.safetensors", "x.pt"],
            False,
            ["artifact.metadata", "colbert_linear.pt", "model.safetensors"],
        ),
        (
            ["sparse_linear.pt", "pytorch_model.bin"],
            False,
            ["pytorch_model.bin", "sparse_linear.pt"],
        ),
        (["spiece.model", "chat.jinja"], False, ["chat.jinja", "spiece.model"]),
        (list(EXTRAS), False, ["pytorch_model.bin"]),
        ([], False, []),
    ],
)
def test_wanted(names: list[str], trust: bool, expected: list[str]) -> None:
    assert wanted(names, trust_remote_code=trust) == expected


def test_download_fetches_what_is_read(hub: Hub, model_files: dict[str, bytes]) -> None:
    repository = hub.add(NAME, {**model_files, **EXTRAS})
    events: list[Event] = []
    folder, commit = download(NAME, None, SELECT, Progress(events.append))
    assert commit == repository.branches["main"]
    assert hub.fetched() == set(model_files)
    assert files_of(folder) == model_files
    last = {event["file"]: event for event in events}
    assert {event["event"] for event in events} == {"download"}
    for name, content in model_files.items():
        assert (last[name]["done"], last[name]["total"]) == (len(content), len(content))


def test_download_again_fetches_nothing(hub: Hub, model_files: dict[str, bytes]) -> None:
    hub.add(NAME, model_files)
    progress = Progress(lambda event: None)
    first = download(NAME, None, SELECT, progress)
    asked(hub)
    assert download(NAME, None, SELECT, progress) == first
    assert [line.split("?")[0] for line in asked(hub)] == [f"GET /api/models/{NAME}"]


def test_download_reports_a_large_file_as_it_comes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.add(NAME, {"model.safetensors": bytes(250_000)})
    events: list[Event] = []
    download(NAME, None, SELECT, Progress(events.append))
    done = [event["done"] for event in events]
    assert done == sorted(done)
    assert len(done) > 1
    assert done[-1] == events[-1]["total"] == 250_000


# What goes wrong.


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        (
            "someone/absent",
            None,
            "there is no folder someone/absent, and the hub has no such model",
        ),
        ("absent", None, "there is no folder absent, and the hub has no such model"),
        (NAME, "absent", f"{NAME} on the hub has no revision 'absent': give a branch, tag or"),
        ("a/b/c", None, r"there is no folder a/b/c, nor is it a hub id \(name or owner/name\)"),
        ("someone/gated", None, r"someone/gated is gated: accept its terms on the hub, then `hf"),
        ("someone/empty", None, "someone/empty on the hub holds no model files"),
    ],
)
def test_download_refused(
    name: str, revision: str | None, message: str, hub: Hub, model_files: dict[str, bytes]
) -> None:
    hub.add(NAME, model_files)
    hub.add("someone/empty", {"README.md": b""})
    hub.add("someone/gated", model_files).gated = True
    with pytest.raises(ModelNotFound, match=message):
        download(name, revision, SELECT, Progress(lambda event: None))


def test_download_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as running:
        url = running.url
    stand_in(url, monkeypatch)  # nothing listens there any more
    message = f"{NAME} is not a folder, and the hub cannot be reached for it: .*[Rr]efused"
    with pytest.raises(ModelNotFound, match=message):
        download(NAME, None, SELECT, Progress(lambda event: None))


# What a compile asks.


def test_compile_pins_the_commit(
    hub: Hub, model_files: dict[str, bytes], compile_here: CompileHere, store: Store
) -> None:
    repository = hub.add(NAME, model_files)
    first = repository.branches["main"]
    artifact = compile_here(NAME)
    source = artifact.manifest.source
    assert (source.id, source.revision, set(source.files)) == (NAME, first, set(model_files))
    assert store.recorded_commit(NAME, None) == first
    repository.push(model_files)
    asked(hub)

    # Found in the store, or compiled with other options: the commit of the first time, unasked.
    assert api.lookup(NAME, api.make_options(), store) == artifact.path
    other = compile_here(NAME, keep_canonical=True)
    assert other.manifest.source.revision == first
    assert asked(hub) == []

    newer = compile_here(NAME, refresh=True)
    assert newer.manifest.source.revision == repository.branches["main"] != first
    assert store.recorded_commit(NAME, None) == repository.branches["main"]
    assert asked(hub) != []


def test_compile_a_revision(
    hub: Hub, model_files: dict[str, bytes], compile_here: CompileHere, store: Store
) -> None:
    repository = hub.add(NAME, model_files)
    commit = repository.push(model_files, branch="dev")
    artifact = compile_here(NAME, revision="dev")
    assert artifact.manifest.source.revision == commit
    assert "revision" not in artifact.manifest.options
    # The branch, and the commit that it was, are the same request; the main branch is another.
    for revision in ("dev", commit):
        options = api.make_options(revision=revision)
        assert api.lookup(NAME, options, store) == artifact.path
    assert api.lookup(NAME, api.make_options(), store) is None
    assert compile_here(NAME, revision=commit).artifact_id == artifact.artifact_id


def test_compile_downloads_again_what_the_cache_lost(
    hub: Hub, model_files: dict[str, bytes], compile_here: CompileHere, tmp_path: Path
) -> None:
    first = hub.add(NAME, model_files).branches["main"]
    compile_here(NAME)
    hub.repositories[NAME].push(model_files)
    for path in (tmp_path / "hub").rglob("model.safetensors"):
        path.resolve().unlink()  # the blob, then the link to it
        path.unlink()
    asked(hub)
    assert compile_here(NAME).manifest.source.revision == first
    assert f"GET /{NAME}/resolve/{first}/model.safetensors" in asked(hub)


def test_compile_pickled_weights(
    hub: Hub, model_files: dict[str, bytes], compile_here: CompileHere, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(model_files["model.safetensors"])
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    pickled = {name: data for name, data in model_files.items() if "safetensors" not in name}
    pickled["pytorch_model.bin"] = (tmp_path / "pytorch_model.bin").read_bytes()
    hub.add(NAME, pickled)
    artifact = compile_here(NAME)
    assert "pytorch_model.bin" in artifact.manifest.source.files
    assert artifact.report()["warnings"][0].startswith("pytorch_model.bin is a pickle")


def test_compile_another_tokenizer_of_the_hub(
    hub: Hub, model_files: dict[str, bytes], compile_here: CompileHere, store: Store, tmp_path: Path
) -> None:
    words = tmp_path / "words"
    words.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (words / name).write_bytes(model_files[name] + b"\n")
    hub.add(NAME, model_files)
    other = hub.add("someone/words", {**model_files, **files_of(words), "README.md": b"x"})
    artifact = compile_here(NAME, tokenizer="someone/words")
    fetched = {line.rpartition("/")[2] for line in asked(hub, "someone/words") if "resolve" in line}
    assert fetched == {"tokenizer.json", "tokenizer_config.json"}
    assert artifact.manifest.options["tokenizer"] == "someone/words"
    assert store.recorded_commit("someone/words", None) == other.branches["main"]
    options = api.make_options(tokenizer="someone/words")
    assert api.lookup(NAME, options, store) == artifact.path
    assert api.lookup(NAME, api.make_options(tokenizer="someone/else"), store) is None
    # As a model it has never been fetched: its weights come now, of the same commit.
    assert compile_here("someone/words").manifest.source.revision == other.branches["main"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("someone/absent", ModelNotFound, "the hub has no such model"),
        ("someone/bare", ModelNotFound, "someone/bare on the hub holds no model files"),
        ("not/a/folder", ModelNotFound, "there is no folder not/a/folder, nor is it a hub id"),
    ],
)
def test_compile_another_tokenizer_that_is_not_there(
    name: str,
    error: type[Exception],
    message: str,
    hub: Hub,
    model_files: dict[str, bytes],
    compile_here: CompileHere,
) -> None:
    hub.add(NAME, model_files)
    hub.add("someone/bare", {"config.json": b"{}"})
    with pytest.raises(error, match=message):
        compile_here(NAME, tokenizer=name)


def test_compile_failure_records_no_commit(
    hub: Hub, model_files: dict[str, bytes], compile_here: CompileHere, store: Store
) -> None:
    broken = {name: data for name, data in model_files.items() if not name.startswith("token")}
    hub.add(NAME, broken)
    with pytest.raises(TokenizerError):
        compile_here(NAME)
    assert store.recorded_commit(NAME, None) is None
    assert store.entries() == []


def test_progress_events_are_plain_json(hub: Hub, model_files: dict[str, bytes]) -> None:
    hub.add(NAME, model_files)
    events: list[dict[str, Any]] = []
    download(NAME, None, SELECT, Progress(events.append))
    assert all(set(event) == {"event", "file", "done", "total"} for event in events)
    assert all(type(event["done"]) is int and type(event["total"]) is int for event in events)
